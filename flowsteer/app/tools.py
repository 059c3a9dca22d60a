"""The endpoints as tools of a language model (MCP): pictures as pictures, all else as JSON."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gradio as gr

FIX = 'run: pip install "mcp>=1.21,<2"'
PNG = "data:image/png;base64,"


def check_installed() -> None:
    """Refuse to start without the version of `mcp` that Gradio can use.

    Raises:
        ValueError: with the command that installs it.
    """
    try:
        found = version("mcp")
    except PackageNotFoundError:
        raise ValueError(f"--mcp needs the package mcp, which is not installed; {FIX}") from None
    if int(found.split(".")[0]) != 1:
        raise ValueError(f"--mcp needs the package mcp below 2, and {found} is installed; {FIX}")


def serve_pictures(page: gr.Blocks) -> None:
    """Let the tools of a page that is served answer with pictures.

    Gradio's own server writes a Python text of an answer, with the bytes of its pictures in it.

    Raises:
        ValueError: if the server of the tools did not start.
    """
    server = page.mcp_server_obj
    if server is None or not page.mcp_server:
        raise ValueError(f"--mcp: {page.mcp_error or 'the tools could not be served'}; {FIX}")
    server.postprocess_output_data = lambda data, root_url: [
        part for answer in data for part in contents(answer)
    ]


def contents(answer: Any) -> list[Any]:
    """An answer as MCP content: one text of JSON, and its pictures in the order of their numbers.

    Args:
        answer: JSON values, with pictures as data URIs of PNGs.
    """
    from mcp import types

    pictures: list[str] = []

    def numbered(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: numbered(part) for name, part in value.items()}
        if isinstance(value, list):
            return [numbered(part) for part in value]
        if isinstance(value, str) and value.startswith(PNG):
            pictures.append(value.removeprefix(PNG))
            return f"picture {len(pictures)}"
        return value

    text = json.dumps(numbered(answer), ensure_ascii=False)
    shown = [types.ImageContent(type="image", data=d, mimeType="image/png") for d in pictures]
    return [types.TextContent(type="text", text=text), *shown]
