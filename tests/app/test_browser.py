"""What a visitor sees of the compare screen, in a real browser, on the bundled model."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from flowsteer.app.networks import Choices, networks_for

HOSTILE = "koala <img src=x onerror='document.title=1'> ${1+1} {{value}}"


@pytest.fixture(scope="session")
def keys(student):
    """Keys of the default columns."""
    return [c.key for c in Choices(networks_for("emoji", [student])).default()]


def card(page, key):
    return page.locator(f'.fs-card[data-key="{key}"]')


def draw(page, prompt, key, seed=None):
    """Type a prompt, press Generate, and wait until a card speaks of it."""
    page.get_by_label("Prompt").fill(prompt)
    if seed is not None:
        page.locator("#compare-seed input").fill(str(seed))
    page.get_by_role("button", name="Generate").click()
    page.locator(f'.fs-card[data-key="{key}"] img[alt*="{prompt[:20]}"]').first.wait_for()


def status(page, text):
    return page.locator(".fs-status", has_text=text)


def figures(locator):
    """A card's figures by their names."""
    found = {}
    for row in locator.locator("[data-figure]").all():
        found[row.get_attribute("data-figure")] = row.locator("dd").inner_text()
    return found


def picture(locator):
    """The pixels of the PNG that the page shows, uint8 (h, w, 3)."""
    kind, data = locator.get_attribute("src").split(",", 1)
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.slow
def test_five_cards_and_the_students_pixels(visit, student, keys):
    from flowsteer.generation import Settings, generate
    from flowsteer.loading import load_pipeline

    page = visit()
    draw(page, "two koalas on a blue background", keys[-1], seed=7)
    status(page, "times faster").wait_for()

    assert [c.get_attribute("data-key") for c in page.locator(".fs-board .fs-card").all()] == keys
    for key, nfe in zip(keys, ("56", "8", "8", "4", "4"), strict=True):
        shown = figures(card(page, key))
        assert picture(card(page, key).locator("img")).shape == (128, 128, 3)
        assert shown["nfe"] == nfe
        assert float(shown["time"].removesuffix("\N{NO-BREAK SPACE}s")) > 0
        assert (shown["guidance"] == "none") == (nfe == "4")
        assert shown["detector"].startswith(("As asked", "Wrong: "))
        if key == keys[0]:
            assert shown["distance"] == "reference"
        else:
            assert 0 <= float(shown["distance"]) < 10
        grid = card(page, key).locator(".fs-sigmas p").inner_text()
        ticks = card(page, key).locator(".fs-line i").count()
        assert grid.startswith("1 → ") and grid.endswith(" → 0")
        assert ticks == (29 if key == keys[0] else 5)
    assert "0.858" in card(page, keys[1]).inner_text()
    assert "1 → 0.9 → 0.75 → 0.5 → 0" in card(page, keys[-1]).inner_text()
    assert "Seed 7:" in page.locator(".fs-status").first.inner_text()

    pipe = load_pipeline(student=student, device="cpu")
    settings = Settings(num_inference_steps=4, guidance_scale=1.0)
    expected = generate(pipe, "two koalas on a blue background", 7, settings)[0].image
    shown = picture(card(page, keys[-1]).locator("img"))
    assert np.array_equal(shown, np.asarray(expected.convert("RGB")))


