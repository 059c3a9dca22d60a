"""Doing the cells: in turn, each written when it is done, none begun twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flowsteer.evaluation.report import made_on
from flowsteer.reproduce.cells import Cell, plan, tuning_name
from flowsteer.reproduce.jobs import Deadline, Place, config_of
from flowsteer.reproduce.presets import ROWS, Preset
from flowsteer.reproduce.scores import last_answer
from flowsteer.reproduce.store import Record, Store
from flowsteer.reproduce.teaching import Training
from flowsteer.reproduce.workbench import Workbench, peak_memory, start_peak_memory

KEPT_STUDENTS = ("3", "4")
"""Tables whose students are kept; those of tuning runs are not."""


@dataclass(frozen=True)
class Choice:
    """Which of a preset's cells to do."""

    tables: tuple[str, ...] | None = None
    """None means all."""
    cells: tuple[str, ...] = ()
    """By name; none means all of the tables'."""
    seeds: tuple[int, ...] | None = None
    """None means the preset's."""


@dataclass(frozen=True)
class Progress:
    """What came of one cell."""

    cell: Cell
    state: str
    """"done", "done before", "cut" (goes on next time), "left" (no time) or "waits"."""
    why: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        took = f" in {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.cell.name}: {self.state}{took}" + (f", {self.why}" if self.why else "")


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A preset's cells in a folder.

    Args:
        preset: sizes.
        store: the folder.
        bench: loads what is needed when it is needed.
        choice: which cells.
        deadline: of this call.
    """

    preset: Preset
    store: Store
    bench: Workbench
    choice: Choice = field(default_factory=Choice)
    deadline: Deadline = field(default_factory=Deadline)

    def cells(self) -> list[Cell]:
        """The chosen cells, with the learning rates that tuning has chosen so far.

        Raises:
            ValueError: if a cell or table is unknown.
        """
        choice, rates = self.choice, chosen_rates(self.store, self.preset)
        cells = plan(self.preset, choice.tables, choice.seeds, rates)
        names = {cell.name for cell in cells}
        if unknown := [name for name in choice.cells if name not in names]:
            raise ValueError(
                f"no cell {unknown[0]!r} among those chosen; use some of {', '.join(sorted(names))}"
            )
        return [cell for cell in cells if not choice.cells or cell.name in choice.cells]

    def check(self) -> None:
        """Hold all that is done against what would be done now, before any time is spent.

        Raises:
            ValueError: at the first cell that was made with other settings.
        """
        for cell in self.cells():
            if self.store.has(cell.name):
                self.store.check(cell.name, config_of(cell.job))

    def run(self) -> Iterator[Progress]:
        """Do what is not done yet.

        Yields:
            One progress a cell, in order.

        Raises:
            ValueError: at a cell that was made with other settings, or a run that diverges.
        """
        self.check()
        # tuning decides the learning rates of what comes after it, so those are planned again
        names = [cell.name for cell in self.cells()]
        for name in names:
            (cell,) = [cell for cell in self.cells() if cell.name == name]
            yield self._do(cell)

    def _do(self, cell: Cell) -> Progress:
        if self.store.has(cell.name):
            self.store.check(cell.name, config_of(cell.job))
            return Progress(cell, "done before")
        if waiting := self._waits_for(cell):
            return Progress(cell, "waits", f"for {waiting} to be done")
        if not self.deadline.leaves(longest(self.store, cell.job.kind)):
            return Progress(cell, "left", "it does not fit into the time that is left")
        start = time.monotonic()
        start_peak_memory()
        place = Place(self.store.run(cell.name), self.store.students, self.deadline)
        outcome = cell.job.run(self.bench, place)
        seconds = time.monotonic() - start
        if outcome is None:
            return Progress(cell, "cut", "goes on from its checkpoint next time", seconds)
        drawn = outcome.latents if cell.table != "tuning" else None
        picture = None if drawn is None else self.bench.strip(drawn)
        if cell.table in KEPT_STUDENTS:
            self.store.keep_student(cell.name)
        self.store.write(record_of(cell, outcome.results, seconds), picture)
        self.store.drop_run(cell.name)
        return Progress(cell, "done", seconds=seconds)

    def _waits_for(self, cell: Cell) -> str | None:
        """What has to be there before a cell; None if all is."""
        if cell.needs is not None and not (self.store.students / cell.needs).is_dir():
            return f"the student of {cell.needs}"
        if cell.row is None or cell.table == "tuning":
            return None
        tables = self.choice.tables
        planned = (tables is None or "tuning" in tables) and not self.choice.cells
        missing = missing_tuning(self.store, self.preset, cell.row, planned)
        return missing[0] if missing else None


def record_of(cell: Cell, results: Record, seconds: float) -> Record:
    """A cell's JSON."""
    return {
        "name": cell.name,
        "table": cell.table,
        "label": cell.label,
        "seed": cell.seed,
        "row": cell.row,
        "config": config_of(cell.job),
        "made_on": made_on(),
        "wall_seconds": round(seconds, 2),
        "peak_memory": peak_memory(),
        "results": results,
    }


def missing_tuning(store: Store, preset: Preset, row: str, planned: bool) -> Sequence[str]:
    """Tuning cells of a row that its runs have to wait for.

    A row that is not tuned at all takes the preset's rate, unless tuning is planned; one whose
    tuning has begun waits for all of it.
    """
    names = [tuning_name(row, rate) for rate in preset.learning_rates]
    missing = [name for name in names if not store.has(name)]
    begun = len(missing) < len(names)
    return missing if planned or begun else ()


def chosen_rates(store: Store, preset: Preset) -> dict[str, float]:
    """Row -> the learning rate that obeyed the dev prompts most (the nearest one of equals)."""
    rates = {}
    for row in ROWS:
        if missing_tuning(store, preset, row, planned=True):
            continue
        results = {
            rate: last_answer(store.read(tuning_name(row, rate))) for rate in preset.learning_rates
        }
        rates[row] = max(
            results,
            key=lambda rate: (
                results[rate]["emoji_eval"]["overall"]["mean"],
                -results[rate]["distance"]["mean"],
            ),
        )
    return rates


def longest(store: Store, kind: str) -> float:
    """Seconds that the longest cell of a kind took here; training stops by itself, so 0 for it."""
    if kind == Training.kind:
        return 0.0
    records = store.read_all().values()
    return max((r["wall_seconds"] for r in records if r["config"]["kind"] == kind), default=0.0)
