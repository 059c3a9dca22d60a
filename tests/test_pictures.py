import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flowsteer.comparing import PipelineSet, columns_for, compare
from flowsteer.generation import Settings, generate
from flowsteer.pictures import (
    card_lines,
    comparison_record,
    comparison_sheet,
    picture_name,
    picture_record,
    read_record,
    save_png,
    short_grid,
    slug,
)

FOUR = Settings(num_inference_steps=4, guidance_scale=1.0)


@pytest.fixture
def picture(tiny):
    return generate(tiny, "a koala 🐨 on “blue”", 7, FOUR)[0]


@pytest.fixture
def cards(tiny):
    return list(compare(PipelineSet(tiny), "a koala", 0, columns_for("none")[1:]))


def test_a_png_carries_its_record(picture, tmp_path):
    path = save_png(picture.image, tmp_path / "a" / "b.png", picture_record(picture))
    record = read_record(path)
    assert record["prompt"] == "a koala 🐨 on “blue”"
    assert record["seed"] == 7
    assert (record["num_inference_steps"], record["guidance_scale"]) == (4, 1.0)
    assert (record["student"], record["scheduler"]) == (None, "rectified")
    assert record["nfe"] == 4
    assert record["sigmas"] == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert set(record["versions"]) == {"flowsteer", "diffusers", "torch"}
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.tobytes() == picture.image.tobytes()


def test_saving_is_whole_or_not_at_all(picture, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"older")
    with pytest.raises(TypeError):
        save_png(picture.image, path, {"not": object()})
    broken = Image.new("RGBX", (4, 4))  # a mode that PNG cannot hold
    with pytest.raises(OSError):
        save_png(broken, path, {})
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    save_png(picture.image, path, {})
    assert read_record(path) == {}


def test_files_without_a_record_are_named(tmp_path):
    plain = tmp_path / "plain.png"
    Image.new("RGB", (4, 4)).save(plain)
    with pytest.raises(ValueError, match="no 'flowsteer' text chunk"):
        read_record(plain)
    with pytest.raises(ValueError, match="missing.png is not there"):
        read_record(tmp_path / "missing.png")
    plain.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="plain.png is not readable as a picture"):
        read_record(plain)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested deeper than 64"),
        ("[]", "holds no JSON object"),
        ('{"seed": ' + "1" * 400 + "}", "a number of 400 digits"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_records_that_lie_are_refused(tmp_path, text, problem, zipped):
    chunk = PngInfo()
    chunk.add_text("flowsteer", text, zip=zipped)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunk)
    with pytest.raises(ValueError, match=problem) as caught:
        read_record(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(caught.value)


def test_a_text_chunk_that_unpacks_to_100_mb_is_refused(tmp_path):
    chunk = PngInfo()
    chunk.add_text("flowsteer", " " * 10**8, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunk)
    with pytest.raises(ValueError, match="a.png is not readable as a picture"):
        read_record(tmp_path / "a.png")


def test_names_tell_settings_apart(tiny, picture):
    assert picture_name(picture, 3) == "003-a-koala-on-blue-a34e66-tiny-teacher-4x1-seed7.png"
    stock = generate(tiny, "a koala", 7, Settings(None, 4, 2.0, "stock"))[0]
    assert picture_name(stock, 0) == "000-a-koala-tiny-teacher-4x2-g2-stock-seed7.png"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("../../etc/passwd", "etc-passwd"), ("🐨", "picture"), ("A  B", "a-b"), ("x" * 99, "x" * 40)],
)
def test_slugs_are_safe_file_names(text, expected):
    assert slug(text) == expected


def test_a_sheet_has_every_card(cards):
    sheet = comparison_sheet(cards, "a koala")
    assert sheet.width > 256 * len(cards)
    assert sheet.height > 256
    colours = [
        sheet.crop((left, 60, left + 200, 200)).getcolors(maxcolors=1 << 20)
        for left in (20, 300, 600)
    ]
    assert all(len(found) > 10 for found in colours)
    with pytest.raises(ValueError, match="at least one"):
        comparison_sheet([])


def test_captions_and_records_agree(cards):
    lines = card_lines(cards[1])
    assert lines[0] == "Teacher, 4 steps, rectified scheduler"
    assert lines[1].startswith("8 network calls")
    assert lines[3] == f"distance to reference {cards[1].distance:.3f}"
    record = comparison_record("a koala", 0, "tiny", cards)
    json.dumps(record)
    assert [column["nfe"] for column in record["columns"]] == [8, 8, 4]
    assert record["columns"][1]["distance"] == cards[1].distance


def test_long_grids_are_shortened():
    assert short_grid([1, 0.9, 0.75, 0.5, 0]) == "[1, 0.9, 0.75, 0.5, 0]"
    assert short_grid([k / 10 for k in range(10, -1, -1)]) == "[1, 0.9, 0.8, ..., 0.1, 0]"
