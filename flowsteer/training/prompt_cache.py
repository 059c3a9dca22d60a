"""Prompt embeddings on disk: a finite list of prompts is encoded once, for all runs.

A folder holds files `prompts-MODEL-TEXTS.safetensors`. MODEL is a hash of what the embeddings
depend on (model id, text encoders, version), TEXTS one of the file's prompts. The files of one
model add up, so that a longer list costs only what is new in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from diffusers import StableDiffusion3Pipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import flowsteer
from flowsteer.models.sd3 import FoldedCondition, TextCondition, condition_form, encode_prompts
from flowsteer.untrusted import name_of, parse_json, read_header
from flowsteer.validation import shorten

PROMPTS_PER_FILE = 256  # with T5, a prompt of SD3 takes 2.7 MB in half precision
_VALUES_PER_PARAMETER = 16


class PromptCache:
    """Embeddings of a list of prompts, read from disk when they are asked for.

    `PromptCache.build` makes one; from then on the text encoders are not needed.
    """

    def __init__(self, folder: Path, rows: dict[str, _Row], form: type[TextCondition]):
        self.folder, self._rows, self._form = folder, rows, form

    @classmethod
    def build(
        cls,
        pipe: StableDiffusion3Pipeline,
        texts: Sequence[str],
        folder: str | Path,
        model_id: str,
        batch_size: int = 32,
    ) -> PromptCache:
        """Encode the prompts that the folder lacks, under a progress bar.

        Files appear whole, so that a build that is cut off goes on where it stopped. One that is
        damaged is deleted and its prompts encoded anew, with a warning: it holds nothing that
        cannot be had again, and no run should die of it. Only headers are read here; damaged values
        show when they are asked for. Processes that build at once all do the same work.

        Args:
            pipe: whose text encoders are asked, where they are.
            texts: prompts, taken as they are; repeated ones count once.
            folder: of the cache, made if need be.
            model_id: the pipeline's name, folder or hub id.
            batch_size: prompts encoded at once.

        Raises:
            ValueError: if there is no prompt, or a file is in the folder's way.
        """
        folder, wanted = Path(folder), list(dict.fromkeys(texts))
        if not wanted or batch_size < 1:
            raise ValueError(
                f"{len(wanted)} prompts and batch_size = {batch_size} must be at least 1 each"
            )
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"the prompt cache {folder} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        model = model_key(pipe, model_id)
        rows = _stored(folder, model)
        missing = [text for text in wanted if text not in rows]
        hidden = not missing or not PartialState().is_main_process
        with tqdm(total=len(missing), desc="embed prompts", unit="prompt", disable=hidden) as bar:
            for part in _batched(missing, PROMPTS_PER_FILE):
                conds = []
                for batch in _batched(part, batch_size):
                    conds.append([leaf.cpu() for leaf in encode_prompts(pipe, batch)])
                    bar.update(len(batch))
                tokens, pooled = (torch.cat(leaves) for leaves in zip(*conds, strict=True))
                path = _write(folder, model, part, TextCondition(tokens, pooled))
                rows |= _File(path).rows()
        return cls(folder, {text: rows[text] for text in wanted}, condition_form(pipe))

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> TextCondition:
        """The condition of one or more of the prompts, in the precision of the text encoders.

        Raises:
            ValueError: if a prompt is not in the cache, or its values are damaged.
        """
        found = []
        for text in texts:
            if text not in self._rows:
                raise ValueError(
                    f"prompt {shorten(text)} is not in the cache in {self.folder}; build it with"
                    " every prompt that the run draws"
                )
            file, place = self._rows[text]
            found.append(file.read(place))
        leaves = (torch.stack(leaves).to(device) for leaves in zip(*found, strict=True))
        return self._form(*leaves)

    def on(self, device: torch.device | str) -> Callable[[Sequence[str]], TextCondition]:
        """The cache as a function of prompts alone, which gives conditions on a device."""
        return partial(self, device=device)


def model_key(pipe: StableDiffusion3Pipeline, model_id: str) -> str:
    """A hash, in hex, of what a prompt's embeddings depend on.

    Besides the model's id and our version these are the form of the condition (folded or not) and
    the text encoders: a folder may hold other weights tomorrow, or be loaded in half precision. Of
    each parameter the first values count, since training moves all.
    """
    digest = hashlib.sha256()
    folded = condition_form(pipe) is FoldedCondition
    form = (flowsteer.__version__, model_id, folded, pipe.tokenizer_max_length)
    digest.update(json.dumps(form).encode())
    for encoder in (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
        parameters = () if encoder is None else encoder.named_parameters()
        for name, parameter in parameters:
            values = parameter.detach().flatten()[:_VALUES_PER_PARAMETER].float().cpu()
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            digest.update(values.numpy().tobytes())
        digest.update(b"end of encoder")
    return digest.hexdigest()


class _Row(NamedTuple):
    """Where a prompt's embeddings are."""

    file: _File
    place: int


