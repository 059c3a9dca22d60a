"""Merged products are peft's own function, and stay off layers too wide for them."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.models.lora import MERGE_BELOW, add_lora, merge_lora, run_merged


@pytest.fixture
def pipe():
    pipe = fold_pipeline(build_pipeline("tiny", seed=3))
    torch.manual_seed(0)
    add_lora(pipe.transformer, rank=4, alpha=8.0)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():  # adapters and zero-initialised parts hide what is compared
            torch.nn.init.normal_(parameter, std=0.1)
    return pipe.to(torch.float64)


def velocity(pipe, transformer):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 16, 16, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.9, 0.4], dtype=torch.float64)
    return SD3Field(transformer)(x, t, encode_prompts(pipe, ["koala", "two foxes"]))


def test_merged_products_and_their_gradients_are_peft_s(pipe):
    plain, merged = pipe.transformer, copy.deepcopy(pipe.transformer)
    run_merged(merged)
    results = [velocity(pipe, transformer) for transformer in (plain, merged)]
    for result in results:
        result.square().mean().backward()
    torch.testing.assert_close(results[1], results[0])
    pairs = zip(plain.named_parameters(), merged.named_parameters(), strict=True)
    for (name, expected), (_, found) in pairs:
        assert expected.requires_grad is found.requires_grad is ("lora_" in name)
        torch.testing.assert_close(found.grad, expected.grad)


def test_a_copy_of_merged_layers_uses_its_own_weights(pipe):
    run_merged(pipe.transformer)
    before = velocity(pipe, pipe.transformer)
    twin = copy.deepcopy(pipe.transformer)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert not torch.allclose(velocity(pipe, twin), before)
    torch.testing.assert_close(velocity(pipe, pipe.transformer), before)


@pytest.mark.parametrize(
    ("width", "merges"), [(4 * MERGE_BELOW, True), (4 * MERGE_BELOW + 1, False)]
)
def test_only_layers_that_are_narrow_beside_the_rank_run_merged(width, merges):
    network = torch.nn.ModuleDict({"proj": torch.nn.Linear(width, 2 * width)})
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["proj"]), network)
    run_merged(network)
    assert ("forward" in vars(network["proj"])) is merges


def test_a_merged_network_has_no_adapters_and_is_the_same_function(pipe):
    expected = velocity(pipe, pipe.transformer)
    merge_lora(pipe.transformer)
    assert not any("lora_" in name for name, _ in pipe.transformer.named_parameters())
    torch.testing.assert_close(velocity(pipe, pipe.transformer), expected)
