"""`--compile` is refused where it cannot compile."""

import pytest
import torch

from flowsteer.training.machine import check_compiler


def test_compiling_needs_a_gpu():
    with pytest.raises(ValueError, match="compile = True needs a CUDA GPU, and this run is on cpu"):
        check_compiler(True, torch.device("cpu"))
    check_compiler(False, torch.device("cpu"))


@pytest.mark.parametrize(("named", "missing"), [(None, "cc or gcc or clang"), ("icx", "icx")])
def test_compiling_needs_a_c_compiler(monkeypatch, tmp_path, named, missing):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if named is not None:
        monkeypatch.setenv("CC", named)
    with pytest.raises(ValueError, match=f"there is no {missing} on PATH"):
        check_compiler(True, torch.device("cuda"))
    compiler = tmp_path / (named or "gcc")
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    check_compiler(True, torch.device("cuda"))
