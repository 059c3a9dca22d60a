"""The results screen: what was measured, beside what the paper reports, and sheets of pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from flowsteer.app.figures import written_figure_html
from flowsteer.app.html import empty_html, escape, image_html, table_html
from flowsteer.app.markdown import markdown_html
from flowsteer.app.screens.base import HERE, PLAIN, QUICK, Screen
from flowsteer.untrusted import read_json

RESULTS = HERE.parent / "emoji" / "results"
REPRODUCTION = RESULTS / "reproduction"
PAPER_HEAD = ("Method (SD3-Medium)", "NFE", "PickScore", "HPSv2", "CLIP", "GenEval")
PAPER_ROWS = (
    ("SD3-Medium", "40 (20 × 2)", "22.41", "28.02", "32.78", ".6639"),
    ("PCM (shift 3)", "8 (4 × 2)", "22.28", "27.68", "32.05", ".6339"),
    ("Hyper-SD", "8 (4 × 2)", "22.28", "28.04", "32.31", ".6336"),
    ("Flash Diffusion", "4", "22.37", "27.35", "32.51", ".6672"),
    ("PeRFlow", "4", "22.19", "26.36", "32.55", ".6357"),
    ("FlowSteer", "4", "22.39", "28.60", "32.81", ".6859"),
)
"""Figures of Ke et al. 2026 (arXiv 2511.18834) on COCO 10k and GenEval: theirs, not ours."""
PAPER_ABLATION = (
    ("PeRFlow", "22.19", "26.36"),
    ("+ OTA", "22.23", "26.79"),
    ("+ adversarial", "22.18", "27.73"),
    ("+ scheduler", "22.50", "27.75"),
    ("all", "22.39", "28.60"),
)
NOT_YET = empty_html(
    "No report of the reproduction is in this package",
    "flowsteer reproduce measures mismatch, scheduler and ablation cell by cell and writes it;"
    " put its folder at flowsteer/emoji/results/reproduction and it appears here.",
)
WAIT = empty_html("Reading the report", "It comes when this screen is first opened.")
MOST_RESULT_BYTES = 50_000_000
LARGEST_SHEET = 1400  # pixels


class ResultsScreen(Screen):
    """Builds the screen inside a `gr.Blocks`; its content is made when the tab is first opened."""

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components and connect the events."""
        view = gr.HTML(WAIT, **PLAIN, elem_id="results-view")
        tab = gr.context.Context.block
        assert isinstance(tab, gr.Tab)
        tab.select(show_results, None, view, **QUICK)
        link.change(show_results_if_open, link, view, **QUICK)


def show_results() -> str:
    """The whole screen."""
    return results_html(RESULTS, REPRODUCTION)


def show_results_if_open(query: Any) -> Any:
    """The whole screen, where a link opens it."""
    return show_results() if isinstance(query, str) and "screen=results" in query else gr.skip()


@lru_cache(maxsize=2)
def results_html(results: Path, reproduction: Path) -> str:
    """Measured tables, the reproduction's report, the paper's numbers and picture sheets.

    Args:
        results: folder with teacher.json and a JSON a student.
        reproduction: folder that `flowsteer reproduce` wrote; need not be there.
    """
    return (
        '<section class="fs-report">'
        f"<h2>Teacher and students on the bundled world</h2>{measured_html(results)}"
        f"<h2>Reproduction of the paper’s argument</h2>{reproduction_html(reproduction)}"
        f"<h2>What the paper reports</h2>{paper_html()}"
        f"<h2>From the same noises</h2>{gallery_html(results, reproduction)}</section>"
    )


