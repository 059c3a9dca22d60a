"""What a LoRA file adds to a network is what peft's adapters add; all else is refused by name."""

import json
import shutil

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from flowsteer.models.lora import add_lora, load_lora
from flowsteer.models.lora_files import SETTINGS
from flowsteer.models.lora_updates import merge_updates, read_updates
from flowsteer.students import LORA_FILE
from flowsteer.untrusted import read_header

LAYER = "transformer_blocks.0.attn.to_q"
A, B = (f"transformer.{LAYER}.lora_{matrix}.weight" for matrix in "AB")


@pytest.fixture
def transformer(tiny_folder):
    return SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")


def write(transformer, folder, **config):
    """A LoRA with random weights, written as trainers write it."""
    lora = LoraConfig(
        **{"r": 4, "lora_alpha": 8.0, "target_modules": ["attn.to_q", "ff.net.2"]} | config
    )
    transformer.add_adapter(lora)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    StableDiffusion3Pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=lora.to_dict(),
    )
    return folder / LORA_FILE


def merged_by_peft(transformer):
    transformer.fuse_lora()
    transformer.unload_lora()
    return transformer.state_dict()


def rewrite(file, change=lambda weights: None, settings=None, metadata=None):
    """Change weights, adapter settings (False: none left) and other metadata of a LoRA file."""
    weights, old = load_file(file), dict(read_header(file).metadata)
    change(weights)
    if settings is False:
        del old[SETTINGS]
    elif settings:
        prefixed = {f"transformer.{name}": value for name, value in settings.items()}
        old[SETTINGS] = json.dumps(json.loads(old[SETTINGS]) | prefixed)
    save_file(weights, file, old | (metadata or {}))
    return file


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lora_alpha": 1.5},
        {"rank_pattern": {"attn.to_q": 2}},
        {"rank_pattern": {"attn.to_q": 2}, "alpha_pattern": {"ff.net.2": 3.0}},
        {"alpha_pattern": {"^transformer_blocks.1.attn.to_q": 3.0}},
        {"use_rslora": True},
    ],
)
def test_it_is_the_sum_that_peft_makes(transformer, tmp_path, config):
    plain = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    file = write(transformer, tmp_path, **config)
    expected = merged_by_peft(transformer)
    transformer.load_state_dict(plain)
    merge_updates(transformer, read_updates(file))
    found = transformer.state_dict()
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found[f"{LAYER}.weight"], plain[f"{LAYER}.weight"])


def test_the_scale_is_said_by_any_of_three(transformer, tmp_path):
    file = write(transformer, tmp_path)
    assert read_updates(file)[LAYER].scale == 2.0
    rewrite(file, settings=False)
    assert read_updates(file, rank=4, alpha=8.0)[LAYER].scale == 2.0
    assert read_updates(file, rank=4)[LAYER].scale == 1.0  # alpha = rank, as add_lora has it
    with pytest.warns(UserWarning, match="says no alpha") as caught:
        assert read_updates(file)[LAYER].scale == 1.0
    assert len(caught) == 1 and "\n" not in str(caught[0].message)

    def add_alphas(weights):
        for name in [name for name in weights if name.endswith("lora_A.weight")]:
            weights[name.replace("lora_A.weight", "alpha")] = torch.tensor(6.0)

    rewrite(file, add_alphas)
    assert {update.scale for update in read_updates(file).values()} == {1.5}
    assert read_updates(file, rank=4, alpha=6.0)[LAYER].scale == 1.5
    with pytest.raises(ValueError, match="different scales for transformer_blocks"):
        read_updates(file, rank=4, alpha=8.0)


def test_one_who_contradicts_is_refused(transformer, tmp_path):
    file = write(transformer, tmp_path)
    with pytest.raises(ValueError, match=r"lora_alpha = 8.0, its student's flowsteer.json 4.0"):
        read_updates(file, rank=4, alpha=4.0)
    with pytest.raises(ValueError, match=r"lora_rank = 4, its student's flowsteer.json 2"):
        read_updates(file, rank=2, alpha=8.0)
    rewrite(file, settings=False)
    with pytest.raises(ValueError, match=r"rank 4 at .*flowsteer.json says 2"):
        read_updates(file, rank=2, alpha=8.0)


def rename(old, new):
    def change(weights):
        for name in list(weights):
            if old in name:
                weights[name.replace(old, new)] = weights.pop(name)

    return change


