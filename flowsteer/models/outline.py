"""Networks in outline: built on torch's meta device, to compare their shapes with a file's."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from flowsteer.validation import shorten

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a weight -> its shape."""
_MODULES_PER_WEIGHT = 20  # more than any network has; dropouts and activations have no weights
_LEFT_OVER = ("position_ids",)  # in encoders saved by transformers before 4.31


class _TooLarge(Exception):
    """A network grows beyond its weights."""


def check_weights_fit(
    values: Mapping[str, Any], where: str, kind: str, library: str, weights: Shapes
) -> None:
    """Make sure that a configuration describes the network whose weights these are.

    Args:
        values: the configuration; its whole numbers are known to be bounded.
        where: it comes from, for messages.
        kind: the network's class.
        library: of the class.
        weights: what the files hold.

    Raises:
        ValueError: if the network cannot be built, or one of its weights is missing or of another
            shape, or there are others.
    """
    if values.get("quantization_config") is not None:
        raise ValueError(f"{where} has quantised weights; flowsteer needs plain ones, such as bf16")
    network_class = getattr(importlib.import_module(library), kind)
    try:
        with torch.device("meta"), _no_larger_than(len(weights)):
            network = _build(network_class, values, library)
    except _TooLarge as error:
        raise ValueError(
            f"{where} describes a network of more than the {len(weights):,} weights beside it;"
            " fetch both again"
        ) from error
    except Exception as error:  # whatever such values make the libraries' own code raise
        reason = shorten(str(error), 120)
        raise ValueError(f"{where} describes no {kind}: {type(error).__name__} {reason}") from error
    _compare(network, network_class, where, weights)


def _build(network_class: Any, values: Mapping[str, Any], library: str) -> nn.Module:
    if library == "diffusers":
        return network_class.from_config(dict(values))
    return network_class(network_class.config_class.from_dict(dict(values)))


def _compare(network: nn.Module, network_class: Any, where: str, weights: Shapes) -> None:
    names: dict[int, list[str]] = {}  # tied weights have several names, of which a file has one
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        expected[name] = tuple(tensor.shape)
    for name in sorted(expected.keys() & weights.keys()):
        if expected[name] != weights[name]:
            raise ValueError(
                f"{where} does not fit the weights beside it: {shorten(name, 100)} would be"
                f" {expected[name]} and is {weights[name]}; fetch both again"
            )
    absent = [tied[0] for tied in names.values() if not weights.keys() & set(tied)]
    if absent:
        raise ValueError(
            f"{where} does not fit the weights beside it, which lack {shorten(absent[0], 100)}"
            f"{_more(absent)}; fetch both again"
        )
    ignored = [*_LEFT_OVER, *(network_class._keys_to_ignore_on_load_unexpected or ())]
    foreign = sorted(weights.keys() - expected.keys())
    foreign = [name for name in foreign if not any(re.search(part, name) for part in ignored)]
    if foreign:
        raise ValueError(
            f"{where} does not fit the weights beside it, which also have"
            f" {shorten(foreign[0], 100)}{_more(foreign)}; fetch both again"
        )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1:,} more" if len(names) > 1 else ""


@contextmanager
def _no_larger_than(count: int) -> Iterator[None]:
    """Stop this thread's building at more parameters or modules than `count` weights can be of."""
    thread = threading.get_ident()
    left = {"parameters": 2 * count + 10, "modules": _MODULES_PER_WEIGHT * (count + 10)}

    def spend(what: str, value: Any) -> None:
        if value is None or threading.get_ident() != thread:
            return
        left[what] -= 1
        if left[what] < 0:
            raise _TooLarge

    hooks = [
        register_module_parameter_registration_hook(lambda m, n, value: spend("parameters", value)),
        register_module_module_registration_hook(lambda m, n, value: spend("modules", value)),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
