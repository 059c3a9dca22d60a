"""`flowsteer schedule`: the two time grids in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flowsteer.cli.inputs import Number, WholeNumber
from flowsteer.validation import check_num_inference_steps, shorten


@dataclass(frozen=True)
class Schedule:
    """Print the stock and the rectified grid, their steps, and what the last call covers."""

    shift: Number = 3.0
    """The scheduler's shift; 3 for SD3, 1 for none."""
    steps: WholeNumber = 4
    """Network calls, 1 to 1,000."""
    families: bool = False
    """What the last call covers in the published model families, each at its own shift."""

    def run(self) -> None:
        """Print the table."""
        steps = check_num_inference_steps(self.steps)
        if not isinstance(self.shift, (int, float)) or not 0 < self.shift < float("inf"):
            raise ValueError(f"shift = {shorten(self.shift)} must be a positive number, such as 3")
        if self.families:
            if self.shift != 3:
                raise ValueError(
                    f"shift = {self.shift:g} has no effect with --families: every family has its "
                    "own; leave one of the two out"
                )
            from flowsteer.schedule_families import families_report

            print(families_report(steps))
            return
        from flowsteer.schedule_report import schedule_report

        print(schedule_report(self.shift, steps))
