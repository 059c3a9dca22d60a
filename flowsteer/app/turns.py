"""What is remembered of the latest visitors, such as which of their requests is the current one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

MAX_VISITORS = 1000
Value = TypeVar("Value")


class Latest(Generic[Value]):
    """A value for each of the latest `most` visitors. Safe to call from several threads."""

    def __init__(self, most: int):
        self._lock = threading.Lock()
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._most = most

    def put(self, visitor: str, value: Value) -> None:
        """Remember a value, in place of an older one."""
        with self._lock:
            self._values[visitor] = value
            self._values.move_to_end(visitor)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def take(self, visitor: str) -> Value | None:
        """The value, which is then forgotten."""
        with self._lock:
            return self._values.pop(visitor, None)


class Turns:
    """Numbers the requests of each visitor, so that a running one can see it should end.

    Safe to call from several threads. Remembers the latest `max_visitors` visitors.
    """

    def __init__(self, max_visitors: int = MAX_VISITORS):
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._stopped: set[str] = set()
        self._count = 0
        self._max_visitors = max_visitors

    def begin(self, visitor: str) -> int:
        """A new request of this visitor: its number. Earlier ones are out of date from now on."""
        with self._lock:
            self._count += 1
            self._latest[visitor] = self._count
            self._latest.move_to_end(visitor)
            self._stopped.discard(visitor)
            while len(self._latest) > self._max_visitors:
                forgotten, _ = self._latest.popitem(last=False)
                self._stopped.discard(forgotten)
            return self._count

    def stop(self, visitor: str) -> None:
        """Ask the visitor's current request to end."""
        with self._lock:
            if visitor in self._latest:
                self._stopped.add(visitor)

    def forget(self, visitor: str) -> None:
        """The visitor has left: whatever runs for them is out of date."""
        with self._lock:
            self._latest.pop(visitor, None)
            self._stopped.discard(visitor)

    def has_begun(self, visitor: str) -> bool:
        """Whether the visitor has made any request."""
        with self._lock:
            return visitor in self._latest

    def is_current(self, visitor: str, number: int) -> bool:
        """Whether no newer request of this visitor has come."""
        with self._lock:
            return self._latest.get(visitor) == number

    def is_stopped(self, visitor: str) -> bool:
        """Whether the visitor pressed Stop since their latest request."""
        with self._lock:
            return visitor in self._stopped
