"""Only regular files of bounded size are opened, whatever lies at the path."""

import os
import socket
import struct

import pytest

from flowsteer.untrusted import name_of, open_regular, read_bytes, read_lines, read_text

WHAT = "a list of prompts"


def pipe(path):
    os.mkfifo(path)


def listening(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the length of a socket's path is limited
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (pipe, "a named pipe"),
        (listening, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: None, "not there"),
        (lambda path: path.symlink_to(path), "cannot be opened"),
    ],
)
def test_what_is_no_regular_file_is_refused_unopened(tmp_path, make, kind):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(ValueError, match=f"{path} .*{kind}.*{WHAT}") as caught:
        read_bytes(path, WHAT, 100)
    assert "\n" not in str(caught.value)


def test_links_to_regular_files_are_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", WHAT, 7) == b"content"
    with open_regular(tmp_path / "link", WHAT, 7) as file:
        assert file.read() == b"content"


def test_size_is_checked_before_a_byte_is_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(ValueError, match="3,000,000,000 bytes, the limit of a list .* 1,000"):
        read_bytes(path, WHAT, 1000)


def test_a_file_whose_size_is_not_told_is_limited_all_the_same():
    path = "/proc/self/status"  # of size 0 by stat
    if not os.path.exists(path):
        pytest.skip("needs Linux")
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_bytes(path, WHAT, 10)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\udc80"])
def test_a_path_never_breaks_the_line(tmp_path, name):
    with pytest.raises(ValueError, match="not there") as caught:
        read_bytes(tmp_path / name, WHAT, 10)
    assert str(caught.value).isprintable() and repr(name)[1:-1] in str(caught.value)


def test_a_file_that_opens_and_cannot_be_read_is_refused():
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("needs Linux")
    with pytest.raises(ValueError, match="/proc/self/mem cannot be opened: Input/output error"):
        open_regular("/proc/self/mem", WHAT, 10)


def test_a_zero_byte_in_a_path_is_refused():
    with pytest.raises(ValueError, match="is no path"):
        read_bytes("a\0b", WHAT, 10)
    assert name_of("a\0b") == r"'a\x00b'"


def test_lines_end_at_real_newlines_alone(tmp_path):
    separators = "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e"
    (tmp_path / "text").write_bytes(f"\ufeffone{separators}\r\ntwo\n\nthree".encode())
    assert read_lines(tmp_path / "text", WHAT, 100) == [f"one{separators}", "two", "", "three"]
    (tmp_path / "text").write_bytes(b"of an old Mac\rtwo\r")
    assert read_lines(tmp_path / "text", WHAT, 100) == ["of an old Mac", "two", ""]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\nb\né".encode("latin-1"), "byte 0xe9 in line 3"),
        ("a\nb".encode("utf-16"), "byte 0xff in line 1"),
        ("a\nb".encode("utf-16-le"), "a zero byte in line 1"),
        (b"a\n" + struct.pack("<f", 1.0), "byte 0x80 in line 2"),
    ],
)
def test_other_encodings_are_refused_by_line(tmp_path, content, problem):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=f"not readable as UTF-8 text: {problem}; save it as"):
        read_text(tmp_path / "text", WHAT, 100)
