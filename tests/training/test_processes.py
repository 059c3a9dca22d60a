"""Two processes train as one with twice the batch: the same losses, the same networks."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

LOOP = """
import sys, torch
from accelerate import Accelerator
from torch import nn
from flowsteer.training import TrainingConfig, train
from flowsteer.training.data import seeded_generator

def run(folder, world):
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    assert world == accelerator.num_processes
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(step, micro_step):
        x = torch.randn(16, 3, generator=seeded_generator("cpu", step)).chunk(world)[rank]
        yield (model(x) - x.sum(1, keepdim=True)).square().mean()

    config = TrainingConfig(
        folder, max_train_steps=5, learning_rate=1e-2, lr_warmup_steps=0,
        train_batch_size=16 // world,
    )
    return train(model, losses, config, accelerator)
"""

DISTILLATION = """
import sys, torch
from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import fold_pipeline
from flowsteer.training.distillation import distill
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.sources import PromptSource

def run(folder, world):
    pipe = fold_pipeline(build_pipeline("tiny", seed=3))
    torch.manual_seed(0)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    config = DistillationConfig(
        output_dir=folder, method="flowsteer", max_train_steps=5, train_batch_size=4 // world,
        rank=2, substeps=1, num_windows=2, lr_warmup_steps=0, learning_rate=1e-3,
        share_on_policy=0.5, guidance_min=2, guidance_max=4,
    )
    return distill(pipe, PromptSource(("koala", "two foxes", "a pizza"), seed=0), config)
"""

MAIN = """
import json
from accelerate import PartialState

rows = [[r.loss, r.metrics.get("critic_loss", 0)] for r in run(sys.argv[1], int(sys.argv[2]))]
if PartialState().is_main_process:
    with open(sys.argv[1] + ".json", "w") as file:
        json.dump(rows, file)
PartialState().wait_for_everyone()
PartialState().destroy_process_group()  # gloo threads left open can abort the exit
"""
LOSS_TOLERANCE = 1e-4  # sums over the batch are taken in another order
PARAMETER_TOLERANCE = 1e-3  # of the whole network: AdamW makes much of gradients near zero


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(script, folder, world, main=MAIN):
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    names = shared if world > 1 else {}
    cpu = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", script + main, str(folder), str(world)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | cpu
            | names
            | ({"RANK": str(r), "LOCAL_RANK": str(r)} if names else {}),
        )
        for r in range(world)
    ]


@pytest.mark.parametrize(
    ("script", "files"),
    [
        pytest.param(LOOP, ("model", "ema"), id="loop"),
        pytest.param(DISTILLATION, ("model", "ema", "critic_model"), id="distillation"),
    ],
)
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, script, files):
    runs = start(script, tmp_path / "one", 1) + start(script, tmp_path / "two", 2)
    try:
        errors = [run.communicate(timeout=240)[1] for run in runs]
        assert [run.returncode for run in runs] == [0, 0, 0], errors
    finally:
        for run in runs:
            run.kill()
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert len(one) == 5
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=LOSS_TOLERANCE, atol=1e-6)
    for file in files:
        first, second = (
            load_file(tmp_path / name / "checkpoint-5" / f"{file}.safetensors")
            for name in ("one", "two")
        )
        one, two = (torch.cat([w[k].flatten() for k in first]) for w in (first, second))
        assert (two - one).norm() < PARAMETER_TOLERANCE * one.norm(), file


SIGNALLED = """
import os, signal
from accelerate import PartialState
from flowsteer.training.interruption import Interrupted, caught_signals

try:
    with caught_signals():
        for report in run(sys.argv[1], int(sys.argv[2])):
            if report.step == 2 and PartialState().process_index == 1:
                signal.raise_signal(signal.SIGTERM)
except (Interrupted, ValueError) as error:
    print(error)
PartialState().wait_for_everyone()
PartialState().destroy_process_group()
"""


def test_a_signal_to_one_process_stops_all_at_one_step(tmp_path):
    """And a second run in their folder is refused by all, none of which waits for another."""
    for message in ("stopped after step 3, saved in", "holds a run already (checkpoint-3)"):
        runs = start(LOOP, tmp_path / "out", 2, SIGNALLED)
        try:
            said = [run.communicate(timeout=240)[0] for run in runs]
        finally:
            for run in runs:
                run.kill()
        assert all(message in line for line in said), said
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-3"]
