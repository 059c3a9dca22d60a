import math

import numpy as np
import pytest
import torch

from flowsteer.noise import initial_noise
from flowsteer.validation import (
    SEED_LIMIT,
    check_guidance_scale,
    check_num_inference_steps,
    check_number,
    check_prompt,
    check_prompts,
    check_scheduler,
    check_seed,
    shorten,
)


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t", "x" * 5000, "x" * 1001, None, 7, ["a"]])
def test_bad_prompts_are_one_line_errors(prompt):
    with pytest.raises(ValueError, match="prompt") as caught:
        check_prompt(prompt)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_prompt_of_the_longest_length_passes_and_is_stripped():
    assert check_prompt("x" * 1000) == "x" * 1000
    assert check_prompt("  a koala\n") == "a koala"


def test_one_prompt_and_several():
    assert check_prompts("koala") == ["koala"]
    assert check_prompts(("a", "b")) == ["a", "b"]
    with pytest.raises(ValueError, match="at least one"):
        check_prompts([])
    with pytest.raises(ValueError, match="empty"):
        check_prompts(["koala", ""])


@pytest.mark.parametrize("seed", [-1, 2**70, 2**32, 1.5, 4.0, "7", None, True, math.nan])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"seed = .* from 0 to 4,294,967,295"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [0, SEED_LIMIT - 1, np.int64(3), torch.tensor(3)])
def test_good_seeds_become_int(seed):
    assert type(check_seed(seed)) is int


def test_the_seed_limit_is_where_torch_starts_to_repeat():
    repeated = torch.randn(4, generator=torch.Generator().manual_seed(SEED_LIMIT + 5))
    assert torch.equal(repeated, initial_noise(5, (4,)))
    assert not torch.equal(initial_noise(SEED_LIMIT - 1, (4,)), initial_noise(5, (4,)))


@pytest.mark.parametrize("steps", [0, -4, 3.5, 1001, "four", None, True, math.inf])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match=r"num_inference_steps = .* from 1 to 1,000"):
        check_num_inference_steps(steps)


@pytest.mark.parametrize("scale", [0.5, -1, 101, math.nan, math.inf, "3", None, True])
def test_bad_guidance(scale):
    with pytest.raises(ValueError, match="guidance_scale"):
        check_guidance_scale(scale)


def test_good_guidance():
    assert check_guidance_scale(1) == 1.0
    assert check_guidance_scale(7.5) == 7.5


def test_schedulers_are_named():
    assert check_scheduler("stock") == "stock"
    with pytest.raises(ValueError, match="'rectified' or 'stock'"):
        check_scheduler("euler")


def test_shorten_keeps_long_values_on_one_line():
    assert shorten("a\nb") == "'a\\nb'"
    assert len(shorten("x" * 5000)) == 40


class Unshowable:
    def __repr__(self):
        raise RecursionError


def test_values_are_shown_on_one_line_whatever_they_are():
    assert shorten(torch.eye(2)) == "tensor([[1., 0.], [0., 1.]])"
    assert shorten(10**5000) == "<int too large to show>"
    assert shorten(Unshowable()) == "<Unshowable too large to show>"


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), math.nan, math.inf, "3", b"3", None, [3], True, 3j]
)
def test_what_is_no_number_or_too_large_for_one(value):
    with pytest.raises(ValueError, match="shift = .* must be a number from 1 to 20; such as 3"):
        check_number("shift", value, 1, 20, "; such as 3")
    with pytest.raises(ValueError, match="guidance_scale = .* must be a number from 1 to 100"):
        check_guidance_scale(value)


def test_a_number_of_5000_digits_is_refused_without_being_shown():
    for check in (check_seed, check_guidance_scale, check_num_inference_steps):
        with pytest.raises(ValueError, match="= <int too large to show> must be"):
            check(10**5000)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3), torch.tensor(3.0)])
def test_numbers_of_every_kind_become_float(value):
    assert check_number("shift", value, 1, 20) == 3.0
    assert type(check_number("shift", value, 1, 20)) is float
