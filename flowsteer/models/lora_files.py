"""LoRA files of others: whole, finite, and with settings that a loader may follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowsteer.untrusted import Header, check_real, parse_json, read_header, read_tensors
from flowsteer.validation import check_number, check_whole_number, shorten

SETTINGS = "lora_adapter_metadata"
"""Keyword under which diffusers keeps the adapters' configuration; its value is JSON."""
MOST_ALPHA = 1e6
PLAIN_STARTS = (True, False, None, "gaussian")  # others change the network's own weights


def check_lora_file(file: str | Path) -> Header:
    """Make sure that a LoRA file is whole and finite, and asks for no more than it holds.

    Returns:
        Its header.

    Raises:
        ValueError: naming the file and what is wrong: damaged, NaN, whole numbers, half an adapter,
            a rank that no weight has, or an alpha that is no positive number.
    """
    header = read_header(file)
    check_real(header)
    read_tensors(file)
    down, up = (
        {n.replace(s, "") for n in header.tensors if s in n} for s in (".lora_A", ".lora_B")
    )
    if halves := sorted(down ^ up):
        raise ValueError(
            f"{header.where} is not whole: {shorten(halves[0], 100)} has one matrix of its two;"
            " write it again"
        )
    if SETTINGS not in header.metadata:
        return header
    where = f"the LoRA settings in {header.where}"
    values = parse_json(header.metadata[SETTINGS], where)
    if not isinstance(values, dict):
        raise ValueError(f"{where} are no JSON object; write the file again")
    ranks = {info.shape[0] for name, info in header.tensors.items() if "lora_A" in name}
    for name, value in values.items():
        key = name.rpartition(".")[2]
        inner = value if key.endswith("_pattern") and isinstance(value, dict) else {key: value}
        for number in inner.values():
            _check_setting(f"{where}: {name}", key, number, ranks)
    return header


def _layers(header: Header, kind: str) -> set[str]:
    """The layers that have a matrix of a kind."""
    return {name.replace(kind, "") for name in header.tensors if kind in name}


def _check_setting(what: str, key: str, value: Any, ranks: set[int]) -> None:
    if key in ("r", "rank_pattern"):
        check_whole_number(what, value, 1, max(ranks, default=1))
        if value not in ranks:
            raise ValueError(f"{what} = {value}, but its weights have rank {sorted(ranks)}")
    elif key in ("lora_alpha", "alpha_pattern"):
        check_number(what, value, 1 / MOST_ALPHA, MOST_ALPHA)
    elif key == "init_lora_weights" and value not in PLAIN_STARTS:
        raise ValueError(f"{what} = {shorten(value)} would change the network's own weights")
