from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from flowsteer.comparing import Column, PipelineSet, compare
from flowsteer.flow.grids import rectified_grid, stock_grid
from flowsteer.generation import (
    GenerationStopped,
    Settings,
    encode,
    generate,
    initial_noise,
    latent_shape,
    sample,
    stream_pictures,
)
from flowsteer.loading import load_pipeline, with_student

FOUR = Settings(num_inference_steps=4, guidance_scale=1.0)
PROMPTS = ["a koala", "three strawberries on pink", "a flat pizza"]


def test_noise_depends_on_the_seed_alone():
    assert torch.equal(initial_noise(3, (16, 4, 4)), initial_noise(3, (16, 4, 4)))
    assert not torch.equal(initial_noise(3, (16, 4, 4)), initial_noise(4, (16, 4, 4)))
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    initial_noise(7, (4,))
    assert torch.equal(torch.rand(1), before)
    assert initial_noise(0, (100_000,)).std().item() == pytest.approx(1, abs=0.02)


def test_defaults_come_from_the_pipeline(tiny, lora_student):
    for nobody in (None, "none"):
        assert Settings(nobody).resolve(tiny) == Settings(None, 28, 7.0)
    student = with_student(tiny, lora_student)
    assert Settings().resolve(student) == Settings(str(lora_student), 4, 1.0)


def test_a_picture_says_how_it_was_made(tiny):
    (picture,) = generate(tiny, "a koala", 5, Settings(num_inference_steps=2, guidance_scale=3))
    assert (picture.prompt, picture.seed, picture.nfe) == ("a koala", 5, 4)
    assert picture.settings == Settings(None, 2, 3.0)
    assert picture.sigmas == pytest.approx(rectified_grid(2, 3.0).tolist())
    assert picture.image.size == (128, 128)
    assert picture.latents.shape == (16, 16, 16)
    assert not picture.grid_mismatch


def test_it_equals_a_plain_call(tiny):
    noise = initial_noise(5, (1, *latent_shape(tiny)))
    for scale in (1.0, 3.0):
        plain = tiny("a koala", num_inference_steps=4, guidance_scale=scale, latents=noise)
        (picture,) = generate(tiny, "a koala", 5, Settings(None, 4, scale))
        assert picture.image.tobytes() == plain.images[0].tobytes()


def test_order_and_company_do_not_matter(tiny):
    alone = {(p, s): generate(tiny, p, s, FOUR)[0] for p in PROMPTS for s in (0, 1)}
    for prompts, seeds in [(PROMPTS, [0, 1]), (PROMPTS[::-1], [1, 0])]:
        for picture in generate(tiny, prompts, seeds, FOUR):
            twin = alone[picture.prompt, picture.seed]
            assert torch.equal(picture.latents, twin.latents)
            assert picture.image.tobytes() == twin.image.tobytes()


@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_batches_change_no_more_than_rounding(tiny, batch_size):
    settings = Settings(num_inference_steps=4, guidance_scale=2.0)
    alone = generate(tiny, PROMPTS, [0, 1], settings)
    together = generate(tiny, PROMPTS, [0, 1], settings, batch_size)
    assert [(p.prompt, p.seed) for p in together] == [(p.prompt, p.seed) for p in alone]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.latents, other.latents, atol=1e-4, rtol=1e-4)


def test_the_stock_grid_is_the_frozen_one(tiny):
    (picture,) = generate(tiny, "a koala", 0, Settings(None, 4, 1.0, "stock"))
    assert picture.sigmas == pytest.approx(stock_grid(4, 3.0).tolist(), abs=1e-6)
    (rectified,) = generate(tiny, "a koala", 0, FOUR)
    assert not torch.allclose(picture.latents, rectified.latents)


def test_the_pipelines_own_scheduler_stays(tiny, tiny_folder):
    own = tiny.scheduler
    generate(tiny, "a koala", 0, FOUR)
    assert tiny.scheduler is own
    stock = load_pipeline(str(tiny_folder), scheduler="stock", device="cpu")
    from_stock = generate(stock, "a koala", 0, FOUR)[0]
    assert torch.equal(from_stock.latents, generate(tiny, "a koala", 0, FOUR)[0].latents)


