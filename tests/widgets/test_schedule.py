"""ScheduleExplorer by its traits: the staircases are the grids."""

import pytest

from flowsteer.flow import GRIDS
from flowsteer.widgets import ScheduleExplorer


def stairs(explorer):
    lines = explorer.figure.axes[0].get_lines()
    return {line.get_label(): line.get_ydata() for line in lines if line.get_label() in GRIDS}


@pytest.mark.parametrize(("shift", "num_steps"), [(3.0, 4), (1.0, 1), (6.0, 28)])
def test_the_staircases_are_the_grids(shift, num_steps):
    explorer = ScheduleExplorer()
    explorer.shift, explorer.num_steps = shift, num_steps
    for name, times in stairs(explorer).items():
        assert list(times) == pytest.approx(GRIDS[name](num_steps, shift).tolist())
    bars = explorer.figure.axes[1].patches
    assert len(bars) == 2 * num_steps
    assert sum(bar.get_height() for bar in bars) == pytest.approx(2)


def test_the_caption_has_the_wasted_call_in_numbers():
    explorer = ScheduleExplorer()
    assert "0.9% (stock), 50.0% (rectified)" in explorer.text.value
    assert "[1, 0.8577, 0.6022, 0.0089, 0]" in explorer.text.value
    explorer.num_steps = 28
    _ = explorer.figure
    assert "[1," not in explorer.text.value  # 29 times would fill the page
