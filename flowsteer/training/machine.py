"""Whether this machine can do what a run asks of it, said before anything is built."""

from __future__ import annotations

import os
import shutil

import torch

C_COMPILERS = ("cc", "gcc", "clang")


def check_compiler(wanted: bool, device: torch.device) -> None:
    """Make sure that `--compile` can compile, and is worth its minute.

    Raises:
        ValueError: without a GPU, or without the C compiler that Triton needs.
    """
    if not wanted:
        return
    if device.type != "cuda":
        raise ValueError(
            f"compile = True needs a CUDA GPU, and this run is on {device.type}; leave --compile"
            " out (with --preset gpu, give --no_compile)"
        )
    named = os.environ.get("CC")
    names = (named,) if named else C_COMPILERS
    if not any(map(shutil.which, names)):
        raise ValueError(
            f"compile = True needs a C compiler, and there is no {' or '.join(names)} on PATH;"
            " install one or leave --compile out"
        )