def measured_html(results: Path) -> str:
    """EmojiEval, distance and Frechet distance of teacher, undistilled rows and students."""
    try:
        teacher = _read(results / "teacher.json")
        rows = [teacher["teacher"], *teacher["undistilled"]]
        for path in sorted(results.glob("*.json")):
            record = _read(path)
            if isinstance(record, dict) and isinstance(record.get("student"), dict):
                rows.append(record["student"])
        body = [_measured_row(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return empty_html("No measured results", f"They cannot be read: {type(error).__name__}.")
    head = ["Sampled by", "NFE", "EmojiEval", "95% interval", "Distance", "Frechet"]
    count, device = teacher["num_prompts"], teacher["made_on"]["device"]
    return (
        f"<p>{count:,} test prompts, judged by the bundled detector. Distance is the relative L2 of"
        " final latents to the teacher’s 28 steps from the same noise. The teacher’s rows were made"
        f" on: {escape(device)}.</p>" + table_html("Measured", head, body)
    )


def _read(path: Path) -> Any:
    return read_json(path, "measured results", MOST_RESULT_BYTES)


def _measured_row(row: dict[str, Any]) -> list[str]:
    overall, scale = row["emoji_eval"]["overall"], row["guidance_scale"]
    guidance = "no guidance" if scale == 1 else f"guidance {scale:g}"
    label = row["label"]
    if not label.startswith("student"):
        label = f"teacher, {row['num_inference_steps']} steps"
    frechet = row.get("frechet")
    return [
        escape(f"{label}, {row['scheduler']}, {guidance}"),
        str(row["nfe"]),
        f"{overall['mean']:.3f}",
        f"{overall['low']:.3f} to {overall['high']:.3f}",
        f"{row['distance']['mean']:.3f}",
        "–" if frechet is None else f"{frechet:.2f}",
    ]


def reproduction_html(folder: Path) -> str:
    """What `flowsteer reproduce` wrote: its report with sortable tables, its plots in both themes.

    Nothing is computed here: bootstraps and plots of all cells take a minute and a half.
    """
    try:
        text = (folder / "report.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        return NOT_YET
    except (OSError, ValueError) as error:
        return empty_html("The report cannot be read", f"report.md: {type(error).__name__}.")
    _, _, body = text.partition("\n")  # the screen has a heading of its own

    def picture(name: str, address: str) -> str:
        path = folder / "plots" / Path(address).name
        if path.suffix != ".svg" or not path.is_file():
            return ""
        return written_figure_html(path, f"{name}; its numbers are in the tables")

    return markdown_html(body, picture)


def paper_html() -> str:
    """The paper's numbers, named as the paper's."""
    note = (
        "<p>Figures of Ke et al., <cite>FlowSteer</cite> (CVPR 2026, arXiv 2511.18834), of"
        " SD3-Medium on COCO 10k and GenEval. They are <strong>the paper’s, not measured"
        " here</strong>, and of other metrics: they stand here for the order of the"
        " methods, never for the value.</p>"
    )
    main = table_html("The paper’s comparison (its numbers)", PAPER_HEAD, PAPER_ROWS)
    head = ("Ablation (SD3-Medium)", "PickScore", "HPSv2")
    return note + main + table_html("The paper’s ablation (its numbers)", head, PAPER_ABLATION)


def gallery_html(results: Path, reproduction: Path) -> str:
    """Sheets of pictures: comparisons in the package, and the reproduction's."""
    packed = sorted(path for path in results.glob("*") if path.suffix in (".png", ".webp"))
    sheets = [*packed, *sorted((reproduction / "plots").glob("*.png"))]
    if not sheets:
        return empty_html("No picture sheets", "flowsteer compare and reproduce write them.")
    parts = []
    for path in sheets:
        with Image.open(path) as image:
            sheet = image.convert("RGB")
        sheet.thumbnail((LARGEST_SHEET, LARGEST_SHEET))
        name = path.stem
        parts.append(
            f"<figure>{image_html(sheet, f'Pictures from fixed noises: {name}')}"
            f"<figcaption>{escape(name)}</figcaption></figure>"
        )
    return f'<div class="fs-gallery">{"".join(parts)}</div>'
