"""What the server keeps of a visit, and for how long.

Gradio keeps the last values of every component for each session, which for this page are its
pictures, and every message that nobody has fetched. A session of this app has nothing to remember
between two events, so what no one listens to is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr

logger = logging.getLogger(__name__)

MOST_SESSIONS = 64  # whose components Gradio keeps at once
PATIENCE = 60.0  # seconds between two listeners, after which a session is given up
PERIOD = 5.0  # seconds between two rounds
OLD = 3600.0  # seconds, after which a temporary file goes


class Sessions:
    """Who listens to which session of a page, and what is kept of those to whom nobody does.

    Args:
        page: with its queue.
        temporary: folder of the server's temporary files.
        patience: seconds for which a session may be without a listener.
    """

    def __init__(self, page: gr.Blocks, temporary: Path, patience: float = PATIENCE):
        self.page, self.temporary, self.patience = page, temporary, patience
        self._listeners: Counter[str] = Counter()
        self._alone: dict[str, float] = {}

    def seen(self, session: str) -> None:
        """A session has asked for something, and has time to listen to it."""
        self._alone.pop(session, None)

    @contextmanager
    def listening(self, session: str | None) -> Iterator[None]:
        """While somebody listens to a session; None is nobody."""
        if session is None:
            yield
            return
        self._listeners[session] += 1
        try:
            yield
        finally:
            self._listeners[session] -= 1
            self._listeners += Counter()  # without those at 0

    def of_event(self, event: str) -> str:
        """The session of an event; one that named none is its event's."""
        pending = self._queue.pending_event_ids_session
        return next((session for session, events in pending.items() if event in events), event)

    def has_event(self, session_hash: str, fn_index: Any, event_id: str) -> bool:
        """Whether a session's event is under way and of that function."""
        event = self._queue.event_ids_to_events.get(event_id)
        return event is not None and event.session_hash == session_hash and event.fn._id == fn_index

    async def sweep(self) -> None:
        """Give up the sessions to whom nobody has listened for long, with what they wait for."""
        queue, now = self._queue, time.monotonic()
        known = queue.pending_messages_per_session.keys() | queue.pending_event_ids_session.keys()
        self._alone = {
            session: self._alone.get(session, now)
            for session in known
            if not self._listeners[session]
        }
        for session, since in list(self._alone.items()):
            if now - since > self.patience:
                await queue.clean_events(session_hash=session)
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
        running = {event._id: event.session_hash for event in self._running()}
        for event in queue.event_ids_to_events.keys() - running.keys():
            queue.event_ids_to_events.pop(event)  # one that was cancelled while it ended stays
        self.page.app.iterators_to_reset.intersection_update(running)
        states = self.page.state_holder
        for session in states.session_data.keys() - running.values():
            states.session_data.pop(session)
            states.time_last_used.pop(session, None)
        await asyncio.to_thread(self._remove_old_files)

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Sweep while the server runs."""

        async def keep_sweeping() -> None:
            while True:
                await asyncio.sleep(PERIOD)
                await self.sweep()

        asyncio.get_running_loop().set_exception_handler(_tell)
        task = asyncio.create_task(keep_sweeping())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _running(self) -> Iterator[Any]:
        """Events in work, and those that wait for it."""
        for job in self._queue.active_jobs:
            yield from job or ()
        for line in self._queue.event_queue_per_concurrency_id.values():
            yield from line.queue

    @property
    def _queue(self) -> Any:
        # Gradio has no public way to its queue; a test fails should its tables change
        return self.page._queue

    def _remove_old_files(self) -> None:
        with suppress(OSError):  # somebody else may have removed the folder
            os.utime(self.temporary)
            for path in self.temporary.rglob("*"):
                if path.is_file() and time.time() - path.stat().st_mtime > OLD:
                    path.unlink()


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """One line of the log for a task of the server that nobody waits for."""
    error = context.get("exception")
    logger.warning("%s: %s", context["message"], ascii(str(error or ""))[1:-1][:200])
