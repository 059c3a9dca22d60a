"""The `flowsteer` command: thin commands over the same functions as app and notebooks."""

from flowsteer.cli.main import main

__all__ = ["main"]
