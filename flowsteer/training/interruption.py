"""Ctrl-C and SIGTERM while a run trains: the step in hand is finished and saved first."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run has stopped at a signal, its last step saved.

    Args:
        message: where it is saved and how to go on.
        signal_number: that stopped it; a command ends with 128 more.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class _Catcher:
    """What came, and whether a run is there that can put it off."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.process = os.getpid()
        self.previous: dict[int, Any] = {}
        self._saving = mmap.mmap(-1, 1)  # shared with forked data workers

    @property
    def saving(self) -> bool:
        """Whether a run is in its steps, which it can save."""
        return self._saving[0] == 1

    @saving.setter
    def saving(self, value: bool) -> None:
        self._saving[0] = int(value)

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Note the first signal of a run; let any other do what it did before."""
        worker = os.getpid() != self.process
        if worker and (self.saving or signal_number == signal.SIGINT):
            return  # a terminal signals the whole group, and the run needs data for one more step
        if self.saving and self.received is None:
            self.received = signal_number
            sys.stderr.write("\nsaving after this step; once more ends at once\n")
            return
        self.restore()
        signal.raise_signal(signal_number)

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)


_catcher: _Catcher | None = None


@contextmanager
def caught_signals() -> Iterator[None]:
    """Inside, a run that trains puts signals off until it is saved; see `put_off`.

    Only the main thread gets signals; in another one nothing changes.
    """
    global _catcher
    if threading.current_thread() is not threading.main_thread() or _catcher is not None:
        yield
        return
    _catcher = catcher = _Catcher()
    try:
        for number in SIGNALS:
            catcher.previous[number] = signal.signal(number, catcher.handle)
        yield
    finally:
        _catcher = None
        catcher.restore()


@contextmanager
def put_off() -> Iterator[None]:
    """Inside, the first signal only shows in `received`; without `caught_signals`, nothing does."""
    catcher = _catcher
    if catcher is None:
        yield
        return
    catcher.saving, catcher.received = True, None
    try:
        yield
    finally:
        catcher.saving = False


def catch_in_worker() -> None:
    """In a forked data worker: wait for the run, as it waits for its step.

    A worker begins with a handler of torch's, which lets a SIGTERM to the whole group end it; the
    run would then fail in the step that it is about to save.
    """
    if _catcher is not None:
        for number in SIGNALS:
            signal.signal(number, _catcher.handle)


def received() -> int | None:
    """The signal that has been put off."""
    return None if _catcher is None else _catcher.received
