"""`flowsteer reproduce`: the paper's argument on the emoji teacher, cell by cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowsteer.cli.inputs import Number, WholeNumber, check_output_dir
from flowsteer.validation import check_seed, check_whole_number


@dataclass(frozen=True)
class Reproduce:
    """Mismatch, scheduler and ablation of the paper, with intervals; resumable cell by cell."""

    preset: Literal["full", "smoke"] = "full"
    """full: sized for about 40 minutes of an H100. smoke: random weights, a minute of a CPU."""
    output_dir: Path = Path("out/reproduce")
    """Gets cells/*.json, students/, report.md and plots/. Copy the first two here to merge."""
    tables: tuple[Literal["0", "1", "2", "tuning", "3", "4", "5"], ...] = ()
    """0 undistilled, 1 mismatch, 2 scheduler, tuning of learning rates, 3 ablation, 4 beyond the
    paper, 5 solvers; by default all."""
    cells: tuple[str, ...] = ()
    """Only these cells, by name; report.md lists those that are missing."""
    seeds: tuple[WholeNumber, ...] = ()
    """Training seeds of the ablation; by default the preset's."""
    max_seconds: Number | None = None
    """Stop in time; training goes on from its checkpoint in the next call."""
    report_only: bool = False
    """Write the report of what is there, and run nothing."""
    compile: bool = False
    """Compile the transformers (CUDA; a minute at the start)."""
    dataloader_num_workers: WholeNumber = 0
    """Processes that draw scenes."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def run(self) -> None:
        """Do the cells, a line each on stdout, then write the report and print its path."""
        check_output_dir(self.output_dir)
        seeds = tuple(check_seed(seed) for seed in self.seeds)
        workers = check_whole_number("dataloader_num_workers", self.dataloader_num_workers, 0, 256)
        limit = self.max_seconds
        if limit is not None and not (isinstance(limit, int | float) and 0 < limit < math.inf):
            raise ValueError(f"max_seconds = {limit!r} must be a number above 0, such as 540")
        from flowsteer.reproduce.cells import plan
        from flowsteer.reproduce.jobs import Deadline
        from flowsteer.reproduce.presets import find_preset
        from flowsteer.reproduce.report import write_report
        from flowsteer.reproduce.run import Choice, Reproduction, chosen_rates
        from flowsteer.reproduce.store import Store
        from flowsteer.reproduce.workbench import Machine, Workbench

        preset, store = find_preset(self.preset), Store(self.output_dir)
        if not self.report_only:
            bench = Workbench(preset, Machine(self.device, self.compile, workers))
            choice = Choice(self.tables or None, self.cells, seeds or None)
            reproduction = Reproduction(preset, store, bench, choice, Deadline.after(limit))
            for progress in reproduction.run():
                print(progress, flush=True)
        print(write_report(store, plan(preset), chosen_rates(store, preset)))