def test_students_refuse_and_label_foreign_grids(tiny, lora_student):
    student = with_student(tiny, lora_student)
    assert not generate(student, "a koala")[0].grid_mismatch
    for settings in (Settings(num_inference_steps=3), Settings(scheduler="stock")):
        with pytest.raises(ValueError, match=r"\[1, 0.9, 0.75, 0.5, 0\]"):
            stream_pictures(student, "a koala", settings=settings)
    asked = Settings(num_inference_steps=3, allow_grid_mismatch=True)
    assert generate(student, "a koala", settings=asked)[0].grid_mismatch


BAD = [
    ({"prompts": ""}, "prompt"),
    ({"prompts": "x" * 5000}, "5,000 characters"),
    ({"prompts": []}, "prompts"),
    ({"prompts": ["a koala", None]}, "prompt"),
    ({"seeds": -1}, "seed = -1"),
    ({"seeds": 2**70}, "seed = 1180591620717411303424"),
    ({"seeds": [0, 1.5]}, "seed = 1.5"),
    ({"settings": Settings(num_inference_steps=0)}, "num_inference_steps = 0"),
    ({"settings": Settings(num_inference_steps=3.5)}, "num_inference_steps = 3.5"),  # type: ignore
    ({"settings": Settings(guidance_scale=float("nan"))}, "guidance_scale = nan"),
    ({"settings": Settings(scheduler="ddim")}, "scheduler = 'ddim'"),
    ({"settings": Settings(student="flowsteer")}, "the pipeline's is None: load one with"),
    ({"settings": Settings(allow_grid_mismatch="no")}, "allow_grid_mismatch = 'no' must be True"),  # type: ignore
    ({"batch_size": 0}, "batch_size = 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_fails_before_any_network_call(tiny, arguments, message):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was called")

    tiny.transformer.register_forward_pre_hook(refuse)
    with pytest.raises(ValueError, match=message):
        stream_pictures(tiny, **({"prompts": "a koala"} | arguments))


def test_steps_can_be_watched_and_stopped(tiny):
    seen = []

    def on_step(index, sigma, latents):
        seen.append((index, round(sigma, 4), tuple(latents.shape)))

    noise = initial_noise(0, (1, *latent_shape(tiny)))
    embeds = encode(tiny, ["a koala"])
    result = sample(tiny, embeds, noise, FOUR, on_step=on_step)
    shape = (1, 16, 16, 16)
    assert seen == [(0, 0.9, shape), (1, 0.75, shape), (2, 0.5, shape), (3, 0.0, shape)]
    assert result.latents.shape == shape
    seen.clear()
    with pytest.raises(GenerationStopped):
        sample(tiny, embeds, noise, FOUR, on_step, should_stop=lambda: len(seen) == 2)
    assert len(seen) == 2
    assert generate(tiny, "a koala", 0, FOUR)[0].nfe == 4  # and the next one is not disturbed


def test_a_stopped_stream_ends(tiny):
    calls = []
    tiny.transformer.register_forward_pre_hook(lambda *args: calls.append(1))
    stream = stream_pictures(tiny, PROMPTS, 0, FOUR, should_stop=lambda: len(calls) >= 6)
    assert [picture.prompt for picture in stream] == PROMPTS[:1]
    assert len(calls) == 6


def test_half_precision_gives_finite_pictures(tiny_folder):
    pipe = load_pipeline(str(tiny_folder), dtype="bfloat16", device="cpu")
    (picture,) = generate(pipe, "a koala", 0, FOUR)
    assert picture.latents.dtype == torch.float32
    assert torch.isfinite(picture.latents).all()


def test_threads_share_a_pipeline(tiny, lora_student):
    student = with_student(tiny, lora_student)
    jobs = [(tiny, Settings(num_inference_steps=n, guidance_scale=3.0)) for n in (3, 5, 8)]
    jobs += [(student, Settings()), (tiny, Settings(num_inference_steps=6, scheduler="stock"))]
    jobs = [(*job, f"{number} koalas", number) for number, job in enumerate(jobs * 2)]
    own = tiny.scheduler, tiny.scheduler.sigmas.clone()

    def draw(job):
        pipe, settings, prompt, seed = job
        return generate(pipe, prompt, seed, settings)[0]

    alone = [draw(job) for job in jobs]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(draw, jobs))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.latents, other.latents)
        assert (one.sigmas, one.settings) == (other.sigmas, other.settings)
    assert tiny.scheduler is own[0]
    assert torch.equal(tiny.scheduler.sigmas, own[1])


