"""The header of a safetensors file: what it holds, without reading or building a tensor.

Format: eight bytes with the header's length, the header as JSON, then the values, tensor beside
tensor without a gap (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeGuard

from flowsteer.untrusted.jsons import parse_json
from flowsteer.untrusted.opening import StrPath, name_of, open_regular
from flowsteer.validation import shorten

MOST_WEIGHT_BYTES = 200_000_000_000  # of one file; the largest published ones are cut at 50 GB
MOST_HEADER_BYTES = 20_000_000  # a network of 1,000 tensors has 100,000
MOST_DIMENSIONS = 8
WHAT = "a safetensors file"

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8}
_BITS |= {"BOOL": 8}
_COUNTERS = ("position_ids", "num_batches_tracked")  # whole by nature, and no weights
_OTHERS = {
    b"PK\x03\x04": "a ZIP or a PyTorch file",
    b"\x80": "a pickle",
    b"version ": "a Git LFS pointer",
}


class TensorInfo(NamedTuple):
    """What a header says of a tensor: its dtype, such as "BF16", and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds.

    Args:
        where: the file, for messages.
        tensors: by name.
        metadata: whatever else it says.
    """

    where: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_header(path: StrPath) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        ValueError: if it is none: another kind of file, cut off, its header too long, not JSON, or
            one that names a tensor twice, an unknown dtype, a wrong shape, or values that overlap
            or lie outside the file.
    """
    where = name_of(path)
    with open_regular(path, WHAT, MOST_WEIGHT_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        text, values = _header_text(file, size, where)
    record = parse_json(text, f"the header of {where}")
    if not isinstance(record, dict):
        raise _broken(where, "its header is no JSON object")
    metadata = record.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(where, "its metadata are not text")
    tensors, spans = {}, []
    for name, entry in record.items():
        tensors[name], span = _tensor(name, entry, where)
        spans.append(span)
    end = 0
    for low, high in sorted(spans):
        if low != end:
            raise _broken(where, f"its values overlap, or have a gap, at byte {min(low, end):,}")
        end = high
    if end != values:
        raise _broken(where, f"its header promises {end:,} bytes of values, {values:,} are there")
    return Header(where, tensors, metadata)


def check_real(header: Header) -> None:
    """Make sure that no weight is stored as whole numbers: quantised, or cut off at the point.

    Raises:
        ValueError: naming the first that is.
    """
    for name, info in header.tensors.items():
        if info.dtype[0] in "IUB" and info.dtype != "BF16" and not name.endswith(_COUNTERS):
            raise ValueError(
                f"{header.where} holds {shorten(name, 100)} as whole numbers ({info.dtype});"
                " flowsteer needs plain weights, such as bf16"
            )


def _header_text(file: BinaryIO, size: int, where: str) -> tuple[str, int]:
    """The header and how many bytes of values follow it."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= size - 8:
        kinds = [kind for mark, kind in _OTHERS.items() if start.startswith(mark)]
        cut_off = f"it has {size:,} bytes and its header would have {length:,}"
        raise _broken(where, f"it is {kinds[0]}" if kinds else cut_off)
    if length > MOST_HEADER_BYTES:
        raise _broken(where, f"its header has {length:,} bytes, the limit is {MOST_HEADER_BYTES:,}")
    try:
        return file.read(length).decode("utf-8"), size - 8 - length
    except UnicodeDecodeError as error:
        raise _broken(where, "its header is not text") from error


def _tensor(name: str, entry: Any, where: str) -> tuple[TensorInfo, tuple[int, int]]:
    """A tensor's entry, and where its values lie."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, span = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(where, f"{shorten(name)} has the dtype {shorten(dtype)}")
    if not _whole_numbers(shape) or len(shape) > MOST_DIMENSIONS:
        raise _broken(where, f"{shorten(name)} has the shape {shorten(shape)}")
    if not _whole_numbers(span) or len(span) != 2:
        raise _broken(where, f"{shorten(name)} lies at {shorten(span)}")
    low, high = span
    needed = math.prod(shape) * _BITS[dtype] // 8
    if high - low != needed:
        raise _broken(where, f"{shorten(name)} needs {needed:,} bytes and has {high - low:,}")
    return TensorInfo(dtype, tuple(shape)), (low, high)


def _whole_numbers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _broken(where: str, why: str) -> ValueError:
    return ValueError(f"{where} is no whole {WHAT[2:]}: {why}; fetch or write it again")
