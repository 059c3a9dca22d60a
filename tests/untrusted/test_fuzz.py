"""Mutated files: each is read as a reader without bounds would, or refused in one line.

300 mutations of each of nine kinds of file, 2,700 in all; 3,000 of each, 27,000 in all, under the
marker `soak`. They run in a process of their own (this file, as a script), whose memory is limited
to 1.5 GB above what it needs when it starts.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK, MANY = 300, 3000
ROOM = 1_500_000_000  # bytes
HANGS = 3600  # seconds for all cases
DEEP: Any = 0
for _ in range(100):
    DEEP = [DEEP]
HOSTILE = [
    *(None, True, False, -1, 0, 1, 2, 3, 1000, 10**6, 10**7, 10**10, 2**63, 10**18, 10**400),
    *(0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 0.5, 1e6),
    *("", "x", "3", "a\u2028b", "../x", "/dev/zero", "a\0b", "\ud800", "x" * 100_000),
    *([], {}, [[]], [0] * 10_000, ["x"], {"x": 1}, DEEP),
]


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """One to four small damages."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice([1, 1, 2, 8, 100])
        kind = rng.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = rng.randbytes(length)
        elif kind == 3:
            data[place:place] = data[place : place + length]
        elif rng.random() < 0.3:
            del data[place:]
        else:
            data[place : place + 1] = rng.choice(b'[]{}",:0\n\r\xff\x00 9-e').to_bytes(1, "big")
    return bytes(data)


def mutate_value(rng: random.Random, value: Any) -> Any:
    """A JSON value with one node of it changed, dropped, repeated or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        kind = rng.randrange(6)
        if kind == 0:
            return {key: inner for key, inner in value.items() if key != name}
        if kind == 1:
            return value | {rng.choice([*value, "more", "../more", ""]): value[name]}
        return value | {name: mutate_value(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        kind = rng.randrange(4)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return value * rng.choice([2, 100])
        return [*value[:place], mutate_value(rng, value[place]), *value[place + 1 :]]
    return rng.choice(HOSTILE)


def mutate_text(rng: random.Random, content: bytes) -> bytes:
    """JSON changed by structure or by bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    return json.dumps(mutate_value(rng, json.loads(content))).encode()


def student(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A student's flowsteer.json."""
    from flowsteer.students import INFO_FILE, StudentInfo

    original = (Path(sources["lora"]) / INFO_FILE).read_bytes()
    (folder / INFO_FILE).write_bytes(mutate_text(rng, original))

    def read() -> None:
        info = StudentInfo.load(folder)
        info.save(folder)
        assert StudentInfo.load(folder) == info

    return read


def same_tensors(path: Path) -> None:
    """Our reader's tensors are those of safetensors' own, which takes more."""
    import torch
    from safetensors.torch import load_file

    from flowsteer.untrusted import read_tensors

    ours, theirs = read_tensors(path), load_file(path)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]) and tensor.isfinite().all()


