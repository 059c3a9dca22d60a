"""Folders of captioned pictures from anywhere: one line a picture, or one line of error."""

import json
import os
import struct
import zlib

import pytest
from PIL import Image

from flowsteer.cli import main
from flowsteer.training.sources import FolderSource, read_picture

SIZE = 8


def listed(folder, *entries, end="\n"):
    """A picture and a metadata.jsonl."""
    Image.new("RGB", (SIZE, SIZE), "red").save(folder / "a.png")
    lines = [e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in entries]
    (folder / "metadata.jsonl").write_bytes(end.join(lines).encode())


def refused(folder, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        FolderSource(folder, 0, SIZE)(range(1))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_ends_at_a_real_newline_alone(tmp_path, mark, end):
    """JSON forbids the control characters bare; in captions of text files they may stand."""
    text = mark if mark in "\u2028\u2029\x85" else " "
    first, second = ({"file_name": "a.png", "text": f"{word}{text}on blue"} for word in "xy")
    listed(tmp_path, first, second, end=end)
    assert FolderSource(tmp_path, 0, SIZE).texts == ("x on blue", "y on blue")
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "a.txt").write_text(f"x{mark}on blue", encoding="utf-8")
    assert FolderSource(tmp_path, 0, SIZE).texts == ("x on blue",)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    listed(tmp_path, "\ufeff" + json.dumps({"file_name": "a.png", "text": "x"}))
    assert FolderSource(tmp_path, 0, SIZE).texts == ("x",)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings_are_refused_by_line(tmp_path, encoding):
    listed(tmp_path)
    line = json.dumps({"file_name": "a.png", "text": "x"}) + "\n"
    last = json.dumps({"file_name": "a.png", "text": "é"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_bytes((line + last).encode(encoding))
    number = 1 if encoding == "utf-16" else 2
    refused(tmp_path, f"metadata.jsonl is not readable as UTF-8 text: .* in line {number}; save")


ENTRY = {"file_name": "a.png", "text": "x"}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (ENTRY | {"text": "x" * 10_000_000}, r"a.png has a caption of more than 10,000 char"),
        ("[" * 100_000, "line 1 is not readable as JSON: it is nested deeper"),
        ('{"file_name": "a.png", "text": "x", "text": "y"}', "'text' stands in it twice"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "half a character"),
        (ENTRY | {"width": 10**400}, "a number of 401 digits"),
        (ENTRY | {"file_name": "../a.png"}, "names '../a.png', which leads out of the folder"),
        (ENTRY | {"file_name": "b/../../a.png"}, "leads out of the folder"),
        (ENTRY | {"file_name": "/etc/hostname"}, "leads out of the folder"),
        (ENTRY | {"file_name": "a\0.png"}, "not there as a file"),
        (ENTRY | {"file_name": "a" * 5000}, "not there as a file"),
        (ENTRY | {"file_name": ""}, "not there as a file"),
        (ENTRY | {"file_name": "metadata.jsonl"}, "metadata.jsonl is not readable as a picture"),
    ],
)
def test_lines_that_lie_are_refused(tmp_path, entry, problem):
    listed(tmp_path, entry)
    refused(tmp_path, problem)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
@pytest.mark.parametrize("file", ["metadata.jsonl", "a.png", "a.txt"])
def test_pipes_and_devices_are_refused_unopened(tmp_path, file):
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (tmp_path / file).unlink(missing_ok=True)
        make(tmp_path / file)
        refused(tmp_path, f"{file} is (a named pipe|a device|no regular file)")


def test_sparse_files_are_refused_by_their_size(tmp_path):
    listed(tmp_path, ENTRY)
    with (tmp_path / "a.png").open("ab") as file:
        file.truncate(3_000_000_000)
    refused(tmp_path, "a.png has 3,000,000,000 bytes, the limit of a picture is 200,000,000")
    with (tmp_path / "metadata.jsonl").open("ab") as file:
        file.truncate(3_000_000_000)
    refused(tmp_path, "metadata.jsonl has 3,000,000,000 bytes")


def png(width, height, data=b""):
    """A grey PNG that claims a size."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png(60_000, 60_000), "decompression bomb|60,000 x 60,000 pixels"),
        (
            png(12_000, 12_000, zlib.compress(bytes(10**6))),
            "12,000 x 12,000 pixels, 100,000,000",
        ),
        (png(0, 8), "not readable as a picture"),
        (png(8, 8, zlib.compress(bytes(20))), "not readable as a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not readable as a picture"),
        (b"", "not readable as a picture; save it as PNG or JPEG or WEBP or BMP or GIF"),
    ],
)
def test_pictures_that_lie_are_refused(tmp_path, content, problem):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_picture(tmp_path / "a.png", SIZE)
    assert str(tmp_path / "a.png") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF"])
def test_pictures_of_common_formats_are_read_whatever_their_name(tmp_path, kind):
    Image.new("RGB", (SIZE, SIZE), "white").save(tmp_path / "a.png", format=kind)
    assert read_picture(tmp_path / "a.png", SIZE).mean() > 0.95


def test_links_to_pictures_elsewhere_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "elsewhere.png")
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "data" / "a.txt").write_text("x")
    assert FolderSource(tmp_path / "data", 0, SIZE)(range(1)).texts == ["x"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a koala\n" + b"x" * 10_000_000, "line 2: prompt has 10,000,000 characters"),
        ("a koala\né".encode("latin-1"), "byte 0xe9 in line 2; save it as UTF-8"),
        ("a koala".encode("utf-16"), "in line 1; save it as UTF-8"),
        (b"\n \n", "has no prompt"),
    ],
)
def test_files_of_prompts_are_refused_by_line(tmp_path, capsys, content, problem):
    path, out = tmp_path / "prompts.txt", tmp_path / "out"
    path.write_bytes(content)
    for command in ("generate", "distill"):
        assert main([command, "--prompts", str(path), "--output_dir", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line and problem in line and not out.exists()


def test_prompts_end_at_real_newlines_alone(tmp_path):
    from flowsteer.cli.inputs import read_prompts

    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa koala\u2028on blue\r\n\n b\x85c\n".encode())
    assert read_prompts(path) == ["a koala\u2028on blue", "b\x85c"]
