"""Families of pipelines: which can be drawn and distilled, told before gigabytes are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowsteer.untrusted import read_json
from flowsteer.validation import one_line, shorten

DRAWN = "StableDiffusion3Pipeline"
_LOADING_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,  # a configuration may ask for packages that are not there
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def check_drawn(pipe: Any) -> None:
    """Make sure that a loaded pipeline is of the family that flowsteer draws and distils.

    Raises:
        ValueError: naming its class and the one that is needed.
    """
    from diffusers import StableDiffusion3Pipeline

    if not isinstance(pipe, StableDiffusion3Pipeline):
        raise ValueError(
            f"{type(pipe).__name__} is no {DRAWN}, the one that flowsteer draws and distils; call"
            " the pipeline itself"
        )


def check_drawn_index(name: str, index: dict[str, Any]) -> None:
    """The same of a pipeline that is not loaded yet.

    Args:
        name: the model's, for the message.
        index: from `read_index`.

    Raises:
        ValueError: naming its class and the one that is needed.
    """
    kind = index["_class_name"]
    if kind != DRAWN:
        raise ValueError(
            f"model = {name!r} has the class {kind[:80]}; flowsteer draws and distils"
            f" {DRAWN} alone: give a Stable Diffusion 3, such as emoji or"
            " stabilityai/stable-diffusion-3-medium-diffusers"
        )


def read_index(source: str) -> dict[str, Any]:
    """What model_index.json says, in which `_class_name` is a name; that of a hub id is fetched.

    Args:
        source: folder or hub id.

    Raises:
        ValueError: if it is damaged, or names no class.
        OSError: if the hub does not give it.
    """
    if Path(source).is_dir():
        index = read_json(Path(source) / "model_index.json", "a model's model_index.json")
    else:
        from diffusers import DiffusionPipeline

        index = DiffusionPipeline.load_config(source)
    if not isinstance(index, dict):
        raise ValueError("model_index.json must hold a JSON object, as save_pretrained writes it")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ValueError(
            f"model_index.json must name the pipeline's class as _class_name, such as {DRAWN}, and"
            f" has {shorten(kind)}"
        )
    return index


@contextlib.contextmanager
def loading_errors(name: str, local: bool) -> Iterator[None]:
    """Every way in which a pipeline does not load becomes one line.

    Raises:
        ValueError: naming the model.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (*_LOADING_ERRORS, SafetensorError) as error:
        where = "folder" if local else "hub model"
        fix = "" if local else "; check the id, your access to it (hf auth login) and the network"
        raise ValueError(
            f"model = {name!r}: the {where} does not load as a pipeline: {one_line(error)}{fix}"
        ) from error
