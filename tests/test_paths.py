import pytest
import torch
from torch.testing import assert_close

from flowsteer.flow import guided, interpolate, rollout
from flowsteer.generation import (
    GenerationStopped,
    Settings,
    encode,
    initial_noise,
    latent_shape,
    sample,
)
from flowsteer.loading import load_pipeline, with_student
from flowsteer.models.sd3 import SD3Field, encode_prompts
from flowsteer.paths import RecordedPath, distance_along, plane_of, record_path, state_at

PROMPTS = ["a koala", "three strawberries on pink"]
GUIDED = Settings(num_inference_steps=6, guidance_scale=3.0)


def noise_for(pipe):
    return torch.stack([initial_noise(seed, latent_shape(pipe)) for seed in range(len(PROMPTS))])


def recorded(times, states):
    states = torch.as_tensor(states, dtype=torch.float32)
    return RecordedPath(tuple(times), states, states[1:], len(times) - 1)


@pytest.mark.parametrize(
    "settings", [GUIDED, Settings(None, 4, 1.0), Settings(None, 4, 3.0, scheduler="stock")]
)
def test_a_recorded_path_ends_where_sample_does_to_the_last_bit(tiny, settings):
    embeds, noise = encode(tiny, PROMPTS), noise_for(tiny)
    path = record_path(tiny, embeds, noise, settings)
    plain = sample(tiny, embeds, noise, settings)
    assert path.times == plain.sigmas
    assert path.nfe == plain.nfe
    assert path.states.shape == (len(path.times), *noise.shape)
    assert torch.equal(path.states[0], noise)
    assert torch.equal(path.states[-1], plain.latents)


def test_its_guesses_are_those_of_the_guided_field(tiny):
    path = record_path(tiny, encode(tiny, PROMPTS), noise_for(tiny), GUIDED)
    field = guided(SD3Field(tiny.transformer), 3.0, encode_prompts(tiny, [""]))
    cond = encode_prompts(tiny, PROMPTS)
    with torch.no_grad():
        for t, state, x0_hat in zip(path.times, path.states, path.x0_hats, strict=False):
            velocity = field(state, torch.full((2,), t), cond)
            assert_close(x0_hat, state - t * velocity, atol=2e-4, rtol=2e-4)
        states = rollout(field, path.states[0], path.times, cond).states
    assert len(path.x0_hats) == 6
    assert_close(path.states, states, atol=2e-4, rtol=2e-4)
    assert_close(path.x0_hats[-1], path.states[-1])


def test_a_student_is_recorded_without_guidance(tiny, lora_student):
    student, noise = with_student(tiny, lora_student), noise_for(tiny)
    embeds = encode(tiny, PROMPTS)
    path = record_path(student, embeds, noise, Settings())
    assert (path.nfe, len(path.times)) == (4, 5)
    teacher = record_path(tiny, embeds, noise, Settings(None, 4, 1.0))
    assert not torch.equal(path.states[-1], teacher.states[-1])
    with pytest.raises(ValueError, match="misses"):
        record_path(student, embeds, noise, Settings(num_inference_steps=3))


def test_a_recording_stops_when_it_is_told(tiny):
    calls = []
    with pytest.raises(GenerationStopped):
        record_path(
            tiny, encode(tiny, PROMPTS), noise_for(tiny), GUIDED, lambda: calls.append(1) or True
        )
    assert len(calls) == 1


def test_half_precision_is_recorded_as_float32(tiny_folder):
    pipe = load_pipeline(str(tiny_folder), dtype="bfloat16", device="cpu")
    noise = noise_for(pipe)
    path = record_path(pipe, encode(pipe, PROMPTS), noise, GUIDED)
    assert path.states.dtype == path.x0_hats.dtype == torch.float32
    assert torch.equal(path.states[0], noise.bfloat16().float())
    assert torch.isfinite(path.x0_hats).all()


def test_a_plane_keeps_what_lies_in_it():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(48, 2, generator=generator, dtype=torch.float64)).Q.mT
    flat = torch.randn(9, 2, generator=generator, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    states = (7 + flat @ axes).reshape(9, 3, 4, 4)
    plane = plane_of(states)
    assert sum(plane.explained) == pytest.approx(1)
    assert plane.explained[0] > plane.explained[1] > 0
    seen = plane.project(states)
    assert seen.shape == (9, 2)
    assert_close(torch.cdist(seen, seen), torch.cdist(flat, flat))
    assert (seen[0] <= 0).all()
    # what is orthogonal to the plane is not seen
    off = torch.linalg.qr(torch.cat([plane.axes, torch.randn(1, 48, dtype=torch.float64)]).mT).Q
    moved = states + off[:, 2].reshape(3, 4, 4)
    assert_close(plane.project(moved), seen)


def test_a_plane_says_how_little_it_shows():
    states = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    shown = plane_of(states).explained
    assert 2 / 50 < sum(shown) < 0.15


def test_a_straight_path_needs_one_direction():
    line = torch.linspace(0, 1, 5)[:, None] * torch.ones(8)
    plane = plane_of(line)
    assert plane.explained == pytest.approx((1, 0), abs=1e-12)
    assert plane.project(line)[:, 0].diff().gt(0).all()


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (torch.randn(2, 8), r"\(2, 8\)"),
        (torch.randn(5, 1), r"\(5, 1\)"),
        (torch.ones(4, 8), "equal"),
        (torch.full((4, 8), float("nan")), "finite"),
    ],
)
def test_no_plane_without_a_path_that_moves(states, message):
    with pytest.raises(ValueError, match=message):
        plane_of(states)


def test_a_plane_refuses_states_of_another_size():
    with pytest.raises(ValueError, match=r"\(2, 9\).*9 numbers"):
        plane_of(torch.randn(5, 8)).project(torch.randn(2, 9))


def test_distance_is_zero_on_the_path_and_known_beside_it():
    teacher = recorded((1.0, 0.5, 0.0), [[[4.0, 0]], [[2.0, 0]], [[0.0, 2.0]]])
    assert distance_along(teacher, teacher).tolist() == [[0], [0], [0]]
    # at 0.75 the teacher is taken to be half way, at (3, 0)
    student = recorded((1.0, 0.75, 0.0), [[[4.0, 0]], [[3.0, 1.5]], [[0.0, 3.0]]])
    assert distance_along(student, teacher).flatten().tolist() == pytest.approx([0, 0.5, 0.5])


def test_a_straight_path_may_be_cut_anywhere():
    x_0, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    times = (1.0, 0.9, 0.62, 0.3, 0.0)
    path = recorded(times, torch.stack([interpolate(x_0, eps, t) for t in times]))
    for t in (1.0, 0.95, 0.62, 0.1, 0.0):
        assert_close(state_at(path, t), interpolate(x_0, eps, t))
    for t in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="t = "):
            state_at(path, t)


def test_paths_of_other_pictures_have_no_distance():
    one, two = recorded((1, 0), torch.zeros(2, 1, 4)), recorded((1, 0), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"\(1, 4\) and \(3, 4\)"):
        distance_along(one, two)


def test_more_steps_stay_nearer_the_teachers_path(tiny):
    embeds, noise = encode(tiny, PROMPTS), noise_for(tiny)
    runs = {n: record_path(tiny, embeds, noise, Settings(None, n, 3.0)) for n in (4, 16, 32)}
    ends = [distance_along(runs[n], runs[32])[-1] for n in (4, 16, 32)]
    assert (ends[0] > ends[1]).all() and (ends[1] > 0).all()
    assert ends[2].tolist() == [0, 0]