def mutate_weights(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file: its header by structure, or any of its bytes near the begin."""
    end = 8 + int.from_bytes(content[:8], "little")
    if rng.random() < 0.3:
        return mutate_bytes(rng, content[: end + 64]) + content[end + 64 :]
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    header = mutate_text(rng, content[8:end])
    return len(header).to_bytes(8, "little") + header + content[end:]


def weights(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A network's safetensors."""
    path = folder / "w.safetensors"
    original = Path(sources["tiny"]) / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(mutate_weights(rng, original.read_bytes()))
    return lambda: same_tensors(path)


def lora(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A LoRA, and its settings in the header."""
    from flowsteer.models.lora_files import SETTINGS, check_lora_file
    from flowsteer.students import LORA_FILE

    content = (Path(sources["lora"]) / LORA_FILE).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    if rng.random() < 0.5:
        header = json.loads(content[8:end])
        settings = header["__metadata__"][SETTINGS].encode()
        header["__metadata__"][SETTINGS] = mutate_text(rng, settings).decode("latin-1")
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + content[end:]
    else:
        content = mutate_weights(rng, content)
    path = folder / LORA_FILE
    path.write_bytes(content)

    def read() -> None:
        check_lora_file(path)
        same_tensors(path)

    return read


CONFIGS = ("transformer/config.json", "vae/config.json", "text_encoder/config.json")
CONFIGS += ("scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json")
CONFIGS += ("model_index.json",)


def config(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A configuration of a pipeline; the first that pass are loaded too."""
    from flowsteer.loading import load_pipeline
    from flowsteer.models.folders import check_pipeline_folder

    name = rng.choice(CONFIGS)
    model = folder / "model"
    if not model.exists():
        shutil.copytree(sources["tiny"], model)
    for each in CONFIGS:
        shutil.copyfile(Path(sources["tiny"]) / each, model / each)
    (model / name).write_bytes(mutate_text(rng, (model / name).read_bytes()))

    def read() -> None:
        check_pipeline_folder(model)
        if (left := sources.setdefault("loads", 15)) > 0:  # type: ignore[arg-type]
            sources["loads"] = left - 1  # type: ignore[operator, assignment]
            load_pipeline(str(model), device="cpu")

    return read


def comparison(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """The app's ZIP: its settings by structure, a picture or the archive by bytes."""
    from PIL import Image

    from flowsteer.comparing import columns_for
    from flowsteer.comparison_files import file_record, picture_file, read_comparison

    columns = columns_for(None)[:2]
    record = file_record("emoji", "a fox", (3, 4), columns, [])
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, format="PNG")
    settings, png = json.dumps(record).encode(), picture.getvalue()
    part = rng.randrange(3)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("settings.json", mutate_text(rng, settings) if part == 0 else settings)
        content = mutate_bytes(rng, png) if part == 1 else png
        archive.writestr(picture_file(columns[0], 3), content)
    path = folder / "comparison.zip"
    path.write_bytes(mutate_bytes(rng, packed.getvalue()) if part == 2 else packed.getvalue())

    def read() -> None:
        saved = read_comparison(path)
        assert len(saved.columns) >= 1 and all(p.mode == "RGB" for p in saved.pictures.values())

    return read


def data(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A folder of captioned pictures: metadata.jsonl by structure, or a picture by bytes."""
    from PIL import Image

    from flowsteer.training.sources import FolderSource

    kind = rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    picture = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(picture, format=kind)
    line = json.dumps({"file_name": "a.png", "text": "a koala"}).encode()
    changed = rng.random() < 0.5
    content = picture.getvalue()
    (folder / "a.png").write_bytes(content if changed else mutate_bytes(rng, content))
    lines = b"\n".join([line, mutate_text(rng, line) if changed else line])
    (folder / "metadata.jsonl").write_bytes(lines)

    def read() -> None:
        drawn = FolderSource(folder, 0, 8)(range(2))
        assert drawn.pictures.isfinite().all() and all(drawn.texts)

    return read


def record(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """What a PNG of ours says of itself."""
    from PIL import Image

    from flowsteer.pictures import read_record, save_png

    path = folder / "a.png"
    said = {"model": "emoji", "seed": 3, "sigmas": [1.0, 0.5, 0.0], "versions": {"torch": "2"}}
    if rng.random() < 0.6:
        said = mutate_value(rng, said)
    save_png(Image.new("RGB", (8, 8)), path, said)
    if rng.random() < 0.6:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))

    def read() -> None:
        assert isinstance(read_record(path), dict)

    return read


def checkpoint(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A run's checkpoint: its record by structure, or its tensors, with the right checksum."""
    import torch

    from flowsteer.training.checkpoints import load_checkpoint, save_checkpoint

    shutil.rmtree(folder / "checkpoint-7", ignore_errors=True)
    tensors = {"model": {"w": torch.ones(3), "v": torch.zeros(2, 2)}}
    saved = save_checkpoint(folder, 7, tensors, {"seconds": 2.5})
    record, file = saved / "checkpoint.json", saved / "model.safetensors"
    if rng.random() < 0.5:
        record.write_bytes(mutate_text(rng, record.read_bytes()))
    else:
        file.write_bytes(mutate_weights(rng, file.read_bytes()))
        values = json.loads(record.read_text())
        values["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        record.write_text(json.dumps(values))

    def read() -> None:
        step, found, _ = load_checkpoint(saved)
        assert step == 7 and all(w.isfinite().all() for w in found.get("model", {}).values())

    return read


def prompts(rng: random.Random, folder: Path, sources: dict[str, str]) -> Callable[[], None]:
    """A file of prompts."""
    from flowsteer.cli.inputs import read_prompts

    path = folder / "prompts.txt"
    text = "a koala\r\na pizza\u2028on blue\n# a remark\n\nein Bär\n".encode()
    text = text + b"x" * rng.choice([0, 0, 999, 1001, 10**6])
    path.write_bytes(mutate_bytes(rng, text))

    def read() -> None:
        assert all(0 < len(prompt) <= 1000 for prompt in read_prompts(path))

    return read


KINDS = {
    each.__name__: each
    for each in (student, weights, lora, config, comparison, data, record, checkpoint, prompts)
}


def fuzz(kind: str, count: int, folder: Path, sources: dict[str, str]) -> dict[str, int]:
    """Count what became of so many mutations; anything but one line of ValueError is raised."""
    outcomes = {"read": 0, "refused": 0}
    for number in range(count):
        read = KINDS[kind](random.Random(f"{kind}/{number}"), folder, sources)
        try:
            with warnings.catch_warnings(action="ignore"):
                read()
        except ValueError as error:
            message = str(error)
            named = str(folder) in message
            if type(error) is not ValueError or not named or not message.isprintable():
                raise AssertionError(f"{kind} {number}: {message!r}") from error
            assert len(message) < 3000, f"{kind} {number}: {len(message)} characters"
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{kind} {number}: {error!r}") from error
        else:
            outcomes["read"] += 1
    return outcomes


def limit_memory() -> None:
    """Whatever this process takes from here on beyond ROOM raises MemoryError."""
    import resource

    import flowsteer.comparison_files
    import flowsteer.loading
    import flowsteer.training.sources  # noqa: F401 (their memory is none of a file's)

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(count: str, folder: str, sources: str, *kinds: str) -> None:
    """Run as a script: print each kind's outcomes as JSON."""
    limit_memory()
    for kind in kinds or KINDS:
        home = Path(folder) / kind
        home.mkdir()
        print(json.dumps([kind, fuzz(kind, int(count), home, json.loads(sources))]), flush=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as on Linux")
@pytest.mark.parametrize("count", [QUICK, pytest.param(MANY, marks=pytest.mark.soak)])
def test_mutated_files_are_read_or_refused_in_bounds(count, tmp_path, tiny_folder, lora_student):
    sources = {"tiny": str(tiny_folder), "lora": str(lora_student)}
    words = [sys.executable, __file__, str(count), str(tmp_path), json.dumps(sources)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = dict(json.loads(line) for line in done.stdout.splitlines())
    assert outcomes.keys() == KINDS.keys()
    for kind, counted in outcomes.items():
        assert sum(counted.values()) == count
        assert min(counted.values()) > count // 50, f"{kind}: {counted}"


if __name__ == "__main__":
    main(*sys.argv[1:])
