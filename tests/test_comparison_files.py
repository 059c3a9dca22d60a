"""A comparison that the app saves is drawn again to equal pixels by the command."""

from __future__ import annotations

import io
import json
import os
import re
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
        (lambda r: r.update(seeds=[]), r"seeds = \[\] must be a list of 1 to 64"),
        (lambda r: r.update(seeds={"3": 4}), "seeds = .* must be a list"),
        (lambda r: r.update(seeds=[0] * 100), "must be a list of 1 to 64"),
        (lambda r: r.update(seeds=["3"]), "seed = '3'"),
        (lambda r: r.update(model=3), "model = 3 must be a name"),
        (lambda r: r.update(model="x" * 5000), "must be a name"),
        (lambda r: r.update(columns="x"), "is no comparison.*columns = 'x' must be a list"),
        (lambda r: r.update(columns=[3]), "column 3 must be an object"),
        (lambda r: r["columns"][0].pop("title"), "column title = None must be text"),
        (lambda r: r["columns"][0].update(student=7), "its student text or null"),
        (lambda r: r["columns"][0].update(guidance_scale=10**400), "a number of 401 digits"),
        (lambda r: r["columns"][0].update(guidance_scale="4"), "guidance_scale = '4'"),
        (lambda r: r["columns"][0].update(scheduler=[]), r"scheduler = \[\] is unknown"),
        (lambda r: r["columns"][0].update(num_inference_steps=0), "num_inference_steps = 0"),
        (lambda r: r["columns"][0].update(allow_grid_mismatch="no"), "'no' must be True or False"),
        (lambda r: r["columns"][0].update(colour="red"), "unknown fields colour"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(saved, tmp_path, change, message):
    record = json.loads(zipfile.ZipFile(saved[0]).read("settings.json"))
    change(record)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_comparison(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    pack(saved[0], {"settings.json": file.read_bytes()})
    with pytest.raises(ValueError, match=message) as caught:
        read_comparison(saved[0])
    assert str(saved[0]) in str(caught.value)


def pack(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members if isinstance(members, list) else members.items():
            archive.writestr(name, content)


def large_list(path):
    """A ZIP whose list of members claims 2 MB."""
    pack(path, {"settings.json": b"{}"})
    content = bytearray(path.read_bytes())
    content[-10:-6] = (2 * 10**6).to_bytes(4, "little")
    path.write_bytes(bytes(2 * 10**6) + content)


BOMB = b"\0" * 60_000_000  # 60 kB packed


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a named pipe; give a comparison"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.open("wb").truncate(3_000_000_000), "3,000,000,000 bytes, the limit"),
        (lambda path: path.write_bytes(b"[" * 100_000), "nested deeper than 64"),
        (lambda path: path.write_bytes(b" " * 6_000_000), "6,000,000 bytes, the limit"),
        (lambda path: pack(path, {"settings.json": BOMB}), "of more than 5,000,000 bytes"),
        (lambda path: pack(path, {str(n): BOMB for n in range(17)}), "unpack to 1,020,000,000"),
        (lambda path: pack(path, {str(n): b"" for n in range(1001)}), "1,001 files, 1,000 at"),
        (lambda path: pack(path, {str(n): b"" for n in range(30_000)}), "list of files has more"),
        (lambda path: pack(path, [("a", b""), ("a", b"")]), "two files of one name"),
        (lambda path: pack(path, {"../settings.json": b"{}"}), "'../settings.json', which is no"),
        (lambda path: pack(path, {"deep/settings.json": b"{}"}), "which is no plain file"),
        (lambda path: pack(path, {"a.png": b""}), "holds no settings.json"),
        (lambda path: pack(path, {"settings.json": b"\xff"}), "codec can't decode"),
        (large_list, "is not readable as a ZIP|no comparison"),
    ],
)
def test_archives_that_lie_are_refused_by_the_command(tmp_path, capsys, make, message):
    path = tmp_path / "comparison.zip"
    make(path)
    out = tmp_path / "out"
    assert main(["compare", "--from", str(path), "--output_dir", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and re.search(message, line) and not out.exists()


def test_a_picture_that_lies_is_refused_and_others_are_left_unread(saved):
    path, cards = saved
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pack(path, members | {"holiday.png": b"no picture"})
    assert read_comparison(path).pictures.keys() == members.keys() - {"settings.json"}
    name = picture_file(cards[0].column, cards[0].seed)
    pack(path, members | {name: b"no picture"})
    with pytest.raises(ValueError, match=f"{name} is not readable as a picture"):
        read_comparison(path)
    large = io.BytesIO()
    Image.new("1", (5000, 5000)).save(large, format="PNG")
    pack(path, members | {name: large.getvalue()})
    with pytest.raises(ValueError, match="5,000 x 5,000 pixels"):
        read_comparison(path)


def test_other_files_and_a_second_prompt_are_refused(saved, tmp_path, capsys):
    other = tmp_path / "other"
    other.write_bytes(b"\xff\x00")
    for arguments, message in (
        (["--from", str(other)], "no comparison"),
        (["--from", str(tmp_path / "none")], "is not there; give the path of a comp"),
        (["a fox", "--from", str(saved[0])], "leave prompts out"),
    ):
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
