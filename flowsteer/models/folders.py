"""Folders that claim to be a pipeline or a network, looked through before anything is built.

A configuration is a claim about weights. What it claims is compared with the weights' headers
while networks exist on torch's meta device alone, so that neither memory nor time follow it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from flowsteer.models.config_numbers import (
    CHECKS,
    check_parts_fit,
    check_scheduler_numbers,
    check_tokenizer_numbers,
)
from flowsteer.models.outline import Shapes, check_weights_fit
from flowsteer.untrusted import (
    check_finite,
    check_real,
    name_of,
    read_bytes,
    read_header,
    read_json,
)
from flowsteer.validation import shorten

INDEX = "model_index.json"
CLASSES = {
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModelWithProjection",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "text_encoder_3": ("T5EncoderModel",),
}
"""The networks of Stable Diffusion 3 by their names in a pipeline."""
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
MOST_INDEX_BYTES = 20_000_000
MOST_TOKENIZER_BYTES = 100_000_000  # the largest published vocabularies have 35 MB


def check_pipeline_folder(folder: str | os.PathLike[str]) -> None:
    """Make sure that a folder can be the Stable Diffusion 3 pipeline that it claims to be.

    Nothing is built. Of a pipeline of another family only the claim is read.

    Raises:
        ValueError: in one line that names the file, if one is missing or no regular file, too
            large or damaged, or a value in a configuration is wrong or does not fit the weights.
    """
    root, configs = Path(folder), {}
    index, where = _config(root / INDEX)
    if not str(index.get("_class_name")).startswith("StableDiffusion3"):
        return
    for name, (library, kind) in _parts(index, where).items():
        part = root / name
        if name == "scheduler":
            check_scheduler_numbers(*_config(part / "scheduler_config.json"))
        elif name.startswith("tokenizer"):
            configs[name] = _read_tokenizer(part)
        elif name in CLASSES:
            if kind not in CLASSES[name]:
                allowed = " or ".join(CLASSES[name])
                raise ValueError(
                    f"{where} has {shorten(kind)} as its {name}; flowsteer draws with {allowed}"
                )
            configs[name] = check_network_folder(part, kind, library)
        else:
            _read_all_json(part)
    check_parts_fit(name_of(root), configs)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        encoder = configs.get(name.replace("tokenizer", "text_encoder"))
        if name in configs and encoder is not None:
            check_tokenizer_numbers(name_of(root / name), configs[name], encoder)


def check_network_folder(
    folder: str | os.PathLike[str],
    kind: str = "SD3Transformer2DModel",
    library: str = "diffusers",
) -> dict[str, Any]:
    """Make sure that a network's folder holds whole weights, and the configuration that is theirs.

    Args:
        folder: with config.json and safetensors.
        kind: the network's class.
        library: it comes from, diffusers or transformers.

    Returns:
        The configuration.

    Raises:
        ValueError: as `check_pipeline_folder`.
    """
    part = Path(folder)
    values, where = _config(part / "config.json")
    named = values.get("_class_name", kind)
    if named != kind:
        raise ValueError(f"{where} describes {shorten(named)}, and {kind} is needed")
    CHECKS[kind](values, where)
    if "adapter_config.json" in _read_all_json(part):
        raise ValueError(
            f"{name_of(part)} has adapters beside its weights; merge them, or take them out"
        )
    check_weights_fit(values, where, kind, library, _weights(part, STEMS[library]))
    return values


def check_pipeline_values(pipe: Any, name: str) -> None:
    """Make sure that every weight of a loaded pipeline's networks is finite.

    Raises:
        ValueError: naming the network and the weight.
    """
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            check_finite(dict(module.named_parameters()), f"{part} of {name}")


def _parts(index: dict[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Name -> library and class of what model_index.json says is there."""
    found = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry == [None, None]:
            continue
        texts = len(entry) == 2 and all(isinstance(word, str) for word in entry)
        if not texts or not name.isidentifier():
            raise ValueError(
                f"{where} has {shorten(name)} = {shorten(entry)}; each part is a library and a"
                ' class, such as ["diffusers", "AutoencoderKL"]'
            )
        found[name] = (entry[0], entry[1])
        if name in CLASSES and entry[0] not in STEMS:
            raise ValueError(f"{where} takes {name} from {shorten(entry[0])}, not diffusers")
    if lacking := {"scheduler", "transformer", "vae", "text_encoder", "tokenizer"} - found.keys():
        raise ValueError(f"{where} lacks {', '.join(sorted(lacking))}; fetch the model again")
    return found


