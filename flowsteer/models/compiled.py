"""Networks that the user has compiled, in any of the ways that torch has, as plain ones again.

A compiled `forward` belongs to the network that it was made of: a copy would run the first one's
weights, whatever its own are.
"""

from __future__ import annotations

import inspect
from typing import Any

from diffusers.utils.torch_utils import unwrap_module
from torch import nn
from torch._dynamo import OptimizedModule


def uncompiled(network: Any) -> Any:
    """A network, or a copy of one, without what `torch.compile` wrapped around its parts.

    Args:
        network: changed in place, but for its own wrapper.

    Returns:
        The network within the wrapper, whose weights have their plain names.

    Raises:
        ValueError: if a `forward` was replaced by another function, which no copy can have.
    """
    plain: nn.Module = unwrap_module(network)
    for name, module in list(plain.named_modules()):
        if isinstance(module, OptimizedModule):
            continue
        for place, child in list(module.named_children()):
            if isinstance(child, OptimizedModule):
                setattr(module, place, child._orig_mod)
        forward = module.__dict__.get("forward")
        if not inspect.isfunction(forward):  # none, or one that is copied with its module
            continue
        original = getattr(forward, "_torchdynamo_orig_callable", None)
        if getattr(original, "__func__", None) is not type(module).forward:
            raise ValueError(
                f"the forward of {name or type(module).__name__} was replaced by a function, which"
                " belongs to this network alone; use a network with its own forward"
            )
        del module.forward
    return plain
