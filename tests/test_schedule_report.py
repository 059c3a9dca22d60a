"""The schedule table: its numbers, its alignment, and what it refuses."""

import pytest

from flowsteer.schedule_report import schedule_report

REPORT = """\
Time grids for shift 3, 4 steps (t = 1 is noise, t = 0 is data)

       stock                       rectified
call     from        to     size     from        to     size
   1   1.0000 -> 0.8577   0.1423   1.0000 -> 0.9000   0.1000
   2   0.8577 -> 0.6022   0.2555   0.9000 -> 0.7500   0.1500
   3   0.6022 -> 0.0089   0.5932   0.7500 -> 0.5000   0.2500
   4   0.0089 -> 0.0000   0.0089   0.5000 -> 0.0000   0.5000

The last call covers 0.9% of the path on the stock grid, 50.0% on the rectified one.
The rectified grid in stock diffusers: sigmas=[1, 0.75, 0.5, 0.25]"""


def test_the_example_of_the_paper() -> None:
    assert schedule_report(3, 4) == REPORT


@pytest.mark.parametrize("steps", [1, 2, 28, 1000])
def test_one_aligned_row_per_call(steps: int) -> None:
    lines = schedule_report(3.0, steps).split("\n")
    table = lines[3 : 4 + steps]
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table[1:]] == [str(k + 1) for k in range(steps)]
    assert all(len(line) < 90 for line in lines)


@pytest.mark.parametrize("steps", [*range(1, 13), 28])
def test_the_printed_sigmas_are_exact(steps: int) -> None:
    sigmas = eval(schedule_report(3, steps).rsplit("sigmas=", 1)[1])
    assert sigmas == pytest.approx([1 - k / steps for k in range(steps)], abs=1e-12)


@pytest.mark.parametrize(("shift", "steps"), [(0, 4), (-1, 4), (float("nan"), 4), (3, 0), (3, 2.5)])
def test_bad_input_is_refused(shift, steps) -> None:
    with pytest.raises(ValueError, match="give a"):
        schedule_report(shift, steps)
