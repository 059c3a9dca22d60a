"""A run that is killed at any moment goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from flowsteer.training import latest_checkpoint

SCRIPT = """
import sys, warnings
import torch
from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import fold_pipeline
from flowsteer.training.distillation import distill
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.sources import PromptSource

torch.set_num_threads(1)
pipe = fold_pipeline(build_pipeline("tiny", seed=3))
torch.manual_seed(0)
for parameter in pipe.transformer.parameters():
    if not parameter.any():
        torch.nn.init.normal_(parameter, std=0.2)
config = DistillationConfig(
    output_dir=sys.argv[1], method="flowsteer", max_train_steps=STEPS, train_batch_size=2, rank=2,
    substeps=1, checkpointing_steps=1, lr_warmup_steps=2, learning_rate=1e-3, num_windows=2,
    share_on_policy=0.5, resume_from_checkpoint="latest",
)
for report in distill(pipe, PromptSource(("koala", "two foxes"), seed=0), config, 3.0):
    print(report.step, flush=True)
"""
STEPS = 40
FILES = ("model", "ema", "optimizer", "critic_model", "critic_optimizer")


def start(folder):
    script = SCRIPT.replace("STEPS", str(STEPS))
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_again_and_again_it_ends_bitwise_the_same(tmp_path, seed):
    """Three SIGKILLs at random moments, also in the middle of writing a checkpoint."""
    rng = random.Random(seed)
    whole = start(tmp_path / "whole")
    assert whole.wait() == 0
    killed_at = []
    for _ in range(3):
        run = start(tmp_path / "killed")
        run.stdout.readline()  # at least one more step is done
        time.sleep(rng.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        run.wait()
        killed_at.append(latest_checkpoint(tmp_path / "killed").name)
    assert killed_at[-1] != f"checkpoint-{STEPS}", "the last kill came too late to show anything"
    assert start(tmp_path / "killed").wait() == 0
    for file in FILES:
        one, other = (
            load_file(tmp_path / name / f"checkpoint-{STEPS}" / f"{file}.safetensors")
            for name in ("whole", "killed")
        )
        assert one.keys() == other.keys() and one
        for name, tensor in one.items():
            assert tensor.equal(other[name]), (file, name)
    left = [name for name in os.listdir(tmp_path / "killed") if name.startswith(".")]
    assert not left, "half-written folders of killed runs remain"
