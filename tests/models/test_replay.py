"""A replayed call is the call itself."""

import copy

import pytest
import torch

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import SD3Field, encode_prompts, fold_pipeline
from flowsteer.models.lora import add_lora, run_merged
from flowsteer.models.replay import ReplayedField

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU"
)


@pytest.fixture
def pipe():
    """On the GPU, and with an output layer that is not zero, as it is at the start."""
    pipe = fold_pipeline(build_pipeline("tiny", seed=3))
    torch.nn.init.normal_(
        pipe.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0)
    )
    return pipe.to("cuda")


def test_replayed_calls_equal_the_field_and_do_not_share_their_results(pipe):
    field = SD3Field(copy.deepcopy(pipe.transformer).requires_grad_(False))
    replayed = ReplayedField(field)
    generator = torch.Generator("cuda").manual_seed(0)
    for prompts in (["koala", "two foxes"], ["pizza", "a hat"], ["pizza"]):
        cond, count = encode_prompts(pipe, prompts), len(prompts)
        x = torch.randn(2, count, 16, 16, 16, generator=generator, device="cuda")
        t = torch.rand(2, count, generator=generator, device="cuda")
        found = [replayed(x[i], t[i], cond) for i in range(2)]
        for i in range(2):
            expected = field(x[i], t[i], cond)
            assert expected.abs().mean() > 0.1
            torch.testing.assert_close(found[i], expected)


def test_replayed_gradients_add_up_to_those_of_the_field(pipe):
    add_lora(pipe.transformer, 4)
    run_merged(pipe.transformer)
    trained = [p for p in pipe.transformer.parameters() if p.requires_grad]
    field = SD3Field(pipe.transformer)
    replayed = ReplayedField(field)
    generator = torch.Generator("cuda").manual_seed(0)
    cond = encode_prompts(pipe, ["koala", "two foxes"])
    x = torch.randn(3, 2, 16, 16, 16, generator=generator, device="cuda")
    t = torch.rand(3, 2, generator=generator, device="cuda")

    def gradients(call) -> list[torch.Tensor]:
        for parameter in trained:
            if parameter.grad is not None:
                parameter.grad.zero_()
        for i in range(3):
            (call(x[i], t[i], cond).square().mean() / 2).backward()
            with torch.no_grad():  # such a call in between does no harm
                call(x[i], t[i], cond)
        return [p.grad.clone() for p in trained if p.grad is not None]

    for _ in range(2):  # the weights move in their places between them
        found, expected = gradients(replayed), gradients(field)
        largest = max(grad.abs().max() for grad in expected)
        assert largest > 0.01
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(largest))
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
