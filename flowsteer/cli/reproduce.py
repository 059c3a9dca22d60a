"""`flowsteer reproduce`: the paper's argument on the emoji teacher, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flowsteer.cli.inputs import Number, WholeNumber, check_output_dir
from flowsteer.limits import Within, check_fields
from flowsteer.validation import SEED_LIMIT


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
    seeds: tuple[Annotated[WholeNumber, Within(0, SEED_LIMIT - 1)], ...] = ()
    """Training seeds of the ablation; by default the preset's."""
    max_seconds: Annotated[Number, Within(0, 10_000_000, above=True)] | None = None
    """Stop in time; training goes on from its checkpoint in the next call."""
    report_only: bool = False
    """Write the report of what is there, and run nothing."""
    compile: bool = False
    """Compile the transformers (CUDA; a minute at the start)."""
    dataloader_num_workers: Annotated[WholeNumber, Within(0, 256)] = 0
    """Processes that draw scenes."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def run(self) -> None:
        """Do the cells, a line each on stdout, then write the report and print its path."""
        check_output_dir(self.output_dir)
        check_fields(self)
        from flowsteer.loading import check_device
        from flowsteer.reproduce.cells import plan
        from flowsteer.reproduce.jobs import Deadline
        from flowsteer.reproduce.presets import find_preset
        from flowsteer.reproduce.report import write_report
        from flowsteer.reproduce.run import Choice, Reproduction, chosen_rates
        from flowsteer.reproduce.store import Store
        from flowsteer.reproduce.workbench import Machine, Workbench
        from flowsteer.training.machine import check_compiler

        preset, store = find_preset(self.preset), Store(self.output_dir)
        if not self.report_only:
            check_compiler(self.compile, check_device(self.device))
            machine = Machine(self.device, self.compile, self.dataloader_num_workers)
            choice = Choice(self.tables or None, self.cells, self.seeds or None)
            deadline = Deadline.after(self.max_seconds)
            bench = Workbench(preset, machine)
            reproduction = Reproduction(preset, store, bench, choice, deadline)
            for progress in reproduction.run():
                print(progress, flush=True)
        print(write_report(store, plan(preset), chosen_rates(store, preset)))
