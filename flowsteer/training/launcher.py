"""What accelerate's launcher says in the environment: kept, or refused by name."""

from __future__ import annotations

import os

PRECISION = "ACCELERATE_MIXED_PRECISION"
ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
COMPILER = "ACCELERATE_DYNAMO_BACKEND"
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""Variables that ask for another training engine than one copy of the model a process."""


def chosen_precision(flag: str | None) -> str:
    """The precision of a run: the flag's or, without one, the launcher's.

    The launcher says "no" when it was told nothing, so a flag of bf16 is no contradiction to that.

    Args:
        flag: "no" or "bf16"; None if it was not given.

    Raises:
        ValueError: if the launcher says what we cannot do, or bf16 where the flag says no.
    """
    launched = os.environ.get(PRECISION, "").lower() or "no"
    if launched not in ("no", "bf16"):
        raise ValueError(
            f"{PRECISION} = {launched!r}: training has no loss scaling, so it runs in bf16 or"
            " float32 alone; launch with --mixed_precision bf16 or no"
        )
    if flag == "no" and launched == "bf16":
        raise ValueError(
            f"mixed_precision = 'no', but the launcher says bf16 ({PRECISION}); leave out one"
        )
    return flag or launched


def check_launcher(gradient_accumulation_steps: int) -> None:
    """Make sure that the launcher asks for nothing that a run would leave undone.

    Args:
        gradient_accumulation_steps: the run's.

    Raises:
        ValueError: naming the variable and what to do.
    """
    for variable, engine in ENGINES.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise ValueError(
                f"{variable} is set: flowsteer does not train with {engine}; launch one process a"
                " GPU without it"
            )
    if os.environ.get(COMPILER, "").lower() not in ("", "no"):
        raise ValueError(
            f"{COMPILER} = {os.environ[COMPILER]!r} compiles nothing here; give --compile instead"
        )
    launched = os.environ.get(ACCUMULATION, "")
    if launched not in ("", "1", "auto", str(gradient_accumulation_steps)):
        raise ValueError(
            f"{ACCUMULATION} = {launched!r}, but the run has gradient_accumulation_steps ="
            f" {gradient_accumulation_steps}; give --gradient_accumulation_steps {launched}"
        )
