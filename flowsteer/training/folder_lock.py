"""One run a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

LOCK_FILE = "flowsteer.lock"
_held: set[int] = set()
"""File descriptors of the locks of this process."""


class FolderLock:
    """A lock on a file in a folder, which says whose it is.

    The system gives it back when the process ends, so that a file left by a killed run is in
    nobody's way.

    Args:
        folder: exists already.
    """

    def __init__(self, folder: Path):
        self.file = folder / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; where the file system has none, a warning says so.

        Raises:
            ValueError: if another run has it, in this process or another.
        """
        while self._descriptor is None:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(descriptor)
            except BlockingIOError:
                holder = os.read(descriptor, 100).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise ValueError(
                    f"{self.file.parent} is in use by another run (process {holder}); wait for its"
                    " end, or choose another --output_dir"
                ) from None
            except OSError as error:
                warnings.warn(
                    f"{self.file.parent} cannot be locked ({error.strerror}): make sure that no"
                    " other run writes there",
                    stacklevel=2,
                )
            if not self._is_current(descriptor):  # its holder removed the file just before
                os.close(descriptor)
                continue
            self._descriptor = descriptor
            _held.add(descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Give the lock back and remove its file; a second time does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(descriptor)
        if os.name == "nt":  # an open file cannot be removed there
            os.close(descriptor)
            self.file.unlink(missing_ok=True)
            return
        if self._is_current(descriptor):
            self.file.unlink(missing_ok=True)
        os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Whether what was opened is still what lies at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.file))
        except FileNotFoundError:
            return False


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise BlockingIOError if somebody else has it."""
    if os.name == "nt":
        import msvcrt

        try:
            # far beyond the text, which others could not read otherwise
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _drop_inherited() -> None:
    """A forked data worker must not keep the lock of a run that is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited)
