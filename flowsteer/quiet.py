"""Silence while libraries load."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_LOADING = threading.RLock()


@contextlib.contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Hold back notices of diffusers and transformers and, unless `bars`, progress bars.

    One thread at a time: the levels belong to the process, as does the precision in which
    transformers builds networks, and two that restore them in turn would leave the wrong ones.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (transformers_logging, diffusers_logging)
    with _LOADING, warnings.catch_warnings():
        # diffusers still passes it to the hub's client, which warns of its own caller
        warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
        levels = [library.get_verbosity() for library in libraries]
        hidden = [lib for lib in libraries if not bars and lib.is_progress_bar_enabled()]
        try:
            for library in libraries:
                library.set_verbosity_error()
            for library in hidden:
                library.disable_progress_bar()
            yield
        finally:
            for library in hidden:
                library.enable_progress_bar()
            for library, level in zip(libraries, levels, strict=True):
                library.set_verbosity(level)