def test_threads_share_a_set_of_pipelines(tiny, lora_student):
    columns = [Column("teacher", "Teacher", FOUR), Column("s", "S", Settings(str(lora_student)))]
    pipelines = PipelineSet(tiny)

    def draw(seed):
        return [card.latents for card in compare(pipelines, "a koala", seed, columns)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    for seed, latents in enumerate(together):
        assert all(map(torch.equal, latents, draw(seed)))
    pipes = {id(pipelines.pipeline(str(lora_student))) for _ in range(2)}
    assert len(pipes) == 1


def test_the_stock_grid_ends_at_the_model_s_last_trained_time(tiny):
    tiny.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=100, shift=3.0)
    picture = generate(tiny, "a koala", 0, Settings(None, 4, 1.0, "stock"))[0]
    tiny.scheduler.set_timesteps(4)
    assert picture.sigmas == pytest.approx(tiny.scheduler.sigmas.tolist(), abs=1e-6)


def test_edits_of_the_pipeline_s_scheduler_count(tiny):
    straight = [1, 0.75, 0.5, 0.25, 0]
    tiny.scheduler.set_shift(1.0)
    assert generate(tiny, "a koala", 0, FOUR)[0].sigmas == pytest.approx(straight)
    stock = generate(tiny, "a koala", 0, Settings(None, 4, 1.0, "stock"))[0]
    assert stock.sigmas == pytest.approx(stock_grid(4, 1.0).tolist(), abs=1e-6)
    for kind in (type(tiny.scheduler), FlowMatchEulerDiscreteScheduler):
        tiny.scheduler = kind.from_config(tiny.scheduler.config, shift=2.0)
        sigmas = generate(tiny, "a koala", 0, FOUR)[0].sigmas
        assert sigmas == pytest.approx(rectified_grid(4, 2.0).tolist())
    tiny.scheduler = type(tiny.scheduler).from_config(
        tiny.scheduler.config, use_dynamic_shifting=True, base_shift=0.0, max_shift=0.0
    )
    assert generate(tiny, "a koala", 0, FOUR)[0].sigmas == pytest.approx(straight)


def test_a_student_on_another_shift_is_refused(tiny, lora_student):
    student = with_student(tiny, lora_student)
    student.scheduler.set_shift(1.0)
    with pytest.raises(ValueError, match=r"\[1, 0.75, 0.5, 0.25, 0\]"):
        stream_pictures(student, "a koala")


def test_another_kind_of_scheduler_is_refused_before_any_network_call(tiny):
    tiny.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(ValueError, match="uses FlowMatchHeunDiscreteScheduler"):
        stream_pictures(tiny, "a koala")


def test_a_compiled_transformer_draws_the_same(tiny, lora_student):
    expected = generate(tiny, "a koala", 0, FOUR)[0].latents
    taught = generate(with_student(tiny, lora_student), "a koala")[0].latents
    tiny.transformer = torch.compile(tiny.transformer, backend="eager")
    torch.testing.assert_close(generate(tiny, "a koala", 0, FOUR)[0].latents, expected)
    again = generate(with_student(tiny, lora_student), "a koala")[0].latents
    torch.testing.assert_close(again, taught)
