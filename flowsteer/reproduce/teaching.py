"""A training cell: teach a student, then judge the checkpoints of its second half."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any, ClassVar

from torch import Tensor

from flowsteer.emoji.batches import CaptionSource, SceneSource
from flowsteer.evaluation.study import Variant
from flowsteer.loading import pipeline_info
from flowsteer.reproduce.jobs import Deadline, Outcome, Place
from flowsteer.reproduce.workbench import Workbench, peak_memory, start_peak_memory
from flowsteer.training.distillation import distill, load_checkpoint_student
from flowsteer.training.distillation_config import DistillationConfig
from flowsteer.training.log import read_log
from flowsteer.training.progress import watch
from flowsteer.training.run_folder import FreshStart

CURVE_POINTS = 96


@dataclass(frozen=True)
class Training:
    """A student by the flags of `flowsteer distill`, and the ways to sample it.

    Raises:
        ValueError: if the flags are no valid run.
    """

    kind: ClassVar[str] = "training"
    model: str
    label: str
    flags: Mapping[str, Any]
    split: str
    """The prompts it is judged on: test to report, dev to choose."""
    num_prompts: int
    checkpoints: int
    """Evenly spaced; those from the middle on are judged, the last in every way of `sampling`."""
    sampling: tuple[tuple[int, str], ...] = ((4, "rectified"),)
    """(steps, scheduler); the first counts."""

    def __post_init__(self) -> None:
        self.distillation(Path("run"))

    def distillation(self, run: Path) -> DistillationConfig:
        """The settings of the run, machine aside."""
        return DistillationConfig(
            output_dir=str(run),
            pretrained_model_name_or_path=self.model,
            checkpointing_steps=self.flags["max_train_steps"] // self.checkpoints,
            checkpoints_total_limit=None,
            resume_from_checkpoint="latest",
            **self.flags,
        )

    def run(self, bench: Workbench, place: Place) -> Outcome | None:
        """Teach, going on from the newest checkpoint, then judge; None if the time ran out."""
        config = self.distillation(place.run)
        start_peak_memory()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FreshStart)  # so every cell begins
            if not self._teach(bench, config, place):
                return None
        memory = peak_memory()
        rows, latents = self._judge(bench, place.run, config)
        steps = read_log(place.run)
        # the median: a call's first step also compiles, and one after a checkpoint writes it
        pace = config.train_batch_size / median(step["samples_per_second"] for step in steps)
        for row in rows:
            row["seconds"] = row["step"] * pace
        samples = config.train_batch_size * config.windows
        results = {
            "checkpoints": rows,
            "teacher": bench.ground(self.split).teacher.to_json(),
            "seconds": steps[-1]["step"] * pace,
            "samples": steps[-1]["step"] * samples,
            "samples_per_second": samples / pace,
            "peak_memory": memory,
            "curve": thinned(steps, CURVE_POINTS),
        }
        return Outcome(results, latents)

    def _teach(self, bench: Workbench, config: DistillationConfig, place: Place) -> bool:
        """Whether the run came to its end before the deadline."""
        machine, pipe = bench.machine, bench.fresh_pipe()
        config = replace(
            config, compile=machine.compile, dataloader_num_workers=machine.num_workers
        )
        pictures = config.teaching.needs_data
        source = SceneSource(config.seed) if pictures else CaptionSource(config.seed)
        encode = bench.encode_scenes if pictures else None
        reports = distill(pipe, source, config, pipeline_info(pipe).guidance_scale, encode=encode)
        paces: list[float] = []
        for report in watch(reports, config, place.run.name):
            paces.append(config.train_batch_size / report.samples_per_second)
            every = config.checkpointing_steps, config.logging_steps
            if should_stop(report.step, *every, paces, place.deadline):
                reports.close()  # type: ignore[attr-defined]
                return False
        return True

    def _judge(
        self, bench: Workbench, run: Path, config: DistillationConfig
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """A row for each of the later checkpoints; the last one's latents."""
        ground, rows = bench.ground(self.split), []
        for number in range(max(1, self.checkpoints // 2), self.checkpoints + 1):
            step = number * config.checkpointing_steps
            pipe = bench.fresh_pipe()
            load_checkpoint_student(pipe, run / f"checkpoint-{step}", config)
            ways = self.sampling if number == self.checkpoints else self.sampling[:1]
            judged = [
                bench.evaluate(pipe, Variant(self.label, steps, 1.0, scheduler), ground)
                for steps, scheduler in ways
            ]
            rows.append({"step": step, "ways": [result.to_json() for result, _ in judged]})
        return rows, judged[0][1]


def should_stop(
    step: int, saved: int, logged: int, paces: Sequence[float], deadline: Deadline
) -> bool:
    """Whether to leave a run now, since its next checkpoint would come too late.

    A checkpoint is written after its step was reported, so at the report after that it is there.

    Args:
        step: reported last, from 1.
        saved: steps between checkpoints.
        logged: steps between reports.
        paces: seconds a step before each report of this call; the first also loads and compiles.
        deadline: when the time is up.
    """
    past = step % saved  # the checkpoint
    if past != min(logged, saved) % saved:
        return False
    pace = median(paces[1:]) if len(paces) > 1 else 0.0
    return not deadline.leaves(pace * (saved - past))


def thinned(steps: Sequence[Mapping[str, float]], most: int) -> dict[str, list[float]]:
    """A run's log by name, at most so many points: each is the mean of a stretch, at its end.

    What a whole stretch lacks, such as the critic's accuracy where it did not look, is left out.
    """
    size = -(-len(steps) // most)
    stretches = [steps[low : low + size] for low in range(0, len(steps), size)]
    names = {name: None for step in steps for name in step if name != "step"}
    found = {name: [[s[name] for s in part if name in s] for part in stretches] for name in names}
    means = {
        name: [float(f"{mean(values):.5g}") for values in parts]
        for name, parts in found.items()
        if all(parts)
    }
    return {"step": [part[-1]["step"] for part in stretches]} | means
