"""Samples are functions of seed and number; pictures of a folder come with their own captions."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowsteer.emoji.pipeline import SIZES, build_autoencoder
from flowsteer.training import sources
from flowsteer.training.data import NumberedBatches
from flowsteer.training.sources import (
    Drawn,
    FolderSource,
    PromptSource,
    cached,
    read_picture,
    shuffled_rows,
    vae_encoder,
)

COLORS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
SIZE = 8
WORDS = tuple("abcdefg")


def save(path, color="red", size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLORS.get(color, color)).save(path)


@pytest.fixture
def listed(tmp_path):
    """Four pictures, named by metadata.jsonl; one line uses "caption"."""
    lines = []
    for place, color in enumerate(COLORS):
        name = f"deep/{color}.png" if place == 1 else f"{color}.png"
        save(tmp_path / name, color)
        key = "caption" if place == 2 else "text"
        lines.append(json.dumps({"file_name": name, key: f"all {color}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, ""]))
    return tmp_path


@pytest.fixture
def beside(tmp_path):
    """Four pictures with text files, and files that are none of these."""
    for color, suffix in zip(COLORS, ("png", "PNG", "webp", "jpeg"), strict=True):
        folder = tmp_path / "deep" if color == "blue" else tmp_path
        save(folder / f"{color}.{suffix}", color)
        (folder / f"{color}.txt").write_text(f"  all\n{color}\n")
    (tmp_path / "notes.md").write_text("not a picture")
    (tmp_path / "._red.png").write_text("left behind by a file manager")
    return tmp_path


def color_of(picture):
    """The name in COLORS of a picture of one colour."""
    assert (picture.flatten(1).amax(1) - picture.flatten(1).amin(1)).max() < 0.05
    pixel = (picture[:, 0, 0] + 1) * 127.5
    return min(COLORS, key=lambda name: (pixel - torch.tensor(COLORS[name])).abs().sum())


def cut(first, lengths):
    """Ranges of these lengths, one after the other."""
    for length in lengths:
        yield range(first, first + length)
        first += length


RANGES = (st.integers(0, 50), st.lists(st.integers(0, 5), min_size=1, max_size=5))


@settings(max_examples=30, deadline=None)
@given(*RANGES)
def test_prompts_do_not_depend_on_how_samples_are_batched(first, lengths):
    source = PromptSource(WORDS, seed=1)
    parts = [text for part in cut(first, lengths) for text in source(part).texts]
    assert parts == source(range(first, first + sum(lengths))).texts


def test_prompts_are_drawn_evenly_and_otherwise_by_another_seed():
    texts = PromptSource(WORDS, seed=1)(range(7000)).texts
    counts = Counter(texts)
    assert set(counts) == set(WORDS)
    assert max(abs(count - 1000) for count in counts.values()) < 120  # 4 standard deviations
    other = PromptSource(WORDS, seed=2)(range(7000)).texts
    same = sum(one == two for one, two in zip(texts, other, strict=True))
    assert abs(same - 1000) < 120
    assert PromptSource(WORDS, seed=1)(range(3)).pictures is None


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="texts is empty"):
        PromptSource((), seed=0)


@settings(max_examples=30, deadline=None)
@given(*RANGES, st.integers(1, 9))
def test_every_epoch_is_an_order_of_its_own(first, lengths, count):
    rows = [row for part in cut(first, lengths) for row in shuffled_rows(3, part, count)]
    assert rows == shuffled_rows(3, range(first, first + sum(lengths)), count)
    epoch = range(first * count, (first + 1) * count)
    assert sorted(shuffled_rows(3, epoch, count)) == list(range(count))


def test_orders_differ_by_epoch_and_seed():
    orders = [shuffled_rows(3, range(k * 50, k * 50 + 50), 50) for k in range(3)]
    orders.append(shuffled_rows(4, range(50), 50))
    assert len({tuple(order) for order in [*orders, list(range(50))]}) == 5


@pytest.mark.parametrize("layout", ["listed", "beside"])
def test_pictures_come_with_their_captions(layout, request):
    source = FolderSource(request.getfixturevalue(layout), seed=0, size=SIZE)
    assert sorted(source.texts) == sorted(f"all {color}" for color in COLORS)
    drawn = source(range(8))
    assert drawn.pictures.shape == (8, 3, SIZE, SIZE) and drawn.pictures.dtype == torch.float32
    assert drawn.texts == [f"all {color_of(picture)}" for picture in drawn.pictures]
    assert sorted(drawn.texts[:4]) == sorted(drawn.texts[4:]) == sorted(source.texts)


def test_folder_samples_are_the_same_in_every_batch_and_process(listed):
    source = FolderSource(str(listed), seed=5, size=SIZE)
    whole = source(range(12))
    for lengths in ([12], [1] * 12, [5, 0, 7]):
        parts = [source(part) for part in cut(0, lengths)]
        assert [text for part in parts for text in part.texts] == whole.texts
        assert torch.equal(torch.cat([part.pictures for part in parts]), whole.pictures)
    copy = pickle.loads(pickle.dumps(source))
    worker = NumberedBatches(sources._Numbered(copy, 6), num_workers=1)(1)
    assert worker.texts == whole.texts[6:] and torch.equal(worker.pictures, whole.pictures[6:])
    assert FolderSource(listed, seed=6, size=SIZE)(range(12)).texts != whole.texts


def test_captions_are_read_as_the_model_reads_them(listed):
    source = FolderSource(listed, seed=0, size=SIZE, read=str.upper)
    assert sorted(source.texts) == sorted(f"ALL {color.upper()}" for color in COLORS)
    with pytest.raises(ValueError, match=r"red.png \(and 3 more\) has an empty caption"):
        FolderSource(listed, seed=0, size=SIZE, read=lambda text: " ")


def metadata(folder, text):
    save(folder / "red.png")
    (folder / "metadata.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.rmdir(), "is no folder"),
        (lambda f: (f / "cat.gif").touch(), r"has no picture \(png, jpg, jpeg, webp\)"),
        (lambda f: save(f / "red.png"), r"red.png has no caption; write it beside, as NAME.txt"),
        (lambda f: (save(f / "red.png"), (f / "red.txt").write_text(" \n")), "an empty caption"),
        (
            lambda f: (save(f / "red.png"), (f / "red.txt").write_bytes(b"\xff\xfe\xfa")),
            "red.txt is not readable as UTF-8",
        ),
        (lambda f: metadata(f, "\n"), "metadata.jsonl is empty"),
        (lambda f: metadata(f, b"\xff\xfe\xfa"), "metadata.jsonl is not readable as UTF-8"),
        (
            lambda f: metadata(f, '\n{"file_name"'),
            "line 2 is not readable as JSON.*write it as",
        ),
        (lambda f: metadata(f, '["red.png"]'), "line 1 = .* lacks file_name or text"),
        (lambda f: metadata(f, '{"text": "x"}'), "lacks file_name or text"),
        (lambda f: metadata(f, '{"file_name": "red.png", "text": 3}'), "lacks file_name or text"),
        (lambda f: metadata(f, '{"file_name": "red.png", "text": ""}'), "has an empty caption"),
        (lambda f: metadata(f, '{"file_name": "a.png", "text": "x"}'), "a.png is named in meta"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_at_once(tmp_path, make, message):
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    with pytest.raises(ValueError, match=message):
        FolderSource(folder, seed=0, size=SIZE)


def test_a_size_of_zero_is_refused(listed):
    with pytest.raises(ValueError, match="size = 0 must be a whole number from 1"):
        FolderSource(listed, seed=0, size=0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("damage", ["cut off", "no picture", "empty"])
def test_a_broken_picture_is_named(tmp_path, suffix, damage):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    content = {"cut off": whole[: len(whole) // 2], "no picture": b"hello", "empty": b""}[damage]
    path.write_bytes(content)
    (tmp_path / "broken.txt").write_text("noise")
    source = FolderSource(tmp_path, seed=0, size=SIZE)
    with pytest.raises(ValueError, match=f"broken.{suffix} is not readable as a picture"):
        source(range(1))


@pytest.mark.parametrize("upright", [False, True])
def test_the_centre_square_is_kept(tmp_path, upright):
    """Red, lime and blue squares in a row: the middle one is left, as if resized, then cut out."""
    image = Image.new("RGB", (60, 20))
    for place, color in enumerate(("red", "lime", "blue")):
        image.paste(COLORS[color], (20 * place, 0, 20 * place + 20, 20))
    small = image.resize((48, 16), Image.Resampling.LANCZOS).crop((16, 0, 32, 16))
    turn = Image.Transpose.ROTATE_90
    if upright:
        image, small = image.transpose(turn), small.transpose(turn)
    image.save(tmp_path / "row.png")
    x = read_picture(tmp_path / "row.png", 16)
    expected = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(x, expected, rtol=0, atol=1.01 / 127.5)
    assert color_of(x[:, 4:-4, 4:-4]) == "lime"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """A camera's file: stored pixels and the turn that makes them upright."""
    upright = Image.new("RGB", (32, 32), COLORS["blue"])
    upright.paste(COLORS["red"], (0, 0, 16, 16))
    turn = Image.Transpose
    stored = {
        1: None,
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = upright if stored is None else upright.transpose(stored)
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    x = read_picture(tmp_path / "photo.jpg", 16)
    quarters = x[:, 4::8, 4::8].permute(1, 2, 0).flatten(0, 1)
    expected = torch.tensor([COLORS[name] for name in ("red", "blue", "blue", "blue")])
    torch.testing.assert_close(quarters, expected / 127.5 - 1, rtol=0, atol=0.1)


def test_a_palettes_transparent_colour_becomes_white(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert color_of(read_picture(tmp_path / "plain.png", 4)) == "red"
    assert color_of(read_picture(tmp_path / "clear.png", 4)) == "white"


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return build_autoencoder(SIZES["tiny"]).requires_grad_(False).eval()


def test_latents_are_shifted_and_scaled(vae):
    pictures = torch.rand(3, 3, 32, 32) * 2 - 1
    z = vae.encode(pictures).latent_dist.mean
    for scale, shift in ((1.5305, 0.0609), (2.0, None)):  # SD3's own; an autoencoder without shift
        vae.register_to_config(scaling_factor=scale, shift_factor=shift)
        latents = vae_encoder(vae)(pictures)
        # what pipelines do before they decode, undone
        torch.testing.assert_close(latents / scale + (shift or 0), z)
    assert latents.dtype == torch.float32 and latents.shape == (3, 16, 4, 4)


def test_pictures_are_encoded_a_few_at_a_time_in_the_autoencoders_precision(vae, monkeypatch):
    pictures = torch.rand(5, 3, 32, 32) * 2 - 1
    sizes = []
    hook = vae.encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    whole = vae_encoder(vae)(pictures)
    monkeypatch.setattr(sources, "_PIXELS_AT_ONCE", 2 * 32 * 32)
    torch.testing.assert_close(vae_encoder(vae)(pictures), whole, rtol=1e-4, atol=1e-5)
    hook.remove()
    assert sizes == [5, 2, 2, 1]
    halved = vae_encoder(vae.bfloat16())(pictures)
    assert halved.dtype == torch.float32 and not torch.equal(halved, whole)
    assert (halved - whole).norm() < 0.1 * whole.norm()


def shrink(pictures):
    """An `Encode` whose result tells the picture."""
    return pictures[:, :, ::4, ::4]


@pytest.mark.parametrize("workers", [0, 1])
def test_cached_samples_keep_their_captions(listed, workers):
    source = FolderSource(listed, seed=2, size=SIZE)
    drawn, encode = cached(source, shrink, 5, batch_size=2, num_workers=workers)
    first = source(range(5))
    assert drawn.texts == tuple(first.texts)
    got = drawn(range(10))
    for half in (slice(0, 5), slice(5, 10)):
        assert sorted(got.texts[half]) == sorted(first.texts)
    latents = encode(got.pictures)
    assert latents.dtype == torch.float32
    rows = got.pictures.tolist()
    assert got.texts == [first.texts[row] for row in rows]
    assert torch.equal(latents, shrink(first.pictures)[rows].half().float())
    assert [f"all {color_of(latent)}" for latent in latents] == got.texts


def test_cached_samples_do_not_depend_on_how_they_are_batched(listed):
    source = FolderSource(listed, seed=2, size=SIZE)
    drawn, encode = cached(source, shrink, 4, seed=7)
    pickle.loads(pickle.dumps(drawn))
    whole = drawn(range(12))
    parts = [drawn(part) for part in cut(0, [5, 1, 6])]
    assert [text for part in parts for text in part.texts] == whole.texts
    pieces = [encode(part.pictures) for part in parts]
    assert torch.equal(torch.cat(pieces), encode(whole.pictures))
    assert cached(source, shrink, 4, seed=8)[0](range(12)).texts != whole.texts


def test_what_cannot_be_cached_is_refused(listed):
    source = FolderSource(listed, seed=2, size=SIZE)
    with pytest.raises(ValueError, match="count = 0 must be at least 1"):
        cached(source, shrink, 0)
    with pytest.raises(ValueError, match="prompts alone"):
        cached(PromptSource(WORDS, 0), shrink, 3)
    with pytest.raises(ValueError, match="not finite; load it in float32"):
        cached(source, lambda pictures: shrink(pictures) * 1e6, 3)


def test_a_source_is_any_function_of_numbers():
    """What `cached` asks of a source is the protocol, nothing more."""

    def squares(numbers):
        return Drawn([str(n) for n in numbers], torch.tensor([[n * n] for n in numbers]))

    drawn, encode = cached(squares, lambda pictures: pictures.float(), 6, batch_size=4)
    got = drawn(range(6, 12))
    assert [int(text) ** 2 for text in got.texts] == encode(got.pictures)[:, 0].tolist()
    assert sorted(got.texts) == list("012345")
