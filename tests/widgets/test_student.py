import pytest

from flowsteer.comparing import PipelineSet
from flowsteer.generation import Settings, generate
from flowsteer.paths import distance_along
from flowsteer.widgets import StudentExplorer
from flowsteer.widgets.student import TEACHER, UNDISTILLED, film_strip


@pytest.fixture
def explorer(tiny, lora_student):
    names = (UNDISTILLED, str(lora_student))
    return StudentExplorer(PipelineSet(tiny), prompt="a koala", students=names)


def test_the_strip_ends_with_the_picture_that_generate_makes(explorer, tiny):
    paths = explorer.paths()
    assert list(paths) == [TEACHER, *explorer.students]
    assert [path.nfe for path in paths.values()] == [56, 8, 4]
    strip = film_strip(tiny, paths[UNDISTILLED])
    (picture,) = generate(tiny, "a koala", 0, Settings(num_inference_steps=4))
    assert strip[-1][0] == "t = 0.5"
    gap = [abs(a - b) for a, b in zip(strip[-1][1].tobytes(), picture.image.tobytes(), strict=True)]
    assert max(gap) <= 1  # x0_hat is found from the step, up to rounding
    assert len(film_strip(tiny, paths[TEACHER], frames=3)) == 3
    assert len(explorer.figure.axes) == 3 * 4


def test_the_views_show_the_paths(explorer):
    paths = explorer.paths()
    explorer.controls["view"].value = "distance"
    line = explorer.figure.axes[0].get_lines()[0]
    expected = distance_along(paths[UNDISTILLED], paths[TEACHER])[:, 0]
    assert line.get_ydata() == pytest.approx(expected.tolist())
    explorer.view = "paths"
    assert "variance" in explorer.figure.axes[0].get_xlabel()


def test_prompt_seed_and_students_are_followed(explorer):
    before = explorer.paths()[TEACHER].states
    explorer.controls["seed"].value = 3
    assert not (explorer.paths()[TEACHER].states[0] == before[0]).all()
    explorer.controls["students"].value = (UNDISTILLED,)
    assert list(explorer.paths()) == [TEACHER, UNDISTILLED]
    explorer.prompt = " "
    with pytest.raises(ValueError, match="prompt"):
        _ = explorer.figure