def _config(path: Path) -> tuple[dict[str, Any], str]:
    values = read_json(path, f"a model's {path.name}")
    if not isinstance(values, dict):
        raise ValueError(f"{name_of(path)} must hold a JSON object, as save_pretrained writes it")
    return values, name_of(path)


def _read_all_json(part: Path) -> dict[str, Any]:
    """Every JSON file of a folder, since any may be read while loading."""
    if not part.is_dir():
        raise ValueError(f"{name_of(part)} is not there, or no folder; fetch the model again")
    paths = sorted(path for path in part.iterdir() if path.suffix == ".json")
    return {
        path.name: read_json(path, f"a model's {path.name}", MOST_TOKENIZER_BYTES) for path in paths
    }


def _read_tokenizer(part: Path) -> dict[str, Any]:
    """The JSON files of a tokenizer's folder; other files are only made sure of."""
    files = _read_all_json(part)
    for path in sorted(part.iterdir()):
        if path.name not in files:
            read_bytes(path, "a tokenizer's file", MOST_TOKENIZER_BYTES)
    whole = part / "tokenizer.json"
    if whole.name not in files:  # without words transformers makes a tokenizer of none
        if not any((part / name).exists() for name in ("vocab.json", "spiece.model")):
            raise ValueError(f"{name_of(part)} has no words: {whole.name} is not there")
        return files
    try:
        Tokenizer.from_file(str(whole))
    except Exception as error:  # the library raises no other class
        reason = shorten(str(error), 120)
        raise ValueError(f"{name_of(whole)} is no tokenizer: {reason}; fetch it again") from error
    return files


def _weights(part: Path, stem: str) -> Shapes:
    """Shapes of a network's weights by name, from one file or several with an index."""
    whole, index = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
    if os.path.lexists(index) and not (stem == "model" and os.path.lexists(whole)):
        return _sharded(part, index)
    if not os.path.lexists(whole):
        raise ValueError(f"{name_of(part)} has no weights: {whole.name} is not there")
    return dict(_shapes(whole))


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    header = read_header(path)
    check_real(header)
    for name, info in header.tensors.items():
        yield name, info.shape


def _sharded(part: Path, index: Path) -> Shapes:
    record = read_json(index, "an index of weights", MOST_INDEX_BYTES)
    where = name_of(index)
    files = record.get("weight_map") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{where} has no weight_map from names to files; fetch it again")
    found: dict[str, tuple[int, ...]] = {}
    for file in files.values():
        if file != os.path.basename(file) or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(
                f"{where} names the file {shorten(file)}; weights are NAME.safetensors beside it"
            )
    for file in sorted(set(files.values())):
        shard = dict(_shapes(part / file))
        if twice := sorted(shard.keys() & found.keys()):
            raise ValueError(f"{name_of(part / file)} repeats {shorten(twice[0])} of another file")
        found |= shard
        _same_names(where, part / file, {n for n, f in files.items() if f == file}, shard)
    return found


def _same_names(where: str, shard: Path, listed: set[str], held: Mapping[str, Any]) -> None:
    if differing := sorted(listed ^ held.keys()):
        raise ValueError(
            f"{where} and {name_of(shard)} differ in {shorten(differing[0])}; fetch both again"
        )
