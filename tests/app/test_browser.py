"""What a visitor sees, in a real browser, on the bundled model."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

KEYS = (
    "teacher_28x2",
    "teacher_4x2_stock",
    "teacher_4x2_rectified",
    "teacher_4x1_rectified",
    "student_4x1",
)
NFE = ("56", "8", "8", "4", "4")
HOSTILE = "koala <img src=x onerror='document.title=1'> ${1+1} {{value}}"


def card(page, key):
    return page.locator(f".fs-card[data-key={key}]")


def draw(page, prompt, seed=None):
    """Type a prompt, press Generate, and wait until the page speaks of it."""
    page.get_by_label("Prompt").fill(prompt)
    if seed is not None:
        page.get_by_label("Seed").fill(str(seed))
    page.get_by_role("button", name="Generate").click()
    page.locator(f'.fs-card[data-key=student_4x1] img[alt*="{prompt[:20]}"]').wait_for()


def wait_for_all(page):
    page.locator(".fs-status", has_text="times faster").wait_for()


def figures(locator):
    """A card's figures by their names."""
    names = locator.locator("dt").all_inner_texts()
    return dict(zip(names, locator.locator("dd").all_inner_texts(), strict=True))


def picture(locator):
    """The pixels of the PNG that the page shows, uint8 (h, w, 3)."""
    kind, data = locator.locator("img").get_attribute("src").split(",", 1)
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.slow
def test_five_cards_and_the_students_pixels(visit, student):
    from flowsteer.generation import Settings, generate
    from flowsteer.loading import load_pipeline

    page = visit()
    draw(page, "two koalas on a blue background", seed=7)
    wait_for_all(page)

    assert [c.get_attribute("data-key") for c in page.locator(".fs-card").all()] == list(KEYS)
    for key, nfe in zip(KEYS, NFE, strict=True):
        shown = figures(card(page, key))
        assert picture(card(page, key)).shape == (128, 128, 3)
        assert shown["NFE"] == nfe
        assert float(shown["Time"].removesuffix("\N{NO-BREAK SPACE}s")) > 0
        assert (shown["Guidance"] == "none") == (nfe == "4")
        if key == KEYS[0]:
            assert shown["Distance"] == "reference"
        else:
            assert 0 <= float(shown["Distance"]) < 10
        grid = card(page, key).locator(".fs-sigmas p").inner_text()
        ticks = card(page, key).locator(".fs-line i").count()
        assert grid.startswith("1 → ") and grid.endswith(" → 0")
        assert ticks == (29 if key == KEYS[0] else 5)
    assert "0.858" in card(page, "teacher_4x2_stock").inner_text()
    assert "1 → 0.9 → 0.75 → 0.5 → 0" in card(page, "student_4x1").inner_text()
    assert "Seed 7:" in page.locator(".fs-status").inner_text()

    pipe = load_pipeline(student=student, device="cpu")
    settings = Settings(num_inference_steps=4, guidance_scale=1.0)
    expected = generate(pipe, "two koalas on a blue background", 7, settings)[0].image
    assert np.array_equal(picture(card(page, "student_4x1")), np.asarray(expected.convert("RGB")))


def test_stop_ends_the_run_and_another_can_follow(visit):
    page = visit()
    stop = page.get_by_role("button", name="Stop")
    draw(page, "a red apple")
    stop.click()
    page.locator(".fs-status", has_text="Stopped after").wait_for()
    assert stop.is_disabled()
    assert card(page, "teacher_28x2").get_attribute("data-state") == "stopped"
    assert card(page, "student_4x1").get_attribute("data-state") == "done"
    draw(page, "a green frog")
    assert card(page, "student_4x1").get_attribute("data-state") == "done"


def test_bad_input_is_explained_and_the_next_request_works(visit):
    page = visit()
    page.get_by_label("Prompt").fill("   ")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("is empty; name what to draw").wait_for()
    page.get_by_label("Prompt").fill("x" * 1001)
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("prompt has 1,001 characters, the limit is 1,000").wait_for()
    page.get_by_label("Prompt").fill("a fox")
    for seed in ("-1", "3.5", "4294967296"):
        page.get_by_label("Seed").fill(seed)
        page.get_by_role("button", name="Generate").click()
        page.get_by_text(f"seed = {seed} must be a whole number from 0 to").wait_for()
    draw(page, "a fox", seed=1)


def test_a_new_request_overtakes_the_running_one_and_is_never_read_as_html(visit):
    page = visit()
    draw(page, "a yellow banana")
    page.get_by_label("Prompt").fill(HOSTILE)
    page.get_by_label("Prompt").press("Enter")
    page.wait_for_function(
        "alt => document.querySelector('[data-key=student_4x1] img')?.alt.endsWith(alt)",
        arg=HOSTILE,
    )
    page.get_by_role("button", name="Stop").click()
    page.locator(".fs-status", has_text="Stopped after").wait_for()
    assert HOSTILE in page.locator(".fs-status").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "FlowSteer"


def test_unknown_words_are_named_under_the_prompt(visit):
    page = visit()
    draw(page, "a blue flurbelix")
    assert "“flurbelix” is new to the model" in page.locator(".fs-note").inner_text()
    draw(page, "a blue koala")
    assert page.locator(".fs-note").inner_text() == ""


def test_the_first_example_is_drawn_unasked(visit):
    page = visit()
    page.get_by_label("Prompt").fill("")  # whatever is being typed meanwhile
    page.locator("[data-key=student_4x1] img").wait_for()
    text = page.locator("#examples button").first.inner_text()
    assert page.locator("[data-key=student_4x1] img").get_attribute("alt").endswith(text)


def test_randomise_draws_a_seed_and_shows_it(visit):
    page = visit()
    page.get_by_label("Randomise").check()
    draw(page, "a pink octopus")
    seed = page.get_by_label("Seed").input_value()
    page.get_by_role("button", name="Stop").click()
    page.locator(".fs-status", has_text="Stopped after").wait_for()
    assert f"Seed {seed}:" in page.locator(".fs-status").inner_text()
    draw(page, "a purple octopus")
    assert page.get_by_label("Seed").input_value() != seed


def test_an_example_fills_the_prompt_and_draws(visit):
    page = visit()
    example = page.locator("#examples button").nth(1)
    text = example.inner_text()
    example.click()
    page.locator(f'.fs-card[data-key=student_4x1] img[alt*="{text}"]').wait_for()
    assert page.get_by_label("Prompt").input_value() == text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_everything_fits_the_window(visit, width, scheme):
    page = visit(width=width, scheme=scheme)
    page.locator("[data-key=student_4x1] img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".fs-card", ".fs-panel", "#prompt", "#generate", "#stop", ".fs-terms"):
        for element in page.locator(selector).all():
            box = element.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_moves_while_pictures_arrive(visit, width):
    page = visit(width=width)
    page.locator("#examples button").last.wait_for()

    def places():
        parts = page.locator("#board, .fs-card, .fs-glossary").all()
        return [part.bounding_box() for part in parts]

    before = places()
    draw(page, "a blue flurbelix")
    assert "flurbelix" in page.locator(".fs-note").inner_text()
    assert places() == before
    wait_for_all(page)
    assert places() == before
