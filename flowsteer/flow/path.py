"""The straight path between noise and data, and the ways to read a point on it.

Times run from t = 1 (noise) to t = 0 (data), as in diffusers and SD3 (Esser et al., 2024):

    x_t = (1 - t) * x_0 + t * eps,        v = dx_t / dt = eps - x_0.

Any two of (x_0, eps, x_t, v) and the time give the other two. A time is a number, a 0-d tensor
or one value per sample, shape (b,). Results keep at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

Time = float | Tensor


def time_like(t: Time, like: Tensor) -> Tensor:
    """A time as a tensor on the device of `like`, in its dtype, but never below float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if isinstance(t, int | float):  # made where it is needed: copying it to a GPU waits for that
        return torch.full((), t, device=like.device, dtype=dtype)
    return torch.as_tensor(t, device=like.device, dtype=dtype)


def expand_time(t: Time, like: Tensor) -> Tensor:
    """Give a time the number of dimensions of `like`, so that it multiplies sample by sample.

    Args:
        t: a number, a 0-d tensor, or one value per sample, shape (b,).
        like: the tensor to match, shape (b, *d).

    Returns:
        Shape (b, 1, ..., 1), or (1, 1, ..., 1) for one common time; on the device of `like`;
        its dtype is that of `like`, but never below float32.

    Raises:
        ValueError: if `t` is neither a scalar nor of length b.
    """
    t = time_like(t, like)
    if t.ndim > 0 and t.shape != like.shape[:1]:
        raise ValueError(
            f"a time of shape {tuple(t.shape)} does not fit samples of shape {tuple(like.shape)}: "
            f"give one number, or one per sample, shape ({like.shape[0]},)"
        )
    return t.reshape(-1, *[1] * (like.ndim - 1))


def interpolate(x_0: Tensor, eps: Tensor, t: Time) -> Tensor:
    """Point on the straight path: x_t = (1 - t) * x_0 + t * eps. Shapes (b, *d)."""
    t = expand_time(t, x_0)
    return (1 - t) * x_0 + t * eps


def velocity(x_0: Tensor, eps: Tensor) -> Tensor:
    """Velocity of the straight path: v = eps - x_0, the same at every time. Shapes (b, *d)."""
    return eps - x_0


def x0_from_velocity(x_t: Tensor, v: Tensor, t: Time) -> Tensor:
    """Where the straight line through x_t with velocity v meets t = 0: x_0 = x_t - t * v."""
    return x_t - expand_time(t, x_t) * v


def eps_from_velocity(x_t: Tensor, v: Tensor, t: Time) -> Tensor:
    """Where the straight line through x_t with velocity v meets t = 1: eps = x_t + (1 - t) * v."""
    return x_t + (1 - expand_time(t, x_t)) * v


def velocity_from_x0(x_t: Tensor, x_0: Tensor, t: Time) -> Tensor:
    """Velocity of the straight line from x_0 at time 0 to x_t at time t > 0: (x_t - x_0) / t."""
    return (x_t - x_0) / expand_time(t, x_t)


def mean_velocity(x_hi: Tensor, x_lo: Tensor, t_hi: Time, t_lo: Time) -> Tensor:
    """Slope of the chord of a window: (x_lo - x_hi) / (t_lo - t_hi). Shapes (b, *d).

    It is the velocity with which one Euler step from t_hi lands exactly on x_lo.
    """
    return (x_lo - x_hi) / (expand_time(t_lo, x_hi) - expand_time(t_hi, x_hi))


def chord_point(x_hi: Tensor, v: Tensor, t_hi: Time, t: Time) -> Tensor:
    """Point at time t on the chord that leaves x_hi at t_hi: x_hi + (t - t_hi) * v."""
    return x_hi + (expand_time(t, x_hi) - expand_time(t_hi, x_hi)) * v
