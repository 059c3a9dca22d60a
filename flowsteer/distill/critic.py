"""The critic: tells the teacher's states from the student's, and where on a path it looks.

Its backbone is given: in practice the first blocks of the teacher (`flowsteer.models.critic`),
which know states, times and prompts from the start. Here are the heads and the edges.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

Heads = Literal["last", "each"]
Logits = Literal["token", "pooled", "moments"]

NOISIEST_EDGE = 0.4
"""How often the critic looks at the noisiest edge (FlowSteer: {0.4, 0.2, 0.2, 0.2})."""


class Backbone(Protocol):
    """A network that gives features of a state; in practice an `nn.Module`."""

    width: int
    """Channels of the features."""
    cond_width: int
    """Channels of the conditioning vector."""
    depth: int
    """Number of blocks."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any) -> tuple[list[Tensor], Tensor]:
        """Features after each block and what the critic knows beside the state.

        Args:
            x: states (b, *d).
            t: their times (b,).
            cond: their prompts.

        Returns:
            `depth` features, each (b, n, width), and the time and prompt as a vector
            (b, cond_width).
        """
        ...


class CriticOutput(NamedTuple):
    """What a critic says of states. float32, above 0 for the teacher's."""

    logits: Tensor  # (b, heads * n) for each token, (b, heads) for all of them
    features: Tensor  # (b, heads, n, width): what the heads read


class Head(nn.Module):
    """One logit for each token: <w(c), h> + b(c), with w and b affine in the conditioning c.

    This is the projection discriminator (Miyato and Koyama 2018, equation 3): the constant part of
    w is its unconditional term, the rest the inner product of feature and projected condition; b
    sets the threshold, which differs from edge to edge. h and c are normalised, so that the rate
    at which a head learns does not depend on the scale of a teacher's activations. The head starts
    at zero: a new critic has no opinion, and pushes the student nowhere.

    Args:
        width: channels of h.
        cond_width: channels of c.
    """

    def __init__(self, width: int, cond_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(cond_width, elementwise_affine=False)
        self.project = nn.Linear(cond_width, width + 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Tensor, cond: Tensor) -> Tensor:
        """Logits (b, n) of normalised features (b, n, width) under conditions (b, cond_width)."""
        c = self.norm(cond) / cond.shape[-1] ** 0.5
        w, b = self.project(c).split([features.shape[-1], 1], dim=-1)
        return torch.einsum("bnc,bc->bn", features, w) + b


class MomentsHead(nn.Module):
    """One logit for all tokens: a `Head` on one hidden layer over their mean and deviation.

    A student's states err in what a mean of verdicts on single tokens cannot see: how much tokens
    differ from one another. Starts without an opinion, as `Head` does.

    Args:
        width: channels of the features.
        cond_width: channels of the conditioning.
        hidden: channels of the hidden layer.
    """

    def __init__(self, width: int, cond_width: int, hidden: int = 256):
        super().__init__()
        self.hidden = nn.Linear(2 * width, hidden)
        self.head = Head(hidden, cond_width)

    def forward(self, features: Tensor, cond: Tensor) -> Tensor:
        """Logits (b, 1) of normalised features (b, n, width) under conditions (b, cond_width)."""
        spread = features.var(1, correction=0).add(1e-6).sqrt()  # with a slope at 0 too
        moments = torch.cat([features.mean(1), spread], dim=-1)
        h = nn.functional.silu(self.hidden(nn.functional.layer_norm(moments, moments.shape[-1:])))
        return self.head(h[:, None], cond)


class TrajectoryCritic(nn.Module):
    """Judges a state at its time under its prompt (Ke et al., FlowSteer, arXiv 2511.18834).

    Args:
        backbone: a `Backbone`.
        heads: one after the "last" block, or one after "each".
        logits: one for every "token", or one of them "pooled": the mean; or of a `MomentsHead`.

    Raises:
        ValueError: if `heads` or `logits` is unknown.
    """

    def __init__(self, backbone: nn.Module, heads: Heads = "last", logits: Logits = "token"):
        super().__init__()
        if heads not in ("last", "each"):
            raise ValueError(f"heads = {heads!r} is unknown; use last or each")
        if logits not in ("token", "pooled", "moments"):
            raise ValueError(f"logits = {logits!r} is unknown; use token, pooled or moments")
        sizes = cast(Backbone, backbone)
        self.backbone = backbone
        self.pooled = logits == "pooled"
        count = sizes.depth if heads == "each" else 1
        kind = MomentsHead if logits == "moments" else Head
        self.heads = nn.ModuleList(kind(sizes.width, sizes.cond_width) for _ in range(count))

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> CriticOutput:
        """Judge states x (b, *d) at times t (b,) under prompts `cond`."""
        features, c = self.backbone(x, t, cond)
        # losses compare small differences of logits: half precision would round them away
        with torch.autocast(x.device.type, enabled=False):
            read = torch.stack([f.float() for f in features[-len(self.heads) :]], dim=1)
            read = nn.functional.layer_norm(read, read.shape[-1:])
            logits = [head(read[:, i], c.float()) for i, head in enumerate(self.heads)]
            if self.pooled:
                logits = [each.mean(1, keepdim=True) for each in logits]
            return CriticOutput(torch.cat(logits, dim=1), read)


def edge_probabilities(num_windows: int) -> Tensor:
    """How often the critic looks at the end of each window, noisiest first: float64, (K,).

    FlowSteer's {0.4, 0.2, 0.2, 0.2} for four windows. For other K, 0.4 for the noisiest and the
    rest in equal parts.

    Raises:
        ValueError: if `num_windows` is not positive.
    """
    if num_windows < 1:
        raise ValueError(f"num_windows = {num_windows} must be at least 1")
    if num_windows == 1:
        return torch.ones(1, dtype=torch.float64)
    rest = (1 - NOISIEST_EDGE) / (num_windows - 1)
    return torch.tensor([NOISIEST_EDGE] + [rest] * (num_windows - 1), dtype=torch.float64)


def locate_edges(uniform: Tensor, num_windows: int) -> Tensor:
    """The windows at whose ends the critic looks, drawn by `edge_probabilities`.

    Args:
        uniform: (b,), evenly drawn from [0, 1).
        num_windows: K.

    Returns:
        int64 (b,) in [0, K): the inverse of the distribution function at each number.

    Raises:
        ValueError: if a number lies outside [0, 1), or `num_windows` is not positive.
    """
    if not bool(((uniform >= 0) & (uniform < 1)).all()):
        raise ValueError(
            f"uniform = {uniform.min():g} to {uniform.max():g} must lie in [0, 1), as torch.rand"
        )
    inner = edge_probabilities(num_windows).cumsum(0)[:-1]
    return torch.bucketize(uniform, inner.to(uniform), right=True)
