"""What a run leaves at its end: a folder beside its checkpoints, in place of an older one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError

from flowsteer.training.checkpoints import ASIDE, replace_folder


@dataclass(frozen=True)
class ResultFolder:
    """A folder that a run may replace, since it knows all that it writes there.

    Args:
        name: below the run's folder.
        marker: the file without which it is none.
        others: patterns of the further files, relative to it.
    """

    name: str
    marker: str
    others: tuple[str, ...]

    def exists(self, output_dir: Path) -> bool:
        """Whether something is there, but for an empty folder."""
        folder = output_dir / self.name
        if not folder.is_symlink() and folder.is_dir():
            return any(folder.iterdir())
        return os.path.lexists(folder)

    def check(self, output_dir: Path) -> None:
        """Make sure that what is there, if anything, is an older result and nothing else.

        Raises:
            ValueError: naming what is not.
        """
        if not self.exists(output_dir):
            return
        folder = output_dir / self.name
        advice = "move it away, or choose another --output_dir"
        if folder.is_symlink() or not folder.is_dir():
            raise ValueError(f"{folder}, where the result goes, is no folder: {advice}")
        if not (folder / self.marker).is_file():
            raise ValueError(
                f"{folder}, where the result goes, holds something else (no {self.marker}):"
                f" {advice}"
            )
        patterns = (self.marker, *self.others)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            plain = path.is_file() and not path.is_symlink()
            known = plain and any(fnmatch(name, pattern) for pattern in patterns)
            if not known and not (path.is_dir() and not path.is_symlink()):
                raise ValueError(
                    f"{folder}, where the result goes, holds {name}, which no run wrote: {advice}"
                )


@dataclass(frozen=True)
class Result:
    """What `train` writes at the end, while the averages are in the model.

    Args:
        folder: where.
        write: called with an empty folder to write into, and the steps done.
    """

    folder: ResultFolder
    write: Callable[[Path, int], None]

    def save(self, output_dir: Path, steps: int) -> None:
        """Write aside, then in place of the older one.

        Raises:
            ValueError: if something that is not the run's has come in the way.
            OSError: if it cannot be written.
        """
        target = output_dir / self.folder.name
        self.folder.check(output_dir)
        aside = None
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=output_dir))
            self.write(aside, steps)
            aside.chmod(0o755)
            replace_folder(aside, target)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"{target} could not be written ({error}); make room, and go on with"
                " --resume_from_checkpoint latest"
            ) from error
        finally:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)
