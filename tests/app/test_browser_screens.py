"""The other screens in a real browser, on the bundled model."""

from __future__ import annotations

import pytest


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def status(page, text):
    return page.locator(".fs-status", has_text=text)


def test_the_step_slider_moves_guesses_and_dots(visit, student):
    page = visit(query="?screen=trajectory")
    page.get_by_role("button", name="Follow").click()
    slider = page.locator("[data-fs-slider]")
    slider.wait_for()
    teacher = page.locator(".fs-strip").first
    dot = page.locator(".fs-dot").first

    def shown():
        image = teacher.locator("img:not([hidden])")
        assert image.count() == 1
        return image.get_attribute("alt"), dot.get_attribute("style")

    first = shown()
    assert "guess of call 1 of 28" in first[0]
    slider.focus()
    slider.press("End")
    last = shown()
    assert "guess of call 28 of 28" in last[0] and last[1] != first[1]
    slider.press("ArrowLeft")
    assert "guess of call 27 of 28" in shown()[0]
    assert page.locator(".fs-strip").nth(1).locator("[data-fs-call]").inner_text() == "call 4 of 4"
    assert page.locator(".fs-marks i").count() == 3  # the edges between four windows
    visible = [f for f in page.locator(".fs-figure img").all() if f.is_visible()]
    assert len(visible) == 2 and all("fs-light" in f.get_attribute("class") for f in visible)


def test_dark_pages_show_dark_figures(visit):
    page = visit(query="?screen=trajectory", scheme="dark")
    page.get_by_role("button", name="Follow").click()
    page.locator("[data-fs-slider]").wait_for()
    visible = [f for f in page.locator(".fs-figure img").all() if f.is_visible()]
    assert len(visible) == 2 and all("fs-dark" in f.get_attribute("class") for f in visible)


def test_the_grids_follow_the_sliders_and_both_pictures_come(visit):
    page = visit(query="?screen=scheduler")
    stock = page.locator('[data-grid="stock"]')
    assert "0.9%" in stock.inner_text()
    steps = page.locator("#scheduler-steps input[type=range]")
    steps.focus()
    steps.press("ArrowLeft")
    steps.press("ArrowLeft")
    page.locator('[data-grid="rectified"]', has_text="1 → 0.75 → 0").wait_for()
    page.get_by_role("button", name="Draw both").click()
    status(page, "Both pictures are ready").wait_for()
    assert page.locator("[data-picture] img").count() == 2
    for name in ("stock", "rectified"):
        assert float(page.locator(f'[data-picture="{name}"] strong').inner_text()) > 0


def test_steps_beyond_the_slider_are_a_message_and_the_grids_stay(visit):
    page = visit(query="?screen=scheduler")
    box = page.locator("#scheduler-steps input[type=number]")
    box.fill("500")
    status(page, "steps = 500 must be a whole number from 1 to 100").wait_for()
    assert "1 → 0.9 → 0.75 → 0.5 → 0" in page.locator('[data-grid="rectified"]').inner_text()
    box.fill("2")
    page.locator('[data-grid="rectified"]', has_text="1 → 0.75 → 0").wait_for()
    status(page, "Both grids for the shift and N above").wait_for()


def test_steps_that_do_not_fit_leave_the_pictures_and_the_mismatch_can_be_chosen(visit, student):
    fits = f"{student}-4-rectified-1"
    page = visit(query=f"?columns={fits}&prompt=a+koala")
    page.locator(f'.fs-card[data-key="{fits}"] img').wait_for()
    status(page, "All pictures are ready").wait_for()
    page.locator("[data-fs=steps]").fill("2")
    page.get_by_label("Prompt").first.fill("熊猫 on blue")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("use 4, 8, 12, ... rectified steps").wait_for()
    assert page.locator(f'.fs-card[data-key="{fits}"] img').count() == 1
    page.locator("[data-fs=scheduler]").select_option("rectified_mismatch")
    page.get_by_role("button", name="Generate").click()
    card = page.locator(f'.fs-card[data-key="{student}-2-rectified_mismatch-1"]')
    card.locator("img").wait_for()
    assert "grid mismatch" in card.inner_text()
    page.get_by_text("“熊猫” cannot be read by the model and is left out.").wait_for()


def test_a_vote_reveals_and_counts_once_and_the_page_does_not_know_the_answer(visit):
    page = visit(query="?screen=blind")
    left = page.get_by_role("button", name="Left took more calls")
    assert left.is_disabled()
    for votes in (1, 2):
        page.get_by_role("button", name="New pair").click()
        status(page, "Which one took more network calls?").wait_for()
        html = page.locator("#blind-view").inner_html()
        assert "28 steps" not in html and "tudent" not in html and "calls" not in html
        left.click()
        page.locator(".fs-score", has_text=f"of {votes}").wait_for()
        assert left.is_disabled()
        told = page.locator("#blind-view").inner_text()
        assert "56 calls" in told and "4 calls" in told
    assert "%" in page.locator(".fs-score").inner_text()


def test_results_and_about_are_there_and_tables_sort(visit):
    page = visit()
    tab(page, "Results")
    page.get_by_text("not measured here").wait_for()
    table = page.locator(".fs-table", has_text="Hyper-SD").first
    head = table.get_by_role("button", name="HPSv2")
    head.click()
    values = [float(x) for x in table.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert values == sorted(values)
    head.click()
    values = [float(x) for x in table.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert page.evaluate("location.search").endswith("screen=results")
    tab(page, "About")
    page.get_by_text("Add a student").wait_for()
    assert page.get_by_text("CC-BY-4.0").count() >= 1


@pytest.mark.parametrize("screen", ["trajectory", "scheduler", "blind", "results", "about"])
def test_screens_fit_a_phone(visit, screen):
    page = visit(width=390, query=f"?screen={screen}")
    page.locator(f"#screen-{screen}").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
