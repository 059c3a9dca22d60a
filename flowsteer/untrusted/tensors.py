"""The tensors of a safetensors file, once its header has been checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowsteer.untrusted.opening import StrPath
from flowsteer.untrusted.weights import read_header
from flowsteer.validation import shorten

if TYPE_CHECKING:
    import torch


def read_tensors(
    path: StrPath,
    expected: Mapping[str, torch.Tensor] | None = None,
    any_dtype: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU, known to be finite.

    Args:
        path: of the file.
        expected: tensors, on whatever device, whose names, shapes and dtypes those of the file
            must have; None takes any.
        any_dtype: take dtypes other than the expected.

    Raises:
        ValueError: as `read_header`; or if names, shapes or dtypes are others than expected, or a
            value is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    if expected is not None:
        _check_names(header.where, header.tensors.keys(), expected.keys())
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{header.where} is not readable: {error}; write it again") from error
    for name, wanted in (expected or {}).items():
        found = tensors[name]
        if found.shape != wanted.shape or (found.dtype != wanted.dtype and not any_dtype):
            raise ValueError(
                f"{header.where} is for another network: {shorten(name, 100)} is"
                f" {_kind(found)}, {_kind(wanted)} is needed"
            )
    check_finite(tensors, header.where)
    return tensors


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Make sure that tensors hold neither NaN nor infinity.

    Raises:
        ValueError: naming the first that does, and `where` it comes from.
    """
    for name, tensor in tensors.items():
        # 8-bit floats know no isfinite of their own
        values = tensor.half() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        if not bool(values.isfinite().all()):
            raise ValueError(
                f"{where} is damaged: {shorten(name, 100)} holds values that are not finite;"
                " write it again, or use an older one"
            )


def _check_names(where: str, found, wanted) -> None:
    if lacking := sorted(wanted - found):
        raise ValueError(
            f"{where} is for another network: it lacks {shorten(lacking[0], 100)}{_more(lacking)}"
        )
    if foreign := sorted(found - wanted):
        raise ValueError(
            f"{where} is for another network: it has {shorten(foreign[0], 100)}{_more(foreign)}"
        )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1:,} more" if len(names) > 1 else ""


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
