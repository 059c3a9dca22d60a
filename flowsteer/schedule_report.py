"""A plain-text table of the stock and the rectified time grid, side by side."""

from __future__ import annotations

from torch import Tensor

from flowsteer.flow.grids import format_grid, rectified_grid, stock_grid


def schedule_report(shift: float, steps: int) -> str:
    """Print both grids, the size of every step, and what the last call covers.

    Args:
        shift: positive number; SD3 uses 3.
        steps: network calls, at least 1.

    Returns:
        Lines of fewer than 90 characters, without a final newline.

    Raises:
        ValueError: if `shift` or `steps` is out of range.
    """
    stock, rectified = stock_grid(steps, shift), rectified_grid(steps, shift)
    rows = [
        f"{call + 1:>4}   {_step(stock, call)}   {_step(rectified, call)}" for call in range(steps)
    ]
    return "\n".join(
        [
            f"Time grids for shift {shift:g}, {steps} {'step' if steps == 1 else 'steps'} "
            "(t = 1 is noise, t = 0 is data)",
            "",
            f"{'':4}   {'stock':<25}   rectified",
            f"call   {_HEADER}   {_HEADER}",
            *rows,
            "",
            f"The last call covers {_last_step(stock)} of the path on the stock grid, "
            f"{_last_step(rectified)} on the rectified one.",
            f"The rectified grid in stock diffusers: sigmas={_unshifted_sigmas(steps)}",
        ]
    )


_HEADER = f"{'from':>6}    {'to':>6}   {'size':>6}"


def _step(grid: Tensor, call: int) -> str:
    t_hi, t_lo = grid[call].item(), grid[call + 1].item()
    return f"{t_hi:.4f} -> {t_lo:.4f}   {t_hi - t_lo:.4f}"


def _last_step(grid: Tensor) -> str:
    return f"{grid[-2].item():.1%}"


def _unshifted_sigmas(steps: int) -> str:
    """What to pass to a stock pipeline: the numbers where four decimals are exact, else how."""
    if steps in (1, 2, 4, 5, 8):
        return format_grid(rectified_grid(steps)[:-1])
    return f"[1 - k / {steps} for k in range({steps})]"
