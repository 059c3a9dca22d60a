"""Shared fixtures: a tiny pipeline with random weights, students for it, and no network."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# threads that spin while they wait make small networks 20 times slower on cores that are shared;
# OpenMP reads this when torch is first imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


@pytest.fixture(scope="session", autouse=True)
def only_local_connections():
    """Any connection that leaves this machine fails the test that makes it."""
    connect = socket.socket.connect

    def local_connect(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise AssertionError(f"a test tried to connect to {address}")
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", local_connect)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A pipeline folder with random weights, 1 MB; no layer of it is zero."""
    from flowsteer.emoji.pipeline import write_tiny_teacher

    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    write_tiny_teacher(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder):
    """A fresh teacher pipeline from `tiny_folder`, as `load_pipeline` gives it."""
    from flowsteer.loading import load_pipeline

    return load_pipeline(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def student_info(tiny_folder):
    """What both students below say of themselves: four rectified windows at shift 3."""
    from flowsteer.students import StudentInfo

    return StudentInfo(
        method="ota",
        teacher=str(tiny_folder),
        edges=(1, 0.9, 0.75, 0.5, 0),
        shift=3.0,
        guidance_range=(2.0, 4.0),
        lora_rank=4,
        lora_alpha=8.0,
        steps=10,
    )


@pytest.fixture(scope="session")
def lora_student(tiny_folder, student_info, tmp_path_factory) -> Path:
    """A student folder with a random LoRA whose alpha differs from its rank."""
    from diffusers import SD3Transformer2DModel

    from flowsteer.models.lora import add_lora, save_lora

    transformer = SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")
    config = add_lora(transformer, rank=4, alpha=8.0)
    generator = torch.Generator().manual_seed(2)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1, generator=generator)
    folder = tmp_path_factory.mktemp("students") / "lora"
    save_lora(transformer, config, folder)
    student_info.save(folder)
    return folder


@pytest.fixture(scope="session")
def full_student(tiny_folder, student_info, tmp_path_factory) -> Path:
    """A student folder with a whole transformer, other than the teacher's."""
    from dataclasses import replace

    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")
    with torch.no_grad():
        transformer.proj_out.weight.mul_(1.5)
    folder = tmp_path_factory.mktemp("students") / "full"
    transformer.save_pretrained(folder / "transformer")
    replace(student_info, lora_rank=None, lora_alpha=None).save(folder)
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one, tests are skipped, and fail where CI is set."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        reason = f"no Chromium found; install one of {', '.join(CHROMIUM)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()
