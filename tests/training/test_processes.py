"""Two processes train as one with twice the batch."""

import os
import socket
import subprocess
import sys

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys, torch
from accelerate import Accelerator
from torch import nn
from flowsteer.training import TrainingConfig, train
from flowsteer.training.data import seeded_generator

accelerator = Accelerator(cpu=True)
rank, world = accelerator.process_index, accelerator.num_processes
assert world == int(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

def losses(step, micro_step):
    x = torch.randn(16, 3, generator=seeded_generator("cpu", step)).chunk(world)[rank]
    yield (model(x) - x.sum(1, keepdim=True)).square().mean()

config = TrainingConfig(
    sys.argv[1], max_train_steps=5, learning_rate=1e-2, lr_warmup_steps=0,
    train_batch_size=16 // world,
)
for _ in train(model, losses, config, accelerator):
    pass
accelerator.wait_for_everyone()
accelerator.end_training()  # gloo threads left open can abort the exit
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, world):
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    names = shared if world > 1 else {}
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(world)],
            env=os.environ | names | ({"RANK": str(r), "LOCAL_RANK": str(r)} if names else {}),
        )
        for r in range(world)
    ]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    runs = start(tmp_path / "one", 1) + start(tmp_path / "two", 2)
    try:
        assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    finally:
        for run in runs:
            run.kill()
    for file in ("model", "ema"):
        one, two = (
            load_file(tmp_path / name / "checkpoint-5" / f"{file}.safetensors")
            for name in ("one", "two")
        )
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)
