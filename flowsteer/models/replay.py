"""Calls of a frozen network, recorded on a GPU and replayed.

A small network's kernels are over before Python has launched the next ones. A CUDA graph launches
all of a call's at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowsteer.models.sd3 import SD3Field, TextCondition

WARM_UP_CALLS = 3  # the first ones compile, choose kernels and allocate, which no graph may hold


@dataclass(frozen=True, eq=False)
class _Recording:
    """A call on memory that stays in place."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class ReplayedField:
    """A frozen `SD3Field` on a GPU: each shape of its inputs is recorded once, then replayed.

    The network's weights are read where they were at the recording, so they must stay there; no
    gradient flows.

    Args:
        field: computes in its weights' precision, whatever the autocast.
    """

    def __init__(self, field: SD3Field):
        self.field = field
        self.transformer = field.transformer
        self._recordings: dict[tuple[tuple[torch.Size, torch.dtype], ...], _Recording] = {}

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: TextCondition) -> Tensor:
        """Velocity at states x (b, c, h, w) and times t (b,), in the dtype of x."""
        given = x, t, cond.tokens, cond.pooled
        kinds = tuple((tensor.shape, tensor.dtype) for tensor in given)
        if kinds not in self._recordings:
            self._recordings[kinds] = self._record(given)
        recording = self._recordings[kinds]
        torch._foreach_copy_(recording.inputs, given)
        recording.graph.replay()
        return recording.output.clone()  # the next replay overwrites it

    def _record(self, given: tuple[Tensor, ...]) -> _Recording:
        inputs = tuple(tensor.detach().clone() for tensor in given)
        x, t, tokens, pooled = inputs
        cond = TextCondition(tokens, pooled)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self.field(x, t, cond)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # other threads pin the next batches' memory meanwhile, which is none of the graph's affair
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self.field(x, t, cond)
        return _Recording(graph, inputs, output)
