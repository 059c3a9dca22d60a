"""A network in training: its parameters, losses and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowsteer.training.config import TrainingConfig

Losses = Callable[[int, int], Iterable[Tensor]]
"""(step, micro-step) -> losses; each is backpropagated before the next is computed."""


class Player:
    """One of the networks that a run trains; an adversarial one has two.

    Args:
        model: only parameters with `requires_grad` are trained.
        losses: of a step.
        learning_rate: its peak.
        config: optimiser and accumulation.
        accelerator: device and processes.
        prefix: of its files in a checkpoint.

    Raises:
        ValueError: if the model has nothing to train.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        learning_rate: float,
        config: TrainingConfig,
        accelerator: Accelerator,
        prefix: str = "",
    ):
        self.losses, self.config, self.accelerator = losses, config, accelerator
        self.learning_rate, self.prefix = learning_rate, prefix
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no parameter with requires_grad; nothing to train")
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            fused=accelerator.device.type == "cuda",
        )

    def accumulate(self, step: int, micro_step: int) -> Tensor:
        """Backpropagate one micro-step; its loss, without waiting for the device."""
        total = torch.zeros((), device=self.accelerator.device)
        for loss in self.losses(step, micro_step):
            (loss / self.config.gradient_accumulation_steps).backward()
            total += loss.detach().float() / self.config.gradient_accumulation_steps
        return total

    def update(self, pace: float) -> Tensor:
        """One optimiser step at `pace` times the peak learning rate; the gradients' norm before."""
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * pace
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # a recorded gradient adds where it lies
        return norm

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """What a checkpoint holds of it, by file stem."""
        moments = {
            f"{name}.{key}": self.optimizer.state[parameter][key]
            for name, parameter in self.parameters.items()
            for key in ("exp_avg", "exp_avg_sq")
            if parameter in self.optimizer.state
        }
        return {f"{self.prefix}model": self.parameters, f"{self.prefix}optimizer": moments}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], step: int, folder: Path) -> None:
        """Take over what `tensors` gave at a step.

        Args:
            tensors: of a checkpoint.
            step: it is of.
            folder: the checkpoint's, for messages.

        Raises:
            ValueError: naming the file that holds another network's.
        """
        model, stem = tensors.get(f"{self.prefix}model", {}), f"{self.prefix}optimizer"
        check_like(model, self.parameters, folder / f"{self.prefix}model.safetensors")
        for name, parameter in self.parameters.items():
            parameter.copy_(model[name])
        self._load_moments(tensors.get(stem, {}), step, folder / f"{stem}.safetensors")

    def _load_moments(self, moments: Mapping[str, Tensor], step: int, file: Path) -> None:
        device = self.accelerator.device
        # fused AdamW keeps its counter on the parameter's device
        where = device if device.type == "cuda" else "cpu"
        expected = {
            f"{name}.{key}": parameter
            for name, parameter in self.parameters.items()
            for key in ("exp_avg", "exp_avg_sq")
            if f"{name}.exp_avg" in moments  # a parameter without a gradient has none
        }
        check_like(moments, expected, file)
        for name, parameter in self.parameters.items():
            if f"{name}.exp_avg" not in moments:
                continue
            if (moments[f"{name}.exp_avg_sq"] < 0).any():
                raise ValueError(f"{file}: {name}.exp_avg_sq is below 0; use another checkpoint")
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=where),
                "exp_avg": moments[f"{name}.exp_avg"].to(device),
                "exp_avg_sq": moments[f"{name}.exp_avg_sq"].to(device),
            }

    def _average_gradients(self) -> None:
        """One all-reduce a step, however many losses were backpropagated."""
        if self.accelerator.num_processes == 1:
            return
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        flat = self.accelerator.reduce(flat, reduction="mean")
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


def check_like(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Make sure that a checkpoint's file holds tensors of the right names, shapes and dtypes.

    Raises:
        ValueError: naming the file and the first that differs.
    """
    differing = found.keys() ^ expected.keys() or {
        name
        for name, tensor in found.items()
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype)
    }
    if differing:
        raise ValueError(
            f"{file} holds other parameters than this run trains ({min(differing)}): resume with"
            " the settings of the run that wrote it (rank, critic), or start in another"
            " --output_dir"
        )


def find_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first name whose tensor is not finite, or None; waits for the device once."""
    if not tensors:
        return None
    fine = torch.stack([tensor.detach().isfinite().all() for tensor in tensors.values()]).tolist()
    return next((name for name, good in zip(tensors, fine, strict=True) if not good), None)
