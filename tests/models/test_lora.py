"""Merged products are peft's own function, and stay off layers too wide for them."""

import copy

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from peft import LoraConfig, inject_adapter_in_model

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.models.lora import (
    MERGE_BELOW,
    add_lora,
    load_lora,
    merge_lora,
    run_merged,
    save_lora,
)


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


def dual_transformer():
    """SD3.5's kind: the first of two blocks has a second attention, on the image alone."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return transformer


def adapted(transformer):
    return {
        name.split(".lora_A")[0] for name, _ in transformer.named_parameters() if "lora_A" in name
    }


def test_both_attentions_of_a_dual_block_are_adapted():
    transformer = dual_transformer()
    add_lora(transformer, 2)
    second = {name for name in adapted(transformer) if ".attn2." in name}
    parts = ("to_q", "to_k", "to_v", "to_out.0")
    assert second == {f"transformer_blocks.0.attn2.{part}" for part in parts}
    linear = {
        name.removesuffix(".base_layer")
        for name, layer in transformer.transformer_blocks.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora_" not in name
    }
    assert adapted(transformer) == {f"transformer_blocks.{name}" for name in linear}


@torch.no_grad()
def test_a_dual_student_s_file_is_the_student_in_stock_diffusers_and_here(tmp_path):
    """Every adapter has a part in the answer, and survives the file to the last bit."""
    student, stock, ours = (dual_transformer() for _ in range(3))
    config = add_lora(student, rank=2, alpha=6.0)
    for name, parameter in student.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
            parameter.copy_(parameter.bfloat16())  # as the file keeps it
    save_lora(student, config, tmp_path)
    pipe = StableDiffusion3Pipeline(stock, FlowMatchEulerDiscreteScheduler(), *[None] * 7)
    pipe.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    add_lora(ours, rank=2, alpha=6.0)
    load_lora(ours, tmp_path / "pytorch_lora_weights.safetensors")
    inputs = {
        "hidden_states": torch.randn(2, 16, 8, 8),
        "timestep": torch.tensor([900.0, 300.0]),
        "encoder_hidden_states": torch.randn(2, 3, 16),
        "pooled_projections": torch.randn(2, 16),
    }
    expected = student(**inputs).sample
    assert not torch.allclose(dual_transformer()(**inputs).sample, expected, rtol=0.01)
    torch.testing.assert_close(stock(**inputs).sample, expected, rtol=0, atol=0)
    torch.testing.assert_close(ours(**inputs).sample, expected, rtol=0, atol=0)
