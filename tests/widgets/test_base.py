"""What all explorers have in common, on one that draws a point."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import ipywidgets
import pytest
import traitlets

from flowsteer.plots.style import new_panels, themed
from flowsteer.widgets import Explorer


def in_a_loop(coroutine):
    """Run in a thread of its own: a browser that other tests keep open has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@themed
def point_figure(x):
    figure, (axes,) = new_panels(1)
    axes.plot([x], [0], marker="o")
    return figure


class PointExplorer(Explorer):
    x = traitlets.Float(0.5, min=0, max=1)

    def make_controls(self):
        return {"x": ipywidgets.FloatSlider(min=0, max=1, step=0.1, description="x")}

    def draw(self):
        self.drawn = getattr(self, "drawn", 0) + 1
        if self.x == 0:
            raise ValueError("x = 0 is <no> point")
        return point_figure(self.x)

    def caption(self):
        return f"x is {self.x:g}"


def place(explorer):
    return explorer.figure.axes[0].get_lines()[0].get_xdata()[0]


def test_a_trait_moves_the_control_and_the_figure():
    explorer = PointExplorer(x=0.25)
    assert (explorer.controls["x"].value, place(explorer)) == (0.25, 0.25)
    before = explorer.image.value
    explorer.x = 0.75
    assert (explorer.controls["x"].value, place(explorer)) == (0.75, 0.75)
    assert explorer.image.value != before and bytes(explorer.image.value[1:4]) == b"PNG"
    assert "x is 0.75" in explorer.text.value
    assert repr(explorer) == "PointExplorer(x=0.75)"


def test_a_control_moves_the_trait_and_the_figure():
    explorer = PointExplorer()
    explorer.controls["x"].value = 0.1
    assert (explorer.x, place(explorer)) == (0.1, 0.1)


def test_many_changes_share_one_figure():
    async def drag():
        explorer = PointExplorer()
        for step in range(20):
            explorer.controls["x"].value = 0.05 * step
        assert explorer.drawn == 1
        while explorer._pending is not None:
            await asyncio.sleep(0.01)
        return explorer

    explorer = in_a_loop(drag())
    assert explorer.drawn == 2 and "0.95" in explorer.text.value
    assert place(explorer) == pytest.approx(0.95)
    assert explorer.drawn == 2  # asking for the figure draws no other


def test_an_error_is_told_below_the_figure_that_stays():
    async def drag():
        explorer = PointExplorer()
        shown = explorer.image.value
        explorer.x = 0
        while explorer._pending is not None:
            await asyncio.sleep(0.01)
        return explorer, shown

    explorer, shown = in_a_loop(drag())
    assert explorer.image.value == shown
    assert "x = 0 is &lt;no> point" in explorer.text.value
    with pytest.raises(ValueError, match="is <no> point"):
        _ = explorer.figure


def test_values_out_of_range_and_unknown_names_are_refused():
    with pytest.raises(traitlets.TraitError):
        PointExplorer(x=2)
    with pytest.raises(ValueError, match="PointExplorer has no y; use x or look"):
        PointExplorer(y=2)


def test_a_dark_explorer_is_dark():
    light, dark = PointExplorer().figure, PointExplorer(look="dark").figure
    assert sum(light.get_facecolor()[:3]) > 2.9 and sum(dark.get_facecolor()[:3]) < 0.3
