"""How the server's memory is laid out, so that it does not grow by gaps."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_arenas() -> None:
    """Let glibc's threads share two heaps; elsewhere, and where the environment says, nothing.

    Each request is served by several short-lived threads, for which glibc keeps up to eight heaps
    a core. What is in use stays the same, but the gaps grew with every thousand requests.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