@pytest.mark.slow
def test_a_link_opens_columns_and_noises_and_the_zip_is_drawn_again(visit, student, tmp_path):
    from flowsteer.cli import main

    columns = f"{student}-4-rectified-1,teacher-3-stock-2.5"
    page = visit(query=f"?prompt=a+red+fox&seed=11&noises=2&columns={columns}")
    status(page, "pictures are ready").wait_for()
    assert page.get_by_label("Prompt").input_value() == "a red fox"
    assert page.locator(".fs-board .fs-card").count() == 2
    assert page.locator(".fs-board .fs-shot img").count() == 4
    assert page.locator(".fs-columns [data-fs-row]").count() == 2
    distances = [float(figures(c)["distance"]) for c in page.locator(".fs-board .fs-card").all()]
    assert all(distance > 0 for distance in distances)  # to a reference that no column shows

    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download ZIP").click()
    file = tmp_path / "comparison.zip"
    waiting.value.save_as(file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = sorted(archive.namelist())
        record = json.loads(archive.read("settings.json"))
    assert names == sorted(["settings.json", *(p["file"] for p in record["pictures"])])
    assert record["seeds"] == [11, 12] and record["prompt"] == "a red fox"
    assert main(["compare", "--from", str(file), "--output_dir", str(tmp_path / "out")]) == 0


@pytest.mark.slow
def test_what_the_zip_holds_is_equal_to_what_the_command_draws(visit, student, tmp_path, capsys):
    from flowsteer.cli import main

    page = visit(query=f"?prompt=a+green+frog&columns={student}-4-rectified-1")
    status(page, "pictures are ready").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download ZIP").click()
    file = tmp_path / "comparison.zip"
    waiting.value.save_as(file)
    assert main(["compare", "--from", str(file), "--output_dir", str(tmp_path / "out")]) == 0
    assert "equal to the file's" in capsys.readouterr().out


def test_columns_are_chosen_by_hand_and_remembered_in_the_address(visit, student, keys):
    page = visit()
    page.locator(".fs-columns summary").click()
    for _ in range(3):
        page.get_by_role("button", name="Remove this column").last.click()
    page.get_by_role("button", name="Add a column").click()
    row = page.locator(".fs-columns [data-fs-row]").last
    row.get_by_label("Network").select_option(student)
    row.get_by_label("Steps").fill("8")
    row.get_by_label("Steps").press("Tab")
    page.locator(".fs-columns [data-fs-row]").first.get_by_label("Steps").fill("2")
    draw(page, "a yellow banana", f"{student}-8-rectified-1")
    page.wait_for_function("document.querySelectorAll('.fs-board .fs-card').length === 3")
    assert f"{student}-8-rectified-1" in page.evaluate("decodeURIComponent(location.search)")
    assert "prompt=a+yellow+banana" in page.evaluate("location.search")
    row.get_by_label("Steps").fill("5")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("edge").first.wait_for()  # a grid that the student was not taught


def test_stop_ends_the_run_and_another_can_follow(visit, keys):
    page = visit()
    stop = page.get_by_role("button", name="Stop")
    draw(page, "a red apple", keys[-1])
    stop.click()
    status(page, "Stopped after").wait_for()
    assert stop.is_disabled()
    assert card(page, keys[0]).get_attribute("data-state") == "stopped"
    assert card(page, keys[-1]).get_attribute("data-state") == "done"
    draw(page, "a green frog", keys[-1])


def test_bad_input_is_explained_and_the_next_request_works(visit, keys):
    page = visit()
    generate = page.get_by_role("button", name="Generate")
    page.get_by_label("Prompt").fill("   ")
    generate.click()
    page.get_by_text("is empty; name what to draw").wait_for()
    page.get_by_label("Prompt").fill("x" * 1001)
    generate.click()
    page.get_by_text("prompt has 1,001 characters, the limit is 1,000").wait_for()
    page.get_by_label("Prompt").fill("a fox")
    for seed in ("-1", "3.5", "4294967296"):
        page.locator("#compare-seed input").fill(seed)
        generate.click()
        page.get_by_text(f"seed = {seed} must be a whole number from 0 to").wait_for()
    draw(page, "a fox", keys[-1], seed=1)


def test_a_new_request_overtakes_the_running_one_and_is_never_read_as_html(visit, keys):
    page = visit()
    draw(page, "a yellow banana", keys[-1])
    page.get_by_label("Prompt").fill(HOSTILE)
    page.get_by_label("Prompt").press("Enter")
    page.wait_for_function(
        "([key, alt]) => [...document.querySelectorAll('#board [data-role=student] img')]"
        ".some(image => image.alt.endsWith(alt))",
        arg=[keys[-1], HOSTILE],
    )
    page.get_by_role("button", name="Stop").click()
    status(page, "Stopped after").wait_for()
    assert HOSTILE in page.locator(".fs-status").first.inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "FlowSteer"


def test_unknown_words_are_named_under_the_prompt(visit, keys):
    page = visit()
    draw(page, "a blue flurbelix", keys[-1])
    assert "“flurbelix” is new to the model" in page.locator(".fs-note").first.inner_text()
    draw(page, "a blue koala", keys[-1])
    assert page.locator(".fs-note").first.inner_text() == ""


def test_the_first_example_is_drawn_unasked(visit, keys):
    page = visit()
    image = page.locator(f'.fs-card[data-key="{keys[-1]}"] img')
    image.wait_for()
    text = page.locator("#examples button").first.inner_text()
    assert image.get_attribute("alt").endswith(text)


def test_randomise_draws_a_seed_and_shows_it(visit, keys):
    page = visit()
    page.get_by_label("Randomise").check()
    draw(page, "a pink octopus", keys[-1])
    seed = page.locator("#compare-seed input").input_value()
    page.get_by_role("button", name="Stop").click()
    status(page, "Stopped after").wait_for()
    assert f"Seed {seed}:" in page.locator(".fs-status").first.inner_text()
    draw(page, "a purple octopus", keys[-1])
    assert page.locator("#compare-seed input").input_value() != seed


def test_an_example_fills_the_prompt_and_draws(visit, keys):
    page = visit()
    text = "three strawberries on a blue background"
    page.locator("#examples button", has_text=text).click()
    page.locator(f'.fs-card[data-key="{keys[-1]}"] img[alt*="{text}"]').wait_for()
    assert page.get_by_label("Prompt").input_value() == text


@pytest.mark.slow
def test_wipe_and_table_by_keyboard(visit, student):
    page = visit(query=f"?columns={student}-4-rectified-1,teacher-2-rectified-1")
    status(page, "pictures are ready").wait_for()
    slider = page.get_by_label("Wipe position")
    slider.focus()
    slider.press("Home")
    assert page.locator(".fs-stage").evaluate("e => e.style.getPropertyValue('--cut')") == "0%"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "left picture 1%"
    left = page.locator('.fs-stage [data-side="left"]')
    before = left.get_attribute("src")
    page.get_by_label("Left", exact=True).select_option("teacher-2-rectified-1")
    page.wait_for_function(
        "old => document.querySelector('.fs-stage [data-side=left]').src !== old", arg=before
    )
    assert left.get_attribute("src") == page.locator(
        '.fs-card[data-key="teacher-2-rectified-1"] img'
    ).get_attribute("src")
    nfe = page.get_by_role("button", name="NFE", exact=True)
    for order in (["2", "4"], ["4", "2"]):
        nfe.focus()
        nfe.press("Enter")
        cells = page.locator(".fs-figures tbody tr td:nth-child(3)").all_inner_texts()
        assert cells == order


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_everything_fits_the_window(visit, keys, width, scheme):
    page = visit(width=width, scheme=scheme)
    page.locator(f'.fs-card[data-key="{keys[-1]}"] img').wait_for()
    page.locator(".fs-columns summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".fs-board .fs-card", ".fs-panel", ".fs-wipe", ".fs-figures", ".fs-row"):
        for element in page.locator(selector).all():
            if box := element.bounding_box():  # of the visible screen
                assert box["x"] >= 0 and box["x"] + box["width"] <= width, selector


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_moves_while_pictures_arrive(visit, keys, width):
    page = visit(width=width)
    page.locator("#examples button").last.wait_for()
    status(page, "times faster").wait_for()

    def places():
        parts = page.locator("#board, .fs-board .fs-card, .fs-wipe, .fs-figures h2").all()
        return [part.bounding_box() for part in parts]

    page.get_by_label("Prompt").fill("a blue flurbelix")
    before = places()
    draw(page, "a blue flurbelix", keys[-1])
    assert "flurbelix" in page.locator(".fs-note").first.inner_text()
    assert places() == before
    status(page, "times faster").wait_for()
    assert places() == before
