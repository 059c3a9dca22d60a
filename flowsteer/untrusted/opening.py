"""Opening: regular files alone, of bounded size."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

_MOST_SHOWN = 1000
StrPath = str | os.PathLike[str]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def name_of(path: StrPath) -> str:
    """A path as messages show it: escaped where it would break the line, cut where none exists."""
    text = os.fspath(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def open_regular(path: StrPath, what: str, most_bytes: int) -> BufferedReader:
    """Open a regular file, or a link to one, for reading; nothing is read yet.

    A pipe, device or socket is never opened, since that alone may wait for ever.

    Args:
        path: of the file.
        what: it should be, such as "a student's flowsteer.json", for messages.
        most_bytes: limit of its size.

    Raises:
        ValueError: if it is not there, no regular file, not readable or larger than the limit.
    """
    where = name_of(path)
    try:
        _check_kind(os.stat(path), where, what, most_bytes)
        # it may be another file by now: what is open is looked at again
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = open(os.open(path, flags), "rb")  # noqa: SIM115 (the caller closes it)
        _check_readable(file)
    except FileNotFoundError as error:
        raise ValueError(f"{where} is not there; give the path of {what}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{where} cannot be opened: {reason}; give {what}") from error
    except ValueError as error:
        if "null" in str(error):  # a path with a zero byte
            raise ValueError(f"{where} is no path ({error}); give that of {what}") from error
        raise
    try:
        _check_kind(os.fstat(file.fileno()), where, what, most_bytes)
    except ValueError:
        file.close()
        raise
    return file


def _check_readable(file: BufferedReader) -> None:
    """Some files open and then cannot be read, such as those of /proc and of a broken disk."""
    try:
        file.peek(1)
    except OSError:
        file.close()
        raise


def _check_kind(found: os.stat_result, where: str, what: str, most_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise ValueError(f"{where} is {kind}; give {what}, a regular file")
    if found.st_size > most_bytes:
        raise ValueError(
            f"{where} has {found.st_size:,} bytes, the limit of {what} is {most_bytes:,};"
            " it is something else, or damaged"
        )


def read_bytes(path: StrPath, what: str, most_bytes: int) -> bytes:
    """The whole of a regular file; arguments and errors as in `open_regular`.

    Raises:
        ValueError: also if it grows past the limit while it is read.
    """
    with open_regular(path, what, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(
            f"{name_of(path)} has more than {most_bytes:,} bytes, the limit of {what};"
            " it is something else, or damaged"
        )
    return content


def read_text(path: StrPath, what: str, most_bytes: int) -> str:
    """A UTF-8 file, without its byte order mark; arguments as in `open_regular`.

    Raises:
        ValueError: as `open_regular`; or if it is in another encoding, naming the line.
    """
    content = read_bytes(path, what, most_bytes)
    try:
        text = content.decode("utf-8-sig")
        place = text.find("\0")  # what UTF-16 without a mark leaves, and no text contains
        line, problem = text.count("\n", 0, max(place, 0)) + 1, "a zero byte"
    except UnicodeDecodeError as error:
        place, line = error.start, content.count(b"\n", 0, error.start) + 1
        problem = f"byte {content[error.start]:#04x}"
    if place >= 0:
        raise ValueError(
            f"{name_of(path)} is not readable as UTF-8 text: {problem} in line {line:,};"
            " save it as UTF-8"
        )
    return text


def read_lines(path: StrPath, what: str, most_bytes: int) -> list[str]:
    r"""The lines of a UTF-8 file, which end with \n, \r\n or \r and nothing else.

    `str.splitlines` would also cut at U+0085, U+2028 and five more, which JSON and captions may
    hold. Arguments and errors as in `read_text`.
    """
    text = read_text(path, what, most_bytes)
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
