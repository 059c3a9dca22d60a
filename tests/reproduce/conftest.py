"""One real run of the smoke preset for all tests here, and made-up cells whose truth is known."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import pytest
import torch

from flowsteer.cli.reproduce import Reproduce
from flowsteer.reproduce.cells import ablation_name, tuning_name
from flowsteer.reproduce.jobs import Deadline
from flowsteer.reproduce.presets import ROWS, find_preset
from flowsteer.reproduce.run import Choice, Reproduction
from flowsteer.reproduce.store import Store
from flowsteer.reproduce.workbench import Machine, Workbench


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Store and printed lines of `flowsteer reproduce --preset smoke`; not to be changed."""
    folder = tmp_path_factory.mktemp("smoke")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        Reproduce(preset="smoke", output_dir=folder, device="cpu").run()
    return Store(folder), printed.getvalue().splitlines()


@pytest.fixture(scope="session")
def bench():
    """The smoke preset's teacher and judge, loaded once."""
    return Workbench(find_preset("smoke"), Machine("cpu"))


@pytest.fixture
def reproduction(bench, tmp_path):
    """Makes a reproduction of the smoke preset in this test's own folder."""

    def make(*cells, tables=None, seeds=None, deadline=None, preset=bench.preset):
        choice = Choice(tables, cells, seeds)
        return Reproduction(preset, Store(tmp_path), bench, choice, deadline or Deadline())

    return make


def answer(correct, distances, label="row", frechet=0.5, **more):
    """What `Result.to_json` would write, as far as the report reads it."""
    mean, distance = (sum(values) / len(values) for values in (correct, distances))
    spread = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
    return {
        "label": label,
        "nfe": 4,
        "num_inference_steps": 4,
        "scheduler": "rectified",
        "emoji_eval": {"overall": spread},
        "distance": {"mean": distance, "low": distance - 0.01, "high": distance + 0.01},
        "frechet": frechet,
        "correct": "".join("01"[bool(right)] for right in correct),
        "distances": list(distances),
    } | more


@dataclass
class Fakes:
    """Writes cells with given accuracies and distances on n prompts."""

    store: Store
    count: int = 300
    teacher: float = 0.9
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def draw(self, accuracy, distance, **more):
        """An answer: exactly so many prompts right, distances around their mean."""
        right = torch.zeros(self.count)
        order = torch.randperm(self.count, generator=self.generator)
        right[order[: round(accuracy * self.count)]] = 1
        noise = 0.01 * torch.randn(self.count, generator=self.generator)
        distances = (distance + noise - noise.mean()).tolist()
        return answer(right.tolist(), distances, **more)

    def write(self, name, table, results, seed=None, flags=None, label="cell", row=None, **more):
        """A record, as `record_of` makes it."""
        config = {"kind": "fake", "model": "emoji", "num_prompts": self.count, "label": label}
        record = {
            "name": name,
            "table": table,
            "label": label,
            "seed": seed,
            "row": row,
            "config": config | {"flags": {"learning_rate": 1e-3} | (flags or {})} | more,
            "made_on": {"device": "a device", "torch": "2", "flowsteer": "0"},
            "wall_seconds": 100.0,
            "peak_memory": 10**9,
            "results": results,
        }
        self.store.write(record)

    def variants(self, **accuracies):
        """Table 0, a row each."""
        rows = [self.draw(value, 0.6, label=name) for name, value in accuracies.items()]
        whole = self.draw(self.teacher, 0.0, label="teacher, 28 steps")
        self.write("0-variants", "0", {"teacher": whole, "rows": rows})

    def run(self, row, seed, accuracy, distance, seconds=80.0, samples=1000, way=()):
        """An ablation cell with checkpoints at 4 to 8; each is a hundredth worse than the next."""
        checkpoints = [
            {
                "step": step,
                "seconds": seconds * step / 8,
                "ways": [
                    self.draw(accuracy - 0.01 * (8 - step), distance + 0.01 * (8 - step)),
                    *(self.draw(*pair) for pair in way if step == 8),
                ],
            }
            for step in range(4, 9)
        ]
        results = {
            "checkpoints": checkpoints,
            "teacher": self.draw(self.teacher, 0.0, label="teacher, 28 steps"),
            "seconds": seconds,
            "samples": samples,
            "samples_per_second": samples / seconds,
            "peak_memory": 2 * 10**9,
            "curve": {"step": [1, 2], "loss": [0.2, 0.1]},
        }
        name = ablation_name(row, seed)
        self.write(name, "3", results, seed, label=ROWS[row].label, row=row)

    def beyond(self, row, change, accuracy, distance):
        """A cell with one flag changed from a row."""
        last = {"step": 8, "seconds": 80.0, "ways": [self.draw(accuracy, distance)]}
        name = f"4-{change.replace(' = ', '-')}"
        self.write(name, "4", {"checkpoints": [last]}, 0, label=change, row=row)

    def tuning(self, row, rate, accuracy, distance):
        """A tuning cell."""
        last = {"step": 4, "seconds": 1.0, "ways": [self.draw(accuracy, distance)]}
        flags = {"learning_rate": rate, "max_train_steps": 4}
        label = ROWS[row].label
        self.write(tuning_name(row, rate), "tuning", {"checkpoints": [last]}, 0, flags, label)


@pytest.fixture
def fakes(tmp_path):
    return Fakes(Store(tmp_path))
