import numpy as np
import pytest
import traitlets

from flowsteer.clouds import mixture_clouds
from flowsteer.widgets import MismatchExplorer


def shown(explorer):
    return np.asarray(explorer.figure.axes[0].collections[1].get_offsets())


def test_guidance_parts_the_clouds():
    explorer = MismatchExplorer(num_windows=4, edge=3, guidance_scale=1.0)
    before = shown(explorer)
    explorer.controls["guidance_scale"].value = 6.0
    assert explorer.guidance_scale == 6.0
    assert not np.allclose(before, shown(explorer))
    assert "differ" in explorer.text.value and "t = 0.5" in explorer.text.value


def test_windows_limit_the_edge():
    explorer = MismatchExplorer(num_windows=8, edge=7)
    assert "t = 0.3" in explorer.text.value
    explorer.num_windows = 3
    explorer.figure  # noqa: B018  draws
    assert (explorer.edge, explorer.controls["edge"].max) == (2, 2)
    explorer.num_windows = 4
    explorer.controls["edge"].value = 3
    assert explorer.figure.axes[0].get_title() == "t = 0.5"
    with pytest.raises(traitlets.TraitError):
        explorer.edge = 0


def test_given_clouds_have_no_guidance_to_turn():
    clouds = mixture_clouds(2.0, count=10, steps=6, shuffles=9)
    explorer = MismatchExplorer(clouds=clouds, num_windows=3, edge=2)
    assert list(explorer.controls) == ["num_windows", "edge"]
    assert explorer.controls["num_windows"].options == (2, 3, 6)
    np.testing.assert_allclose(shown(explorer), clouds.authentic[4])
