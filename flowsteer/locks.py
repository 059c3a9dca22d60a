"""What no two threads may do at once."""

import threading

TURN = threading.RLock()
"""Held while a tokenizer is asked, which keeps padding and truncation of its last call, and while
networks move between devices."""
