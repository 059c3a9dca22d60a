"""A LoRA file is refused for what it claims; both commands that take one say the same."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsteer.cli import main
from flowsteer.models.lora_files import SETTINGS, check_lora_file
from flowsteer.students import LORA_FILE
from flowsteer.untrusted import read_header


@pytest.fixture
def student(lora_student, tmp_path):
    """A copy of the LoRA student, to be spoilt."""
    return shutil.copytree(lora_student, tmp_path / "spoilt")


def rewrite(file, change=lambda weights: None, **settings):
    """Change weights and settings of a LoRA file."""
    weights, metadata = load_file(file), dict(read_header(file).metadata)
    change(weights)
    values = json.loads(metadata[SETTINGS]) | {f"transformer.{k}": v for k, v in settings.items()}
    save_file(weights, file, metadata | {SETTINGS: json.dumps(values)})


def test_a_file_of_ours_passes(lora_student):
    header = check_lora_file(lora_student / LORA_FILE)
    assert json.loads(header.metadata[SETTINGS])["transformer.lora_alpha"] == 8.0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"r": 10**9}, "transformer.r = 1000000000 must be a whole number from 1 to 4"),
        ({"r": 3}, "transformer.r = 3, but its weights have rank"),
        ({"rank_pattern": {"attn": 10**9}}, "rank_pattern = 1000000000"),
        ({"lora_alpha": None}, "lora_alpha = None must be a number"),
        ({"lora_alpha": -8}, "lora_alpha = -8"),
        ({"lora_alpha": float("nan")}, "NaN is no number"),
        ({"alpha_pattern": {"attn": 1e300}}, r"alpha_pattern = 1e\+300"),
        ({"init_lora_weights": "pissa"}, "'pissa' would change the network's own weights"),
    ],
)
def test_settings_that_lie_are_refused(student, settings, problem):
    file = student / LORA_FILE
    rewrite(file, **settings)
    with pytest.raises(ValueError, match=problem) as caught:
        check_lora_file(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_whole_numbers_are_no_weights(student):
    def cut(weights):
        weights |= {name: tensor.long() for name, tensor in weights.items()}

    rewrite(student / LORA_FILE, cut)
    with pytest.raises(ValueError, match=r"pytorch_lora_weights.* as whole numbers \(I64\)"):
        check_lora_file(student / LORA_FILE)


def test_settings_nested_100000_deep_are_refused(student):
    file = student / LORA_FILE
    save_file(load_file(file), file, {SETTINGS: "[" * 100_000})
    with pytest.raises(ValueError, match="nested deeper than 64"):
        check_lora_file(file)


def spoil(file, damage):
    whole = file.read_bytes()
    contents = {
        "cut off": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "pickle": pickle.dumps({"a": 1}),
        "empty": b"",
        "twice": (24).to_bytes(8, "little") + b'{"a":{"b":1},"a":{"b":1}',
    }
    if damage in contents:
        file.write_bytes(contents[damage])
    elif damage == "huge header":
        file.write_bytes((10**12).to_bytes(8, "little") + whole[8:])
    elif damage == "torch file":
        torch.save({"a": torch.ones(2)}, file)
    elif damage == "a key lacks":
        rewrite(file, lambda weights: weights.pop(sorted(weights)[0]))
    elif damage == "not finite":
        rewrite(file, lambda weights: weights[sorted(weights)[0]].fill_(torch.nan))
    elif damage == "another rank":
        rewrite(file, lambda weights: weights.update({k: w[:2] for k, w in weights.items()}))
    return file


DAMAGES = ["cut off", "zeros", "pickle", "empty", "twice", "huge header", "torch file"]
DAMAGES += ["a key lacks", "not finite", "another rank"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_generate_and_distill_refuse_a_damaged_lora_in_one_line(
    student, tiny_folder, tmp_path, capsys, damage
):
    file = spoil(student / LORA_FILE, damage)
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a koala\n")
    teach = f"distill --method reflow --rank 4 --device cpu --max_train_steps 1 --prompts {prompts}"
    teach += f" --pretrained_model_name_or_path {tiny_folder}"
    for words in (teach.split(), ["generate", "a koala", "--model", str(tiny_folder)]):
        assert main([*words, "--student", str(student), "--output_dir", str(out)]) == 2
        # beside the error there may be a progress bar
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.strip() and "step/s]" not in line]
        assert len(errors) == 1 and errors[0].startswith("flowsteer: error:")
        assert os.path.basename(file) in errors[0] or "student = " in errors[0]
        assert not out.exists() or not list(out.iterdir())
