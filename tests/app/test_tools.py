"""The endpoints as tools over MCP: pictures are pictures, all else is JSON."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json

import pytest
from coroutines import run_async
from PIL import Image

from flowsteer.app import tools
from flowsteer.app.api import compare_endpoint, schedule_endpoint, trajectory_endpoint
from flowsteer.app.launch import main
from flowsteer.app.studio import Studio


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "which is not installed"), ("2.0.1", "below 2, and 2.0.1 is installed")],
)
def test_without_an_mcp_that_gradio_can_use_the_app_does_not_start(
    monkeypatch, capsys, found, message
):
    def version(package):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(tools, "version", version)
    assert main(["--mcp"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --mcp needs the package mcp") and message in told
    assert 'pip install "mcp>=1.21,<2"' in told and told.count("\n") == 1


@pytest.mark.parametrize("make", [compare_endpoint, trajectory_endpoint, schedule_endpoint])
def test_the_text_of_every_argument_is_read_to_its_end(make):
    from gradio.utils import get_function_description

    endpoint = make(None)
    description, arguments, returns = get_function_description(endpoint)
    assert description and all(text.endswith(".") for text in arguments.values())
    assert len(returns) == 1 and returns[0].startswith("An object with")
    if "columns" in arguments:
        assert "Without it, the default columns." in arguments["columns"]


@pytest.fixture(scope="module")
def address(tiny_folder):
    """The app with its tools, on the tiny model alone."""
    pytest.importorskip("mcp")
    import gradio as gr

    from flowsteer.app.launch import build_page, launch

    studio = Studio(str(tiny_folder), ["none"], "cpu")
    page = build_page(studio)
    yield launch(page, mcp=True)
    page.close(verbose=False)
    studio.close()
    gr.close_all(verbose=False)


def ask(address, name=None, arguments=None):
    """A tool's answer, or without a name the tools there are."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk():
        url = f"{address}gradio_api/mcp/"
        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as s:
            await s.initialize()
            return await (s.call_tool(name, arguments) if name else s.list_tools())

    return run_async(talk())


def test_a_tool_answers_with_json_and_pictures(address):
    columns = [{"network": "teacher", "steps": 2}, {"network": "teacher", "steps": 1}]
    answer = ask(address, "compare", {"prompt": "a fox", "columns": columns})
    text, *pictures = answer.content
    record = json.loads(text.text)
    assert [card["image"] for card in record["cards"]] == ["picture 1", "picture 2"]
    assert len(text.text) < 5000
    for picture in pictures:
        assert picture.mimeType == "image/png"
        with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
            assert image.size == (128, 128)
    assert len(pictures) == 2


def test_a_tool_leaves_its_pictures_out_where_it_is_asked_to(address):
    arguments = {"prompt": "a fox", "steps": 1, "images": False}
    (text,) = ask(address, "schedule", arguments).content
    assert json.loads(text.text)["stock"]["image"] is None
    wrong = ask(address, "schedule", {"shift": 10**400})
    assert wrong.isError and "shift = 1" in wrong.content[0].text


def test_tools_say_what_they_take(address):
    found = {tool.name: tool for tool in ask(address).tools}
    assert set(found) == {"compare", "trajectory", "schedule"}
    properties = found["compare"].inputSchema["properties"]
    assert "Without it, the default columns." in properties["columns"]["description"]
    assert "leaves out the pictures" in properties["images"]["description"]
