"""A comparison that the app saves is drawn again to equal pixels by the command."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from flowsteer.cli import main
from flowsteer.comparing import PipelineSet, columns_for, compare
from flowsteer.comparison_files import file_record, picture_file, read_comparison


@pytest.fixture
def saved(tiny, tiny_folder, lora_student, tmp_path):
    """A ZIP as the app's, of two columns and two noises; and its cards."""
    columns = [columns_for(str(lora_student))[i] for i in (4, 1)]
    cards = list(compare(PipelineSet(tiny), "a fox", (3, 4), columns))
    complete = [card.column for card in cards[::2]]
    record = file_record(str(tiny_folder), "a fox", (3, 4), complete, cards)
    path = tmp_path / "comparison.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("settings.json", json.dumps(record))
        for card in cards:
            buffer = io.BytesIO()
            card.image.save(buffer, format="PNG")
            archive.writestr(picture_file(card.column, card.seed), buffer.getvalue())
    return path, cards


def test_the_command_draws_equal_pixels_and_says_so(saved, tmp_path, capsys):
    path, cards = saved
    out = tmp_path / "again"
    assert main(["compare", "--from", str(path), "--output_dir", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cards) == 4
    for line, card in zip(lines, cards, strict=True):
        file, verdict = line.split("  ")
        assert verdict == "equal to the file's"
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image), np.asarray(card.image))


def test_settings_alone_are_enough_and_a_changed_picture_is_noticed(saved, tmp_path, capsys):
    path, _ = saved
    with zipfile.ZipFile(path) as archive:
        settings = archive.read("settings.json")
        names = [name for name in archive.namelist() if name.endswith(".png")]
    alone = tmp_path / "settings.json"
    alone.write_bytes(settings)
    assert main(["compare", "--from", str(alone), "--output_dir", str(tmp_path / "a")]) == 0
    assert "file's" not in capsys.readouterr().out
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w") as archive:
        archive.writestr("settings.json", settings)
        buffer = io.BytesIO()
        Image.new("RGB", (128, 128), "red").save(buffer, format="PNG")
        archive.writestr(names[0], buffer.getvalue())
    assert main(["compare", "--from", str(changed), "--output_dir", str(tmp_path / "b")]) == 0
    assert "DIFFERS" in capsys.readouterr().out.splitlines()[0]


def test_a_name_in_the_file_cannot_lead_out_of_the_folder(saved, tmp_path, capsys):
    path, _ = saved
    record = json.loads(zipfile.ZipFile(path).read("settings.json"))
    record["columns"][0]["key"] = "../../../evil"
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    out = tmp_path / "deep" / "out"
    assert main(["compare", "--from", str(file), "--output_dir", str(out)]) == 0
    assert all(str(out) in line for line in capsys.readouterr().out.splitlines())
    assert not list(tmp_path.rglob("evil*.png")) or all(
        found.parent == out for found in tmp_path.rglob("evil*.png")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("prompt"), "is no comparison"),
        (lambda r: r.update(prompt=""), "is empty"),
        (lambda r: r.update(seeds=[-1]), "seed = -1"),
        (lambda r: r.update(seeds=[]), "no seed"),
        (lambda r: r.update(model=3), "no model"),
        (lambda r: r.update(columns="x"), "is no comparison"),
        (lambda r: r["columns"][0].update(num_inference_steps=0), "num_inference_steps = 0"),
        (lambda r: r["columns"][0].update(colour="red"), "unknown fields colour"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(saved, tmp_path, change, message):
    record = json.loads(zipfile.ZipFile(saved[0]).read("settings.json"))
    change(record)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_comparison(file)


def test_other_files_and_a_second_prompt_are_refused(saved, tmp_path, capsys):
    other = tmp_path / "other"
    other.write_bytes(b"\xff\x00")
    for arguments, message in (
        (["--from", str(other)], "no comparison"),
        (["--from", str(tmp_path / "none")], "no comparison"),
        (["a fox", "--from", str(saved[0])], "leave prompts out"),
    ):
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
