"""ZIP files of bounded size, whose members are plain files beside each other."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from flowsteer.untrusted.opening import StrPath, name_of, open_regular
from flowsteer.validation import shorten

MOST_ARCHIVE_BYTES = 500_000_000
MOST_MEMBERS = 1000
MOST_UNPACKED_BYTES = 1_000_000_000
_MOST_LIST_BYTES = 1_000_000  # a thousand members have a tenth
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,  # a method or an encryption that Python does not know
    OSError,
    RuntimeError,
    UnicodeError,
)


class Archive:
    """The members of an open ZIP, by name; their sizes are checked, then believed no further."""

    def __init__(self, archive: zipfile.ZipFile, where: str):
        self.where = where
        self._archive = archive
        entries = archive.infolist()
        if len(entries) > MOST_MEMBERS:
            raise ValueError(f"{where} holds {len(entries):,} files, {MOST_MEMBERS:,} at most")
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ValueError(f"{where} holds two files of one name; write it again")
        for name, entry in self._entries.items():
            if not name or set(name) & set("/\\:\0") or entry.compress_type not in _PLAIN:
                raise ValueError(f"{where} holds {shorten(name)}, which is no plain file in it")
        total = sum(entry.file_size for entry in entries)
        if total > MOST_UNPACKED_BYTES:
            raise ValueError(
                f"{where} would unpack to {total:,} bytes, the limit is {MOST_UNPACKED_BYTES:,}"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str, most_bytes: int) -> bytes:
        """The content of a member.

        Raises:
            ValueError: if there is none of that name, it is damaged, or larger than the limit.
        """
        if name not in self:
            raise ValueError(f"{self.where} holds no {name}")
        try:
            with self._archive.open(self._entries[name]) as member:
                content = member.read(most_bytes + 1)
        except _ERRORS as error:
            raise ValueError(f"{self.where} is damaged: {shorten(name)}: {error}") from error
        if len(content) > most_bytes:
            raise ValueError(
                f"{self.where} holds {shorten(name)} of more than {most_bytes:,} bytes"
            )
        return content


@contextmanager
def open_archive(path: StrPath, what: str) -> Iterator[Archive]:
    """Open a ZIP file.

    Args:
        path: of the file.
        what: it should be, for messages.

    Raises:
        ValueError: if it is no regular file, no ZIP, too large, or holds too many files, two of
            one name, folders, or more than 1 GB.
    """
    where = name_of(path)
    with open_regular(path, what, MOST_ARCHIVE_BYTES) as file:
        pieces = _InPieces(file)
        try:
            archive = zipfile.ZipFile(pieces)  # type: ignore[arg-type]
        except _ERRORS as error:
            raise ValueError(f"{where} is not readable as a ZIP: {error}") from error
        pieces.most = MOST_ARCHIVE_BYTES  # members are read by their own limits
        with archive:
            yield Archive(archive, where)


class _InPieces:
    """A file that gives no more than a megabyte at once: a list of members is not longer."""

    def __init__(self, file: BinaryIO):
        self.most = _MOST_LIST_BYTES
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; all that are left, if `size` is negative.

        Raises:
            OSError: if they are too many.
        """
        content = self._file.read(min(size, self.most + 1) if size >= 0 else self.most + 1)
        if len(content) > self.most:
            raise OSError(f"its list of files has more than {self.most:,} bytes")
        return content
