"""The about screen: what is loaded, versions, licences, and how to add a student."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import gradio as gr

from flowsteer.app.html import escape, table_html
from flowsteer.app.screens.base import HERE, PLAIN, Screen
from flowsteer.app.studio import Studio
from flowsteer.pictures import versions
from flowsteer.students import find_student

ATTRIBUTION = HERE.parent / "emoji" / "data" / "ATTRIBUTION.md"
ADD_STUDENT = r"""<h2>Add a student</h2>
<p>Teach one, from prompts alone, then start the app with its folder. Every folder with a
<code>flowsteer.json</code> and a LoRA or a transformer will do; <code>--student</code> may be given
several times.</p>
<pre><code>flowsteer distill --preset laptop --output_dir out/mine
python app.py --student out/mine</code></pre>
<p>The same for another model, on a GPU:</p>
<pre><code>python app.py --student PATH \
    --model stabilityai/stable-diffusion-3-medium-diffusers</code></pre>"""
PROGRAMS = """<h2>For programs</h2>
<p>The endpoints <code>/compare</code>, <code>/trajectory</code> and <code>/schedule</code> give
what these screens show; “Use via API” below lists their arguments. With <code>--mcp</code> the app
serves them as tools as well.</p>
<pre><code>from gradio_client import Client

client = Client("http://127.0.0.1:7860")
client.predict("a 3d koala on blue", 0, api_name="/compare")</code></pre>"""
LICENCES = """<p>FlowSteer’s code is under Apache-2.0. The method is that of Ke et al.,
<cite>FlowSteer</cite> (CVPR 2026, arXiv 2511.18834); this is an independent implementation.</p>"""


class AboutScreen(Screen):
    """Builds the screen inside a `gr.Blocks`; nothing on it changes."""

    def build(self, page: gr.Blocks, link: gr.Textbox) -> None:
        """Lay out the components."""
        gr.HTML(about_html(self.studio), **PLAIN, elem_id="about-view")


def about_html(studio: Studio) -> str:
    """The whole screen."""
    return (
        '<section class="fs-report fs-about">'
        f"<h2>What is loaded</h2>{loaded_html(studio)}{ADD_STUDENT}{PROGRAMS}"
        f"<h2>Versions</h2>{versions_html()}<h2>Licences</h2>{LICENCES}{art_html(studio)}</section>"
    )


def loaded_html(studio: Studio) -> str:
    """Teacher and students, and how these were taught."""
    rows = []
    for network in studio.choices.networks.values():
        found = find_student(network.student)
        if found is None:
            judged = "judged by the bundled detector" if studio.has_detector else "not judged"
            rows.append([escape(network.title), escape(_shown(studio.model)), "", "", judged])
            continue
        info = found.info
        edges = ", ".join(f"{edge:g}" for edge in info.edges)
        kind = "LoRA" if found.is_lora else "full transformer"
        if info.lora_rank is not None:
            kind += f" of rank {info.lora_rank}"
        method = f"{escape(info.method)}, {info.steps:,} steps"
        rows.append([escape(network.title), method, str(network.steps), edges, kind])
    head = ["Network", "Model or method", "Steps", "Window edges", "Notes"]
    return table_html("Networks", head, rows, words=2)


def versions_html() -> str:
    """Versions of what pictures and page depend on."""
    found = versions()
    for package in ("gradio", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return table_html(
        "Versions", ["Package", "Version"], [[escape(k), escape(v)] for k, v in found.items()]
    )


def art_html(studio: Studio) -> str:
    """Where the bundled world's art comes from."""
    if not studio.has_detector:
        return "<p>The model’s own licence is that of its publisher.</p>"
    lines = ATTRIBUTION.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    head, body = rows[0], rows[2:]
    cells = [[_linked(cell) for cell in row] for row in body]
    return (
        "<p>The bundled model and detector learnt from this art, which keeps its own licences:</p>"
        + table_html("Art", [name.capitalize() for name in head], cells, words=len(head))
    )


def _linked(cell: str) -> str:
    text = escape(cell.strip("`"))
    return re.sub(r"^(https://\S+)$", r'<a href="\1" rel="noreferrer">\1</a>', text)


def _shown(model: str) -> str:
    """A model's name; of a folder on the server only the last part."""
    return model.rstrip("/").rsplit("/", 1)[-1] if model.startswith((".", "/", "~")) else model
