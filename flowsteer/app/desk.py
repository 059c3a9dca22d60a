"""One worker thread with a bounded line before it: all that touches the networks goes through here.

Requests cannot disturb each other, each knows its place in line, and a full line refuses at once.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MOST_WAITING = 32
PATIENCE = 0.2  # seconds between two looks at whether whoever waits still wants to
CLOSING = 20.0  # seconds; one network step of a large model on a CPU may take some

ShouldStop = Callable[[], bool]
Work = Callable[[Callable[[Any], None], ShouldStop], None]
"""`work(post, should_stop)` posts snapshots of how far it is, each in place of the one before."""


class LineFull(ValueError):
    """Too many requests are waiting already."""


@dataclass(frozen=True)
class Waiting:
    """How many requests are before this one, the one in work included."""

    ahead: int


@dataclass(eq=False)
class _Job:
    work: Work
    stopped: threading.Event = field(default_factory=threading.Event)
    news: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)


class _Done:
    """The last of a job's news, with what it failed of."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


class Desk:
    """Does one piece of work after another, in the order in which they came.

    Args:
        most_waiting: requests that may wait; one more is refused.
    """

    def __init__(self, most_waiting: int = MOST_WAITING):
        self.most_waiting = most_waiting
        self._line: deque[_Job] = deque()
        self._running: _Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        # a daemon: an interrupt while gigabytes load must end the process all the same
        self._thread = threading.Thread(target=self._serve, name="flowsteer-model", daemon=True)
        self._thread.start()

    def do(self, work: Work, should_stop: ShouldStop = lambda: False) -> Iterator[Any]:
        """`Waiting` while others come first, then the work's posts, the latest of several.

        Closing the iterator early, or `should_stop`, ends the work after the step that it is in.

        Raises:
            LineFull: if too many are waiting.
            Exception: what the work raises.
        """
        job = self._enter(work)
        try:
            while True:
                items = _drain(job.news)
                if not items and should_stop():
                    job.stopped.set()
                    if self._leave(job):
                        return
                posted = [item for item in items if not isinstance(item, _Done)]
                if posted:
                    yield posted[-1]
                if len(posted) < len(items):
                    if items[-1].error is not None:
                        raise items[-1].error
                    return
                if should_stop():
                    job.stopped.set()
        finally:
            job.stopped.set()
            self._leave(job)

    def submit(self, work: Work) -> None:
        """Put work in line that nobody waits for.

        Raises:
            LineFull: if too many are waiting.
        """
        self._enter(work)

    def close(self) -> None:
        """Stop what runs, drop what waits, and end the thread."""
        with self._changed:
            self._closed = True
            dropped = list(self._line)
            self._line.clear()
            for job in (*dropped, *([self._running] if self._running else [])):
                job.stopped.set()
            self._changed.notify_all()
        for job in dropped:
            job.news.put(_Done())
        self._thread.join(CLOSING)

    def _enter(self, work: Work) -> _Job:
        job = _Job(work)
        with self._changed:
            if self._closed:
                raise LineFull("the app is closing")
            if len(self._line) >= self.most_waiting:
                raise LineFull(
                    f"the line is full: {len(self._line)} requests are waiting; try again in a"
                    " minute"
                )
            ahead = len(self._line) + (self._running is not None)
            self._line.append(job)
            if ahead:
                job.news.put(Waiting(ahead))
            self._changed.notify_all()
        return job

    def _leave(self, job: _Job) -> bool:
        """Take a job out of the line; whether it was still in it."""
        with self._changed:
            if job not in self._line:
                return False
            self._line.remove(job)
            self._tell_places()
        return True

    def _tell_places(self) -> None:
        for place, job in enumerate(self._line):
            job.news.put(Waiting(place + (self._running is not None)))

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._line or self._closed)
                if self._closed:
                    return
                job = self._running = self._line.popleft()
                self._tell_places()
            error: BaseException | None = None
            try:
                job.work(job.news.put, job.stopped.is_set)
            except Exception as caught:  # whatever it is belongs to the thread that asked
                error = caught
            job.news.put(_Done(error))
            del job, error  # a frame that waits for work must hold no pictures of the last


def _drain(news: queue.SimpleQueue[Any]) -> list[Any]:
    """Waits a moment for one item, and takes all that have piled up behind it."""
    try:
        items = [news.get(timeout=PATIENCE)]
    except queue.Empty:
        return []
    while not news.empty():
        items.append(news.get())
    return items
