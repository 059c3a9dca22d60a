"""Files that commands write: no two pictures share one, and each can be drawn again."""

from pathlib import Path

import pytest
from PIL import Image

from flowsteer.cli import main
from flowsteer.loading import load_pipeline
from flowsteer.pictures import free_path, prompt_slug, read_record, save_png

LONG = "a 3d koala left of a flat pizza on a pink background"


@pytest.fixture
def draw(tiny_folder, tmp_path):
    """Runs a command on the tiny model with one step, and gives the files that it names."""

    def run(capsys, *words, command="generate", steps=("--steps", "1")):
        where = ["--model", str(tiny_folder), "--output_dir", str(tmp_path / "out")]
        code = main([command, *map(str, words), *where, *steps, "--device", "cpu"])
        out = capsys.readouterr()
        assert code == 0, out.err
        return [Path(line) for line in out.out.splitlines() if line.endswith(".png")]

    return run


@pytest.mark.parametrize(
    ("first", "second"),
    [(["a koala", "--guidance_scale", 2], ["a koala", "--guidance_scale", 7]),
     (["a koala", "--guidance_scale", 2], ["a koala", "--guidance_scale", 2.5]),
     (["a koala"], ["a koala", "--scheduler", "stock"]),
     (["a koala"], ["a koala", "--dtype", "bfloat16"]),
     (["a koala"], ["a koala!"]), (["a koala"], ["A Koala"]),
     ([LONG + " one"], [LONG + " two"]), (["красный"], ["синий"])],
    ids=str,
)  # fmt: skip
def test_other_settings_make_another_file(draw, capsys, first, second):
    (before,) = draw(capsys, *first)
    kept = before.read_bytes()
    (after,) = draw(capsys, *second)
    assert after != before and before.read_bytes() == kept
    assert read_record(after) != read_record(before)


def test_the_same_picture_takes_its_own_place(draw, capsys, tmp_path):
    (before,) = draw(capsys, "a koala")
    assert draw(capsys, "a koala") == [before]
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_guidance_model_and_precision_are_in_the_name(draw, capsys):
    words = ["a koala", "--guidance_scale", 2.5, "--dtype", "bfloat16"]
    (path,) = draw(capsys, *words)
    assert path.name == "000-a-koala-tiny-bfloat16-teacher-1x2-g2.5-seed0.png"
    assert read_record(path)["dtype"] == "bfloat16"


def test_two_students_make_two_sheets(draw, capsys, lora_student, full_student):
    words = {"command": "compare", "steps": ()}
    sheets = [
        draw(capsys, "a koala", "--student", student, **words)
        for student in (lora_student, full_student, "none")
    ]
    assert len({path for (path,) in sheets}) == 3
    assert all(path.exists() for (path,) in sheets)


def test_files_of_others_are_left_alone(tmp_path):
    picture, path = Image.new("RGB", (4, 4)), tmp_path / "a.png"
    path.write_text("mine")
    for number in (2, 3):
        target = free_path(path, {"seed": number})
        assert target.name == f"a-{number}.png"
        save_png(picture, target, {"seed": number})
    assert free_path(path, {"seed": 3}).name == "a-3.png"
    (tmp_path / "a-4.png").symlink_to(tmp_path / "nowhere")
    assert free_path(path, {"seed": 4}).name == "a-5.png"
    assert path.read_text() == "mine"


@pytest.mark.parametrize("prompt", ["a koala", "A  koala", "x" * 40])
def test_a_short_prompt_needs_no_mark(prompt):
    assert "-" not in prompt_slug(prompt).replace("a-koala", "")


def test_a_picture_is_drawn_again_from_its_record(draw, capsys, tmp_path):
    words = ["a koala", "--guidance_scale", 3, "--seed", 5, "--scheduler", "stock"]
    (path,) = draw(capsys, *words)
    code = main(["generate", "--from", str(path), "--output_dir", str(tmp_path / "again"),
                 "--device", "cpu"])  # fmt: skip
    assert code == 0
    (again,) = (tmp_path / "again").iterdir()
    assert again.name == path.name and again.read_bytes() == path.read_bytes()


def test_a_sheet_is_drawn_again_and_a_picture_compared(
    draw, capsys, lora_student, tiny_folder, tmp_path
):
    words = {"command": "compare", "steps": ()}
    (sheet,) = draw(capsys, "a koala", "--student", lora_student, "--seed", 3, **words)
    (picture,) = draw(capsys, "a koala", "--student", lora_student, "--seed", 3, steps=())
    for number, file in enumerate((sheet, picture)):
        out = tmp_path / f"again{number}"
        assert (
            main(["compare", "--from", str(file), "--output_dir", str(out), "--device", "cpu"]) == 0
        )
        (again,) = out.iterdir()
        assert again.name == sheet.name
        assert read_record(again) == read_record(sheet)


def test_a_picture_of_a_saved_student_is_drawn_again(tiny_folder, lora_student, tmp_path, capsys):
    saved, where = tmp_path / "saved", ["--device", "cpu", "--output_dir"]
    load_pipeline(str(tiny_folder), lora_student, device="cpu").save_pretrained(saved)
    assert main(["generate", "koala", "--model", str(saved), *where, str(tmp_path / "one")]) == 0
    (first,) = (tmp_path / "one").iterdir()
    assert main(["generate", "--from", str(first), *where, str(tmp_path / "two")]) == 0
    assert read_record(tmp_path / "two" / first.name) == read_record(first)
    with Image.open(tmp_path / "two" / first.name) as again, Image.open(first) as before:
        assert again.tobytes() == before.tobytes()
    words = ["generate", "koala", "--model", str(saved), "--student", str(lora_student)]
    capsys.readouterr()
    assert main([*words, *where, str(tmp_path / "three")]) == 2
    assert "is a student itself" in capsys.readouterr().err


def test_a_picture_s_flag_that_is_none_is_refused(draw, capsys, tmp_path):
    record = read_record(draw(capsys, "koala")[0])
    save_png(Image.new("RGB", (8, 8)), tmp_path / "x.png", record | {"allow_grid_mismatch": "no"})
    capsys.readouterr()
    assert main(["generate", "--from", str(tmp_path / "x.png"), "--device", "cpu"]) == 2
    assert "allow_grid_mismatch = 'no' must be True or False" in capsys.readouterr().err


def test_what_from_cannot_take_is_one_line(draw, capsys, tmp_path):
    (path,) = draw(capsys, "a koala")
    plain, odd = tmp_path / "plain.png", tmp_path / "odd.png"
    Image.new("RGB", (4, 4)).save(plain)
    save_png(Image.new("RGB", (4, 4)), odd, {**read_record(path), "seed": "x"})
    cases = [
        (["generate", "a pizza", "--from", path], "--from names prompt itself"),
        (["generate", "--seed", "3", "--from", path], "--from names seed itself"),
        (["compare", "--seed", "3", "--from", path], "--from names seed itself"),
        (["generate", "--from", plain], "no 'flowsteer' text chunk"),
        (["compare", "--from", plain], "no 'flowsteer' text chunk"),
        (["generate", "--from", odd], "seed = 'x'"),
        (["compare", "--from", odd], "seed = 'x'"),
        (["generate", "--from", tmp_path / "no.png"], "no.png"),
    ]
    for words, message in cases:
        out = tmp_path / "nothing"
        assert main([*map(str, words), "--output_dir", str(out)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not out.exists()
