import pytest
import torch

from flowsteer.emoji.prompts import load_prompts
from flowsteer.evaluation.references import (
    REFERENCES,
    load_references,
    transformer_checksum,
    write_references,
)
from flowsteer.evaluation.study import Variant, prepare, sample
from flowsteer.loading import load_pipeline


def test_references_come_back_for_the_same_teacher_only(tiny, tmp_path):
    path = write_references(tiny, tmp_path / "new" / "references.safetensors", 6)
    found = load_references(tiny, path)
    assert list(found.prompts) == load_prompts("dev", 6)
    latents = sample(tiny, prepare(tiny, found.prompts), Variant("teacher", 28, 7.0))
    torch.testing.assert_close(found.latents, latents, atol=1e-2, rtol=1e-2)
    with torch.no_grad():
        tiny.transformer.proj_out.bias[0] += 1e-3
    with pytest.raises(ValueError, match="stale.*python -m flowsteer.showcase references"):
        load_references(tiny, path)
    with pytest.raises(ValueError, match="missing"):
        load_references(tiny, tmp_path / "none.safetensors")


def test_the_checksum_is_of_the_weights(tiny, tiny_folder):
    again = load_pipeline(str(tiny_folder), device="cpu")
    assert transformer_checksum(tiny) == transformer_checksum(again)


def test_the_shipped_file_fits_the_shipped_teacher():
    references = load_references(load_pipeline("emoji", device="cpu"), REFERENCES)
    assert references.latents.shape == (24, 16, 16, 16)
    assert torch.isfinite(references.latents).all()
