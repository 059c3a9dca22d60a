"""Checkpoints are whole or absent."""

import pytest
import torch

from flowsteer.training import latest_checkpoint, load_checkpoint, save_checkpoint


def tensors(value):
    return {"model": {"w": torch.full((3,), value)}, "optimizer": {"m": torch.zeros(2, 2)}}


def test_round_trip(tmp_path):
    folder = save_checkpoint(tmp_path, 7, tensors(1.5), {"seconds": 2.5})
    step, loaded, state = load_checkpoint(folder)
    assert (step, state) == (7, {"seconds": 2.5})
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 1.5))
    assert loaded["optimizer"]["m"].shape == (2, 2)


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, tensors(step), {}, total_limit=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    assert latest_checkpoint(tmp_path).name == "checkpoint-100"


def test_a_failed_write_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, 1, tensors(1.0), {})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, tensors(2.0), {"no JSON": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoints_are_passed_over(tmp_path, damage):
    good = save_checkpoint(tmp_path, 1, tensors(1.0), {})
    bad = save_checkpoint(tmp_path, 2, tensors(2.0), {}) / "model.safetensors"
    content = bytearray(bad.read_bytes())
    if damage == "remove":
        bad.unlink()
    else:
        content[-1] ^= 1
        bad.write_bytes(content if damage == "flip" else content[:-4])
    with pytest.warns(UserWarning, match="skipped a damaged checkpoint"):
        assert latest_checkpoint(tmp_path) == good


def test_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
    with pytest.raises(ValueError, match="no complete checkpoint"):
        load_checkpoint(tmp_path)
