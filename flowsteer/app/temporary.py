"""The server's folder for temporary files: gone with the server, at the latest with a later one."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "flowsteer-app-"
OLD = 24 * 3600.0  # seconds; a server that runs touches its folder far more often


def make_folder() -> Path:
    """A new folder, after those are removed whose server was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            if not path.is_symlink() and time.time() - path.stat().st_mtime > OLD:
                remove_folder(path)
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def remove_folder(path: Path) -> None:
    """Remove the folder with all that is in it, as far as that is allowed."""
    shutil.rmtree(path, ignore_errors=True)
