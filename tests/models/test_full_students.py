"""Whole transformers of others: both commands that take one refuse it in one line."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsteer.cli import main

FILE = "diffusion_pytorch_model.safetensors"


def rewrite(folder, change):
    weights = load_file(folder / FILE)
    change(weights)
    save_file(weights, folder / FILE)


def configure(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


DAMAGES = {
    "cut off": lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-100]),
    "zeros": lambda f: (f / FILE).write_bytes(bytes(10_000)),
    "pickle": lambda f: (f / FILE).write_bytes(pickle.dumps({"a": 1})),
    "torch file": lambda f: torch.save({"a": torch.ones(1)}, f / FILE),
    "gone": lambda f: (f / FILE).unlink(),
    "a key lacks": lambda f: rewrite(f, lambda w: w.pop("proj_out.bias")),
    "a foreign key": lambda f: rewrite(f, lambda w: w.update(more=torch.ones(1))),
    "not finite": lambda f: rewrite(f, lambda w: w["proj_out.bias"].fill_(torch.nan)),
    "another shape": lambda f: rewrite(f, lambda w: w.update({"proj_out.bias": torch.ones(3)})),
    "layers": lambda f: configure(f, num_layers=10**7),
    "heads": lambda f: configure(f, num_attention_heads=10**6),
    "patch": lambda f: configure(f, patch_size=0),
    "sample": lambda f: configure(f, sample_size=-1),
    "no JSON": lambda f: (f / "config.json").write_text("[" * 100_000),
    "index": lambda f: (f / f"{FILE}.index.json").write_text('{"weight_map": {"a": "../a"}}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_generate_and_distill_refuse_a_damaged_student(
    full_student, tiny_folder, tmp_path, capsys, damage
):
    student = shutil.copytree(full_student, tmp_path / "spoilt")
    DAMAGES[damage](student / "transformer")
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a koala\n")
    teach = f"distill --method reflow --rank None --device cpu --prompts {prompts}"
    teach += f" --max_train_steps 1 --pretrained_model_name_or_path {tiny_folder}"
    for words in (teach.split(), ["generate", "a koala", "--model", str(tiny_folder)]):
        assert main([*words, "--student", str(student), "--output_dir", str(out)]) == 2
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.strip() and "step/s]" not in line]
        assert len(errors) == 1 and errors[0].startswith("flowsteer: error:")
        assert "transformer" in errors[0] and "connect" not in errors[0]
        assert not out.exists() or not list(out.iterdir())
