"""What accelerate's launcher says in the environment is what a run does, or refuses by name."""

import pytest

from flowsteer.training import TrainingConfig
from flowsteer.training.distillation_config import DistillationConfig


@pytest.mark.parametrize(
    ("flag", "launched", "precision"),
    [
        (None, None, "no"),
        (None, "no", "no"),
        (None, "bf16", "bf16"),
        (None, "BF16", "bf16"),
        ("bf16", None, "bf16"),
        ("bf16", "no", "bf16"),  # what the launcher says when it was told nothing
        ("bf16", "bf16", "bf16"),
        ("no", "no", "no"),
    ],
)
def test_precision_is_the_flag_s_or_the_launcher_s(monkeypatch, flag, launched, precision):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert DistillationConfig(mixed_precision=flag).mixed_precision == precision


@pytest.mark.parametrize("flag", [None, "no", "bf16"])
@pytest.mark.parametrize("launched", ["fp16", "fp8", "half"])
def test_precisions_that_need_loss_scaling_are_refused(monkeypatch, flag, launched):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    with pytest.raises(ValueError, match=f"ACCELERATE_MIXED_PRECISION = '{launched}'"):
        TrainingConfig("out", max_train_steps=1, mixed_precision=flag)


def test_a_flag_against_the_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match=r"mixed_precision = 'no', but the launcher says bf16"):
        DistillationConfig(mixed_precision="no")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", "does not train with FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "does not train with DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "a parallelism config"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "give --compile instead"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "give --gradient_accumulation_steps 4"),
    ],
)
def test_what_a_run_would_leave_undone_is_refused(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message) as error:
        DistillationConfig()
    assert variable in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_USE_FSDP", "false"),
        ("ACCELERATE_DYNAMO_BACKEND", "no"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "auto"),
    ],
)
def test_what_the_launcher_sets_by_itself_is_no_demand(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert DistillationConfig().gradient_accumulation_steps == 1


def test_accumulation_that_both_name_is_fine(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert DistillationConfig(gradient_accumulation_steps=4).gradient_accumulation_steps == 4
