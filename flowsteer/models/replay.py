"""A network's calls and their gradients, recorded on a GPU and replayed.

A small network's kernels are over before Python has launched the next ones. A CUDA graph launches
all of a call's at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowsteer.models.sd3 import TextCondition

WARM_UP_CALLS = 3  # the first ones compile, choose kernels and allocate, which no graph may hold


class NetworkField(Protocol):
    """A field that is a network, such as `SD3Field`."""

    transformer: nn.Module

    def __call__(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """Velocity at states x (b, c, h, w) and times t (b,)."""
        ...


class ReplayedField:
    """A field on a GPU: its call on each shape of inputs is recorded once, then replayed.

    Weights are read where they were at the recording, and gradients added to those that were there,
    so both must stay in their places: `optimizer.zero_grad(set_to_none=False)`. Gradients go to the
    parameters, none to the inputs. Backpropagate a call before the next one: they share memory.

    Args:
        field: what to record.
    """

    def __init__(self, field: NetworkField):
        self.field = field
        self.transformer = field.transformer
        self._trained = [p for p in self.transformer.parameters() if p.requires_grad]
        self._recordings: dict[Any, _Recording] = {}

    def __call__(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """Velocity at states x (b, c, h, w) and times t (b,), in the field's dtype."""
        given = tuple(tensor.detach() for tensor in (x, t, *cond))
        learns = torch.is_grad_enabled() and bool(self._trained)
        kind = learns, type(cond), *((tensor.shape, tensor.dtype) for tensor in given)
        if kind not in self._recordings:
            trained = self._trained if learns else []
            self._recordings[kind] = _Recording(self.field, type(cond), given, trained)
        recording = self._recordings[kind]
        if learns:
            # autograd calls a function backwards if one of its inputs has a gradient: any of them
            return _Replay.apply(self._trained[0], recording, *given)
        return recording(*given)


class _Recording:
    """A call on memory that stays in place, and its gradient if there are parameters to train."""

    def __init__(
        self,
        field: NetworkField,
        form: type[TextCondition],
        given: tuple[Tensor, ...],
        trained: list[nn.Parameter],
    ):
        self.inputs = tuple(tensor.clone() for tensor in given)
        self.back: torch.cuda.CUDAGraph | None = None

        def call() -> Tensor:
            x, t, tokens, pooled = self.inputs
            with torch.set_grad_enabled(bool(trained)):
                return field(x, t, form(tokens, pooled))

        self._warm_up(call, trained)
        self.graph = torch.cuda.CUDAGraph()
        # other threads pin the next batches' memory meanwhile, which is none of the graph's affair
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            output = call()
        self.output = output.detach()
        if trained:
            self.grad = torch.zeros_like(output)
            self.back = torch.cuda.CUDAGraph()
            pool = self.graph.pool()
            with torch.cuda.graph(self.back, pool=pool, capture_error_mode="thread_local"):
                output.backward(self.grad)

    def _warm_up(self, call: Callable[[], Tensor], trained: list[nn.Parameter]) -> None:
        """Compile, and allocate what recordings need; gradients are there then, and unchanged."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                output = call()
                if trained:
                    ones = torch.ones_like(output)
                    grads = torch.autograd.grad(output, trained, ones, allow_unused=True)
                    for parameter, grad in zip(trained, grads, strict=True):
                        if grad is not None and parameter.grad is None:
                            parameter.grad = torch.zeros_like(parameter)
        torch.cuda.current_stream().wait_stream(side)

    def __call__(self, *given: Tensor) -> Tensor:
        """The call on other inputs of the same shapes."""
        torch._foreach_copy_(self.inputs, given)
        self.graph.replay()
        return self.output.clone()  # the next replay overwrites it


class _Replay(torch.autograd.Function):
    """Lets autograd replay a recording's gradient, which adds to the parameters' by itself."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, recording: _Recording, *given: Tensor) -> Tensor:
        ctx.recording = recording
        return recording(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        recording = ctx.recording
        recording.grad.copy_(grads[0])
        recording.back.replay()
        return (None,) * (2 + len(recording.inputs))
