import pytest
from PIL import Image

from flowsteer import showcase
from flowsteer.comparing import PipelineSet


@pytest.mark.parametrize("name", ["mismatch", "curves"])
def test_the_named_picture_is_made(tmp_path, capsys, name):
    showcase.main([name, "--output_dir", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / f"{name}.svg")
    assert (tmp_path / "out" / f"{name}.svg").read_text().count("<svg") == 1


def test_pictures_that_nobody_makes_are_refused():
    with pytest.raises(SystemExit):
        showcase.main(["poem"])


def test_an_emoji_forms_beside_its_students(tiny, lora_student, tmp_path):
    path = showcase.save_animation(tmp_path, PipelineSet(tiny), str(lora_student))
    with Image.open(path) as gif:
        assert gif.n_frames > 4 and gif.format == "GIF"
