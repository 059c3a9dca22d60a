"""What a run was set to, kept in its checkpoints, and what a resumed one may change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flowsteer.training.config import TrainingConfig

FUNCTION = frozenset(
    {"method", "rank", "lora_alpha", "num_windows", "grid", "mixed_precision", "size"}
    | {"adversarial", "adversarial_loss"}
    | {f"critic_{name}" for name in ("depth", "training", "heads", "logits", "states")}
)
"""Flags that decide what the networks compute, or what they are taught to."""
FREE = frozenset(
    {
        "preset",
        "output_dir",
        "resume_from_checkpoint",
        "checkpointing_steps",
        "checkpoints_total_limit",
    }
    | {"report_to", "logging_steps", "validation_steps", "num_validation_images"}
    | {"dataloader_num_workers", "gradient_checkpointing", "offload_text_encoders", "device"}
    # the weights and texts themselves are compared, wherever they lie
    | {"pretrained_model_name_or_path", "student", "start", "vae", "prompt_cache"}
    | {"prompts", "train_data_dir", "preset"}
)
"""Flags that change no number, or whose content is compared instead."""
LENGTHS = ("max_train_steps", "max_train_seconds")
FINGERPRINT_VALUES = 64


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of a run by flag, as JSON can hold them.

    Args:
        function: of what the networks compute; a resumed run must have the same.
        path: of how they get there: a resumed run goes on with others, and says so.
    """

    function: Mapping[str, Any]
    path: Mapping[str, Any]

    @classmethod
    def of(cls, config: TrainingConfig) -> RunSettings:
        """Those that the flags tell; what is loaded tells more."""
        values = dataclasses.asdict(config)
        if "lora_alpha" in values and values["lora_alpha"] is None:
            values["lora_alpha"] = values["rank"]
        if "num_windows" in values:
            values["num_windows"] = config.windows  # type: ignore[attr-defined]
        if "adversarial" in values:
            values["adversarial"] = config.uses_critic  # type: ignore[attr-defined]
            if not values["adversarial"]:
                critics = [n for n in FUNCTION if n.startswith("critic_")]
                for name in (*critics, "adversarial_loss"):
                    del values[name]
        return cls(
            _json({name: value for name, value in values.items() if name in FUNCTION}),
            _json({n: v for n, v in values.items() if n not in FUNCTION | FREE}),
        )

    def adding(
        self, function: Mapping[str, Any] | None = None, path: Mapping[str, Any] | None = None
    ) -> RunSettings:
        """With what loading has told."""
        return RunSettings(
            {**self.function, **_json(function or {})}, {**self.path, **_json(path or {})}
        )

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps them."""
        return dataclasses.asdict(self)

    def check_function(self, saved: Any, checkpoint: str) -> None:
        """Make sure that the networks of a checkpoint compute what this run's do.

        Args:
            saved: `to_json` of the run that wrote it; None in old checkpoints.
            checkpoint: its name, for the message.

        Raises:
            ValueError: naming every flag that differs and both values.
        """
        there = _part(saved, "function", checkpoint)
        found = [
            f"{name} = {_show(value)} (it has {_show(there[name])})"
            for name, value in self.function.items()
            if name in there and not _same(value, there[name])
        ]
        if found:
            raise ValueError(
                f"{checkpoint} is of a run with other settings than {', '.join(found)}: resume it"
                " with its own, or start a new run in another --output_dir"
            )

    def warn_of_path(self, saved: Any, checkpoint: str) -> None:
        """Say in one line what this run does otherwise than the one that it goes on from."""
        if saved is None:
            warnings.warn(
                f"{checkpoint} does not say its settings (an older flowsteer wrote it); make sure"
                " that yours are the same",
                stacklevel=2,
            )
            return
        there = _part(saved, "path", checkpoint)
        changed = [
            f"{name} = {_show(value)} (was {_show(there[name])})"
            for name, value in self.path.items()
            if name in there
            and not _same(value, there[name])
            # a longer run is what one resumes for
            and not (name in LENGTHS and _at_least(value, there[name]))
        ]
        if changed:
            warnings.warn(
                f"going on from {checkpoint} with other settings: {', '.join(changed)}; the result"
                " is not that of one run",
                stacklevel=2,
            )


def fingerprint(modules: Iterable[nn.Module | None]) -> str:
    """Tells networks of one shape apart: a hash over some values of every weight.

    Args:
        modules: None among them is passed over.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()) if module is not None else ():
            name = name.replace("_orig_mod.", "")  # of a compiled network
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(_some_values(tensor).numpy().tobytes())
    return digest.hexdigest()[:12]


def texts_fingerprint(texts: Iterable[str]) -> str:
    """A count and a hash of prompts."""
    digest, count = hashlib.sha256(), 0
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
        count += 1
    return f"{count} ({digest.hexdigest()[:8]})"


def _some_values(tensor: Tensor) -> Tensor:
    """Evenly spaced values, float32, on the CPU."""
    flat = tensor.detach().reshape(-1)
    if flat.numel() > FINGERPRINT_VALUES:
        where = torch.linspace(0, flat.numel() - 1, FINGERPRINT_VALUES, dtype=torch.float64)
        flat = flat[where.long().to(flat.device)]
    return flat.float().cpu()


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values, default=str))


def _part(saved: Any, part: str, checkpoint: str) -> Mapping[str, Any]:
    if saved is None:
        return {}
    found = saved.get(part) if isinstance(saved, dict) else None
    if not isinstance(found, dict):
        raise ValueError(
            f"{checkpoint}/checkpoint.json: its settings have no {part!r}; use another"
        )
    return found


def _same(one: Any, other: Any) -> bool:
    """Of what is loaded from somewhere, [where, fingerprint], the fingerprint counts."""
    pairs = all(isinstance(value, list) and len(value) == 2 for value in (one, other))
    if pairs and all(isinstance(value[1], str) for value in (one, other)):
        return one[1] == other[1]
    return one == other


def _at_least(value: Any, before: Any) -> bool:
    if value is None:
        return True
    return isinstance(before, int | float) and value >= before


def _show(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str):
        return f"{value[0]} with weights {value[1]}"
    if value is None:
        return "None"
    text = json.dumps(value, ensure_ascii=False)
    return text.strip('"') if len(text) <= 100 else text[:97] + "..."
