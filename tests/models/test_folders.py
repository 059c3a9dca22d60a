"""A pipeline's folder is refused for what it claims, before anything is built from it."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsteer.cli import main
from flowsteer.models.folders import (
    check_network_folder,
    check_pipeline_folder,
    check_pipeline_values,
)

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny pipeline, to be spoilt."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def put(folder, file, **values):
    """Change values of a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        check_pipeline_folder(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and len(message) < 600


def test_whole_folders_pass(tiny_folder, full_student):
    check_pipeline_folder(tiny_folder)
    assert check_network_folder(full_student / "transformer")["num_layers"] == 2


def test_a_pipeline_of_another_family_is_left_to_its_loader(folder):
    put(folder, "model_index.json", _class_name="FluxPipeline", transformer=["x", "y"])
    check_pipeline_folder(folder)


T, V, E = "transformer/config.json", "vae/config.json", "text_encoder/config.json"
S, TOKENS = "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"
LIES = [
    (T, {"num_layers": 10**7}, "num_layers = 10000000"),
    (T, {"num_layers": 10**6}, "more than the [0-9]+ weights beside it"),
    (T, {"num_layers": 1}, "does not fit the weights beside it: 'transformer_blocks"),
    (T, {"num_layers": 3}, "does not fit the weights"),
    (T, {"num_layers": "2"}, "num_layers = '2' must be a whole number"),
    (T, {"num_layers": 0}, "num_layers = 0 must be"),
    (T, {"num_attention_heads": 10**6}, "does not fit the weights"),
    (T, {"num_attention_heads": None}, "describes no SD3Transformer2DModel"),
    (T, {"attention_head_dim": 10**6, "num_attention_heads": 10**6}, "describes no|not fit"),
    (T, {"patch_size": 0}, "patch_size = 0 must be"),
    (T, {"patch_size": 4}, "does not fit the weights"),
    (T, {"sample_size": 0}, "sample_size = 0 must be"),
    (T, {"sample_size": -1}, "sample_size = -1 must be"),
    (T, {"sample_size": 10**5}, "sample_size = 100000 must be a whole number from 2 to 16"),
    (T, {"sample_size": 15}, "sample_size = 15 must be a multiple of patch_size = 2"),
    (T, {"pos_embed_max_size": 10**6}, "pos_embed_max_size = 1000000 must be"),
    (T, {"pos_embed_max_size": 4096}, "'pos_embed.pos_embed' would be"),
    (T, {"dual_attention_layers": [0]}, "does not fit the weights"),
    (T, {"dual_attention_layers": list(range(10**5))}, "100,000 values"),
    (T, {"qk_norm": None}, "which also have"),
    (T, {"qk_norm": "evil"}, "describes no SD3"),
    (T, {"_class_name": "FluxTransformer2DModel"}, "describes 'FluxTransformer2DModel', and SD3"),
    (V, {"scaling_factor": None}, "scaling_factor = None must be a number"),
    (V, {"scaling_factor": 0}, "scaling_factor = 0 must"),
    (V, {"scaling_factor": "1.5"}, "scaling_factor = '1.5'"),
    (V, {"shift_factor": [1]}, r"shift_factor = \[1\]"),
    (V, {"sample_size": 10**9}, "sample_size = 1000000000"),
    (V, {"layers_per_block": 10**6}, "more than the"),
    (V, {"block_out_channels": [10**6] * 4}, "does not fit|describes no"),
    (V, {"block_out_channels": []}, "describes no AutoencoderKL"),
    (V, {"down_block_types": ["DownEncoderBlock2D"] * 10**4}, "10,000 values"),
    (V, {"norm_num_groups": 0}, "norm_num_groups = 0"),
    (E, {"vocab_size": 10**9}, "vocab_size = 1000000000"),
    (E, {"vocab_size": 10**6}, "token_embedding.weight' would be"),
    (E, {"num_hidden_layers": 10**7}, "num_hidden_layers = 10000000"),
    (E, {"num_hidden_layers": 10**6}, "more than the"),
    (E, {"num_hidden_layers": 1}, "also have"),
    (E, {"num_attention_heads": 0}, "describes no CLIP"),
    (E, {"hidden_size": "16"}, "describes no CLIP"),
    (E, {"num_labels": 10**6}, "num_labels = 1000000"),
    (E, {"eos_token_id": 10**6}, "eos_token_id = 1000000"),
    (E, {"attn_implementation": "someone/kernel"}, "attn_implementation = 'someone/kernel'"),
    (E, {"max_position_embeddings": 77}, "position_embedding.weight' would be"),
    (S, {"num_train_timesteps": 0}, "num_train_timesteps = 0"),
    (S, {"num_train_timesteps": 10**10}, "num_train_timesteps = 10000000000"),
    (S, {"num_train_timesteps": None}, "num_train_timesteps = None"),
    (S, {"shift": "3"}, "shift = '3'"),
    (S, {"shift": -3}, "shift = -3"),
    (S, {"shift": None}, "shift = None"),
    (S, {"use_dynamic_shifting": "no"}, "use_dynamic_shifting = 'no' must be true or false"),
    (S, {"shift_terminal": 2}, "shift_terminal = 2"),
    (TOKENS, {"model_max_length": 10**9}, "model_max_length = 1000000000"),
    (TOKENS, {"model_max_length": 0}, "model_max_length = 0"),
    (TOKENS, {"model_max_length": None}, "model_max_length = None"),
    ("tokenizer/tokenizer.json", {"model": {"type": "x"}}, "tokenizer.json is no tokenizer: "),
    ("tokenizer/tokenizer.json", {"added_tokens": 3}, "tokenizer.json is no tokenizer: "),
    (E, {"quantization_config": {"quant_method": "x"}}, "has quantised weights"),
    ("model_index.json", {"vae": ["diffusers", "UNet2DModel"]}, "'UNet2DModel' as its vae"),
    ("model_index.json", {"vae": [None, None]}, "lacks vae"),
    ("model_index.json", {"vae": ["os", "AutoencoderKL"]}, "takes vae from 'os'"),
    ("model_index.json", {"vae": "x"}, "lacks vae"),
    ("model_index.json", {"../evil": ["a", "b"]}, "'../evil'"),
]


@pytest.mark.parametrize(("file", "values", "problem"), LIES)
def test_numbers_that_lie_are_refused(folder, file, values, problem):
    put(folder, file, **values)
    refused(folder, problem)


def test_parts_of_two_models_are_refused(folder):
    put(folder, V, latent_channels=8)
    refused(folder, "does not fit the weights")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2", dirs_exist_ok=True)
    put(folder, V, latent_channels=16)
    (folder / "tokenizer" / "added_tokens.json").write_text('{"x": 99999}')
    refused(folder, "a word of number 99,999, and its text encoder knows 514")


@pytest.mark.parametrize("file", [T, WEIGHTS, "vae/config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("damage", ["gone", "pipe", "zeros", "cut off", "pickle", "folder"])
def test_files_that_are_none_are_refused(folder, file, damage):
    path = folder / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("needs a POSIX system")
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    elif damage != "gone":
        content = {"zeros": bytes(len(whole)), "cut off": whole[:-9], "pickle": pickle.dumps(1)}
        path.write_bytes(content[damage])
    refused(folder, "not there|named pipe|a folder|zero byte|JSON|no whole safetensors|not read")


def test_adapters_beside_a_networks_weights_are_refused(folder):
    """transformers would load them, from wherever they say."""
    (folder / "text_encoder" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(folder, "has adapters beside its weights")


def split(folder):
    """Cut the transformer's weights in two; returns the index's content."""
    path = folder / WEIGHTS
    weights = load_file(path)
    path.unlink()
    names = sorted(weights)
    files = {name: f"part-{place % 2}.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        held = {name: weights[name] for name in names if files[name] == file}
        save_file(held, folder / "transformer" / file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return index


def test_weights_in_several_files_pass_and_are_held_against_their_index(folder):
    index = split(folder)
    check_pipeline_folder(folder)
    first = sorted(index["weight_map"])[0]
    for file, problem in [
        ("../../evil.safetensors", "names the file '../../evil"),
        ("/etc/passwd", "names the file '/etc/passwd'"),
        ("absent.safetensors", "absent.safetensors is not there"),
        ("part-1.safetensors", f"differ in '{first}'"),
        ("pytorch_model.bin", "names the file 'pytorch_model.bin'"),
    ]:
        changed = index | {"weight_map": index["weight_map"] | {first: file}}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(changed))
        refused(folder, problem)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": [first]}))
    refused(folder, "has no weight_map")


def test_a_missing_weight_is_named(folder):
    weights = load_file(folder / WEIGHTS)
    weights.pop("proj_out.bias")
    save_file(weights, folder / WEIGHTS)
    refused(folder, "which lack 'proj_out.bias'; fetch both again")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_weights_stored_as_whole_numbers_are_refused(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    last = max(weights)
    save_file(weights | {last: weights[last].to(torch.int8)}, path, {"format": "pt"})
    refused(folder, rf"'{last}' as whole numbers \(I8\)")


def test_weights_that_are_not_finite_are_named(tiny):
    check_pipeline_values(tiny, "mine")
    with torch.no_grad():
        tiny.vae.decoder.conv_out.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="vae of mine is damaged: 'decoder.conv_out.weight' holds"):
        check_pipeline_values(tiny, "mine")


@pytest.mark.parametrize(
    ("file", "values"), [(T, {"num_layers": 10**7}), (V, {"shift_factor": {}})]
)
def test_the_commands_end_with_one_line_and_write_nothing(folder, tmp_path, capsys, file, values):
    put(folder, file, **values)
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a koala\n")
    model = ["--pretrained_model_name_or_path", str(folder), "--prompts", str(prompts)]
    for words in (["generate", "a koala", "--model", str(folder)], ["distill", *model]):
        assert main([*words, "--output_dir", str(out)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and str(folder / file) in lines[0]
        assert not out.exists()
