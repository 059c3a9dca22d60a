import pytest
from PIL import Image

from flowsteer import showcase
from flowsteer.comparing import PipelineSet


def test_the_named_pictures_are_made(tmp_path, capsys):
    showcase.main(["mismatch", "--output_dir", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "mismatch.svg")
    assert (tmp_path / "out" / "mismatch.svg").read_text().count("<svg") == 1
    with pytest.raises(SystemExit):
        showcase.main(["poem"])


def test_an_emoji_forms_beside_its_students(tiny, lora_student, tmp_path):
    path = showcase.save_animation(tmp_path, PipelineSet(tiny), str(lora_student))
    with Image.open(path) as gif:
        assert gif.n_frames > 4 and gif.format == "GIF"