@pytest.mark.parametrize(
    ("change", "settings", "metadata", "problem"),
    [
        (rename("transformer.", "text_encoder."), None, None, "changes a text encoder"),
        (
            rename("transformer.transformer_blocks.0.", "text_encoder_2.0."),
            None,
            None,
            "text encoder",
        ),
        (rename("transformer.", "unet."), None, None, r"holds unet|holds 'unet"),
        (rename("transformer.", "lora_transformer_"), None, None, "save_lora_weights of diffusers"),
        (rename("transformer.", "base_model.model."), None, None, "save_lora_weights of diffusers"),
        (rename(".lora_A.", ".lora_down."), None, None, "one matrix of its two|lora_down"),
        (rename(".lora_A.", ".lora.down."), None, None, "one matrix of its two|lora.down"),
        (lambda w: w.update(x=torch.ones(1)), None, None, "holds 'x'"),
        (lambda w: w.clear(), False, None, "no layer of the transformer"),
        (lambda w: w.update({A: torch.ones(4)}), False, None, "lacks one of the two matrices"),
        (lambda w: None, {"use_dora": True}, None, "use_dora, which is no plain LoRA"),
        (lambda w: None, {"alpha_pattern": {"(a+)+": 1.0}}, None, "which must name layers"),
        (lambda w: None, {"base_model_name_or_path": "FLUX.1-dev"}, None, "model 'FLUX.1-dev'"),
        (
            lambda w: None,
            {"auto_mapping": {"base_model_class": "FluxTransformer2DModel"}},
            None,
            "FluxTransformer2DModel",
        ),
        (lambda w: None, None, {"modelspec.architecture": "flux-1-dev/lora"}, "another family"),
        (lambda w: None, None, {"ss_base_model_version": "sdxl_base_v1-0"}, "another family"),
    ],
)
def test_other_files_are_refused_in_one_line(
    transformer, tmp_path, change, settings, metadata, problem
):
    file = rewrite(write(transformer, tmp_path), change, settings, metadata)
    with pytest.raises(ValueError, match=problem) as caught:
        read_updates(file, base_models=("emoji", "taught/by"))
    assert LORA_FILE in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_name_this_family_and_model_are_taken(transformer, tmp_path):
    file = rewrite(
        write(transformer, tmp_path),
        settings={
            "base_model_name_or_path": "taught/by",
            "auto_mapping": {"base_model_class": "SD3Transformer2DModel"},
        },
        metadata={"modelspec.architecture": "stable-diffusion-v3-medium/lora"},
    )
    assert LAYER in read_updates(file, base_models=("emoji", "taught/by"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rename("transformer_blocks.0.attn", "transformer_blocks.99.attn"), "blocks.99.attn.to_q"),
        (rename("transformer_blocks.0.", "single_transformer_blocks.0."), "single_transformer"),
        (rename(LAYER, "transformer_blocks.0.attn"), "no layer of this network that can"),
        (rename(LAYER, "pos_embed.proj"), "pos_embed.proj, which is no layer"),
        (lambda w: w.update({A: w[A][:, :-1].contiguous()}), "do not fit the"),
        (lambda w: w.update({B: torch.cat([w[B], w[B]])}), "do not fit the"),
        (lambda w: w.update({B: w[B][:, :2].contiguous()}), "do not fit the"),
    ],
)
def test_a_network_that_lacks_them_stays_as_it_is(transformer, tmp_path, change, problem):
    file = rewrite(write(transformer, tmp_path), change)
    transformer.unload_lora()
    before = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    with pytest.raises(ValueError, match=problem) as caught:
        merge_updates(transformer, read_updates(file))
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(transformer.state_dict(), before, atol=0, rtol=0)


def test_weights_below_adapters_and_compilers_are_found(transformer, tmp_path):
    file = write(transformer, tmp_path)
    updates = read_updates(file)
    base = transformer.get_submodule(LAYER).get_base_layer().weight
    expected = base + updates[LAYER].scale * updates[LAYER].up @ updates[LAYER].down
    merge_updates(torch.compile(transformer, backend="eager"), updates)
    torch.testing.assert_close(base, expected)


def test_half_precision_is_rounded_once(transformer, tmp_path):
    file = write(transformer, tmp_path)
    transformer.unload_lora()
    updates, weight = read_updates(file), transformer.get_submodule(LAYER).weight.detach().clone()
    merge_updates(transformer.to(torch.bfloat16), updates)
    update = updates[LAYER].scale * updates[LAYER].up @ updates[LAYER].down
    expected = (weight.bfloat16().float() + update).bfloat16()
    assert torch.equal(transformer.get_submodule(LAYER).weight, expected)


def test_training_goes_on_from_a_file_by_the_same_rules(tiny_folder, lora_student, tmp_path):
    file = shutil.copytree(lora_student, tmp_path / "student") / LORA_FILE
    teacher = SD3Transformer2DModel.from_pretrained(tiny_folder, subfolder="transformer")
    add_lora(teacher, rank=4, alpha=8.0)
    load_lora(teacher, file)
    layer = teacher.get_submodule(LAYER)
    assert torch.equal(layer.lora_A["default"].weight, load_file(file)[A].float())
    rewrite(file, settings={"lora_alpha": 4.0})
    with pytest.raises(ValueError, match=r"lora_alpha = 4.0, its student's flowsteer.json 8.0"):
        load_lora(teacher, file)
