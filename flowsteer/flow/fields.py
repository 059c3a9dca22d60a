"""Velocity fields: what a sampler follows. Teacher, student and toy alike.

The exact field of a Gaussian mixture is here too, since it is a teacher without a network: its
paths are curved, its guidance overshoots, and every number about it can be checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsteer.flow.path import expand_time


class VelocityField(Protocol):
    """v(x, t, cond): the direction of dx/dt at time t."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """Evaluate at states x of shape (b, *d) and times t of shape (b,); result (b, *d)."""
        ...


def guided(field: VelocityField, guidance_scale: float | Tensor, uncond: Any) -> VelocityField:
    """Classifier-free guidance (Ho and Salimans, 2022): v_u + guidance_scale * (v_c - v_u).

    Both velocities come from one call on a batch twice as long, [uncond, cond].

    Args:
        field: the field to guide.
        guidance_scale: a number, or one per sample, shape (b,). The number 1 means no guidance
            and gives back `field` itself, at half the cost.
        uncond: the empty condition, of the same structure as the conditions: a tensor or a (named)
            tuple of tensors, each with batch b or 1.

    Returns:
        The guided field. It raises ValueError when called with a condition of another structure.
    """
    if not isinstance(guidance_scale, Tensor) and guidance_scale == 1:
        return field

    def guided_field(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        both = _concatenate(uncond, cond, x.shape[0])
        v_u, v_c = field(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return v_u + expand_time(guidance_scale, v_u) * (v_c - v_u)

    return guided_field


def _concatenate(uncond: Any, cond: Any, batch: int) -> Any:
    """Stack two conditions leaf by leaf; an uncond of batch 1 is repeated."""
    if isinstance(uncond, Tensor) and isinstance(cond, Tensor):
        if len(uncond) == 1:
            uncond = uncond.expand(batch, *uncond.shape[1:])
        if len(uncond) != batch or len(cond) != batch:
            raise ValueError(
                f"conditions for {len(uncond)} and {len(cond)} samples do not fit a batch of "
                f"{batch}: give one per sample (the empty one may also be single)"
            )
        return torch.cat([uncond.to(cond.device), cond])
    if isinstance(uncond, tuple) and isinstance(cond, tuple) and len(uncond) == len(cond):
        leaves = [_concatenate(u, c, batch) for u, c in zip(uncond, cond, strict=True)]
        return type(cond)(*leaves) if hasattr(cond, "_fields") else tuple(leaves)
    raise ValueError(
        f"cannot guide: the empty condition is a {type(uncond).__name__} and the condition a "
        f"{type(cond).__name__}; give both as tensors or as tuples of as many tensors"
    )


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Data that is a mixture of m isotropic Gaussians in d dimensions.

    Attributes:
        means: shape (m, d).
        std: standard deviation of each component, shape (m,); 0 makes it a point, whose velocity
            at t = 0 is undefined and given as -mean.
        weights: positive, shape (m,); they need not sum to 1.

    Raises:
        ValueError: if the shapes disagree, or a std or weight is out of range.
    """

    means: Tensor
    std: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        m = self.means.shape[:1]
        if self.means.ndim != 2 or self.std.shape != m or self.weights.shape != m:
            raise ValueError(
                f"means {tuple(self.means.shape)}, std {tuple(self.std.shape)} and weights "
                f"{tuple(self.weights.shape)} must have the shapes (m, d), (m,) and (m,)"
            )
        if not (bool((self.std >= 0).all()) and bool((self.weights > 0).all())):
            raise ValueError("std must not be negative, and weights must be positive")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n data points x_0, shape (n, d)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(
            n, self.means.shape[1], generator=generator, dtype=self.means.dtype, device=k.device
        )
        return self.means[k] + self.std[k, None] * noise

    @property
    def velocity(self) -> GaussianMixtureField:
        """The exact velocity field of the path from noise to this data."""
        return GaussianMixtureField(self)


@dataclass(frozen=True, eq=False)
class GaussianMixtureField:
    """The exact field E[eps - x_0 | x_t] of a Gaussian mixture, in closed form.

    With a = 1 - t, component k makes x_t ~ N(a mu_k, (a^2 s_k^2 + t^2) I), hence

        E[eps - x_0 | x_t, k] = (t - a s_k^2) / (a^2 s_k^2 + t^2) * (x_t - a mu_k) - mu_k,

    and the field is the mean of these under the posterior p(k | x_t). The condition is an int64
    tensor (b,) that names a component, or -1 for all of them; None means all.
    """

    mixture: GaussianMixture

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Velocity at x of shape (b, d) and t of shape (b,), in [0, 1]; result (b, d).

        Raises:
            ValueError: if `cond` names a component that does not exist.
        """
        means, std = self.mixture.means.to(x), self.mixture.std.to(x)
        offset, variance = self._spread(x, t)
        t = expand_time(t, x)[..., None]  # (b, 1, 1)
        v = (t - (1 - t) * std[:, None].square()) / variance * offset - means  # (b, m, d)
        posterior = self._log_joint(offset, variance, cond).softmax(1)  # (b, m)
        return (posterior[..., None] * v).sum(1)

    def log_density(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """log p(x_t = x) of the noised data, or of the component that `cond` names: (b,).

        Arguments and errors as in a call.
        """
        log_joint = self._log_joint(*self._spread(x, t), cond)
        left = log_joint > -torch.inf  # the components that the condition leaves
        log_weights = self.mixture.weights.to(x).log().masked_fill(~left, -torch.inf)
        constant = log_weights.logsumexp(1) + x.shape[-1] / 2 * math.log(2 * math.pi)
        return log_joint.logsumexp(1) - constant

    def _spread(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t less each component's mean, (b, m, d), and each one's variance, (b, m, 1)."""
        t = expand_time(t, x)[..., None]
        offset = x[:, None] - (1 - t) * self.mixture.means.to(x)
        variance = ((1 - t) * self.mixture.std.to(x)[:, None]).square() + t.square()
        # a point (std 0) at t = 0 would divide 0 by 0
        return offset, variance.clamp_min(torch.finfo(x.dtype).eps ** 2)

    def _log_joint(self, offset: Tensor, variance: Tensor, cond: Tensor | None) -> Tensor:
        """log p(x_t, k) up to a constant, shape (b, m); -inf where the condition excludes k."""
        d, m = offset.shape[-1], len(self.mixture.weights)
        distance = (offset.square() / variance).sum(-1)
        log_weights = self.mixture.weights.to(offset).log()
        log_joint = log_weights - distance / 2 - d / 2 * variance[..., 0].log()
        if cond is None:
            return log_joint
        if not bool(((cond >= -1) & (cond < m)).all()):
            raise ValueError(f"conditions are {cond.tolist()}: give -1 (all) to {m - 1}")
        excluded = (cond[:, None] >= 0) & (cond[:, None] != torch.arange(m, device=cond.device))
        return log_joint.masked_fill(excluded, -torch.inf)
