"""A replayed call is the call itself."""

import copy

import pytest
import torch

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.models.replay import ReplayedField


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")
def test_replayed_calls_equal_the_field_and_do_not_share_their_results():
    pipe = fold_pipeline(build_pipeline("tiny", seed=3)).to("cuda")
    field = SD3Field(copy.deepcopy(pipe.transformer).requires_grad_(False))
    replayed = ReplayedField(field)
    generator = torch.Generator("cuda").manual_seed(0)
    for prompts in (["koala", "two foxes"], ["pizza", "a hat"], ["pizza"]):
        cond, count = encode_prompts(pipe, prompts), len(prompts)
        x = torch.randn(2, count, 16, 16, 16, generator=generator, device="cuda")
        t = torch.rand(2, count, generator=generator, device="cuda")
        found = [replayed(x[i], t[i], cond) for i in range(2)]
        for i in range(2):
            torch.testing.assert_close(found[i], field(x[i], t[i], cond))