class _File:
    """One file of the cache; opening reads its header.

    Raises:
        ValueError: if it is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.texts: list[str]
        self._sums: list[int]
        self._checked: set[int] = set()
        header = read_header(path)
        where = name_of(path)
        self.texts, self._sums = (
            parse_json(header.metadata.get(name, "null"), f"{name} of {where}")
            for name in ("prompts", "crc32")
        )
        lists = isinstance(self.texts, list) and isinstance(self._sums, list)
        shapes = [info.shape for info in header.tensors.values()]
        if (
            not lists
            or not all(isinstance(text, str) for text in self.texts)
            or not all(type(number) is int for number in self._sums)
            or header.tensors.keys() != set(TextCondition._fields)
            or {len(self.texts), len(self._sums)} != {shape[0] if shape else -1 for shape in shapes}
        ):
            raise ValueError(f"{where} is damaged: prompts, checksums and embeddings differ")
        try:
            self._file = safe_open(path, framework="pt")
            self._leaves = [self._file.get_slice(name) for name in TextCondition._fields]
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{where} is damaged: {error}") from error

    def rows(self) -> dict[str, _Row]:
        """Where each of its prompts is."""
        return {text: _Row(self, place) for place, text in enumerate(self.texts)}

    def read(self, place: int) -> tuple[Tensor, ...]:
        """Tokens (length, channels) and pooled (channels,) of a prompt; checked once.

        Raises:
            ValueError: if the values are not those that were written.
        """
        leaves = tuple(leaf[place] for leaf in self._leaves)
        if place not in self._checked:
            finite = all(bool(leaf.isfinite().all()) for leaf in leaves)
            if not finite or _checksum(leaves) != self._sums[place]:
                raise ValueError(
                    f"{self.path} is damaged: the embeddings of {shorten(self.texts[place])} do not"
                    " match their checksum; delete the file and run again"
                )
            self._checked.add(place)
        return leaves


def _stored(folder: Path, model: str) -> dict[str, _Row]:
    """What the folder holds of a model; damaged files are deleted with a warning."""
    rows: dict[str, _Row] = {}
    for path in sorted(folder.glob(f"prompts-{model[:16]}-*.safetensors")):
        try:
            rows |= _File(path).rows()
        except ValueError as error:
            warnings.warn(f"{error}; its prompts are encoded anew", stacklevel=3)
            path.unlink(missing_ok=True)
    return rows


def _write(folder: Path, model: str, texts: Sequence[str], cond: TextCondition) -> Path:
    """Write a file of the cache: aside first, then renamed into place."""
    prompts = json.dumps(list(texts))
    name = f"prompts-{model[:16]}-{hashlib.sha256(prompts.encode()).hexdigest()[:16]}.safetensors"
    sums = [_checksum(leaves) for leaves in zip(*cond, strict=True)]
    aside = folder / f".{uuid.uuid4().hex}-{name}"
    try:
        save_file(cond._asdict(), aside, {"prompts": prompts, "crc32": json.dumps(sums)})
        os.replace(aside, folder / name)
    finally:
        aside.unlink(missing_ok=True)
    return folder / name


def _checksum(leaves: Sequence[Tensor]) -> int:
    """CRC-32 of the bytes of some tensors, one after the other."""
    total = 0
    for leaf in leaves:
        total = zlib.crc32(leaf.contiguous().view(torch.uint8).numpy().data, total)
    return total


def _batched(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Parts of at most `size` prompts, in order."""
    for low in range(0, len(texts), size):
        yield texts[low : low + size]
