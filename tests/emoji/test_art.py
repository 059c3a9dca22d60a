from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowsteer.emoji import art as art_module
from flowsteer.emoji import art_sources
from flowsteer.emoji.art import SPRITE, build_art, closest_pairs, fit_sprite, load_art, read_art
from flowsteer.emoji.art_sources import (
    ART_PACKAGES,
    NAMES_PACKAGE,
    PACKAGES,
    STYLES,
    SvgSource,
    WebpSource,
    emoji_key,
    read_labels,
    read_tarball,
)

DATA = resources.files("flowsteer.emoji") / "data"


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_every_concept_is_drawn_in_every_style():
    art = load_art()
    assert art.pictures.shape == (len(art.concepts), len(STYLES), SPRITE, SPRITE, 4)
    assert art.pictures.dtype == torch.uint8
    cover = (art.pictures[..., 3] > 128).flatten(2).float().mean(2)
    assert cover.min() > 0.05
    assert cover.max() <= 1


def test_sprites_are_centred_and_fill_their_square():
    alpha = load_art().pictures[..., 3] > 16
    across, down = alpha.any(2), alpha.any(3)
    for seen in (across, down):
        first = seen.int().argmax(-1)
        last = SPRITE - 1 - seen.flip(-1).int().argmax(-1)
        assert ((first + last) - (SPRITE - 1)).abs().max() <= 6
    extent = torch.stack([across.sum(-1), down.sum(-1)]).amax(0)
    assert (extent >= SPRITE - 8).float().mean() > 0.99  # a few have specks that shrinking loses
    assert extent.min() > 0.75 * SPRITE


def test_styles_are_in_order():
    pictures = load_art().pictures.float() / 255
    seen = pictures[..., :3] * pictures[..., 3:]
    distance = (seen[:, :1] - seen[:, 1:]).square().mean((0, 2, 3, 4))
    assert distance.argmin() == 0  # 3d is nearest to flat: both are Fluent designs
    assert (seen[:, 3] - seen[:, 2]).abs().mean() > 0.01


def test_packed_art_is_small_and_attributed():
    total = sum(len((DATA / f"art-{style}.webp").read_bytes()) for style in STYLES)
    assert total <= 8_100_000
    text = (DATA / "ATTRIBUTION.md").read_text("utf-8")
    for package in PACKAGES:
        assert package.name in text and package.version in text and package.licence in text
    assert "creativecommons.org/licenses/by/4.0" in text
    assert "Permission is hereby granted" in text


def test_no_two_concepts_look_the_same():
    pairs = closest_pairs(load_art().pictures, count=5)
    assert pairs[0][2] > 0.1
    assert [p[2] for p in pairs] == sorted(p[2] for p in pairs)


def test_closest_pairs_finds_the_twin():
    pictures = load_art().pictures[:12].clone()
    pictures[7] = pictures[2]
    first, second, distance = closest_pairs(pictures, count=1)[0]
    assert (first, second) == (2, 7)
    assert distance < 1e-3


def test_emoji_key_ignores_variation_selectors():
    assert emoji_key("❤️") == emoji_key("❤") == "2764"
    assert emoji_key("🐻‍❄️") == "1f43b-200d-2744"


def test_fit_sprite_crops_scales_and_centres():
    picture = Image.new("RGBA", (256, 256))
    picture.paste((255, 0, 0, 255), (10, 20, 110, 70))  # 100 x 50
    alpha = np.asarray(fit_sprite(picture))[..., 3] > 128
    assert alpha.any(0).sum() == SPRITE - 2
    assert alpha.any(1).sum() == (SPRITE - 2) // 2
    assert np.flatnonzero(alpha.any(1)).mean() == pytest.approx((SPRITE - 1) / 2, abs=0.6)


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"@lobehub/fluent-emoji-3d is missing.*npm pack"):
        build_art(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mapping_of_tarballs_names_the_missing_one(tmp_path):
    with pytest.raises(ValueError, match="emojibase-data is missing"):
        read_tarball(NAMES_PACKAGE, {"emojibase-data": tmp_path / "nowhere.tgz"})


def test_another_version_is_refused(tmp_path):
    package = ART_PACKAGES["noto"]
    (tmp_path / package.file_name).write_bytes(tarball({"icons.json": b"{}"}))
    with pytest.raises(ValueError, match=r"is not @iconify-json/noto 1\.2\.9"):
        read_tarball(package, tmp_path)


def test_without_network_fetching_says_how_to_get_the_file(monkeypatch):
    def no_network(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(art_sources.urllib.request, "urlopen", no_network)
    with pytest.raises(ValueError, match=r"cannot fetch.*npm pack emojibase-data@17\.0\.0"):
        read_tarball(NAMES_PACKAGE)


def svg_package(body: str) -> bytes:
    icons = {"width": 8, "icons": {"box": {"body": body}}, "aliases": {"crate": {"parent": "box"}}}
    return tarball(
        {
            "icons.json": json.dumps(icons).encode(),
            "chars.json": json.dumps({"0041": "box", "0042-fe0f": "crate"}).encode(),
        }
    )


def webp_package() -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("RGBA", (256, 256))
    picture.paste((0, 0, 255, 255), (64, 64, 192, 192))
    picture.save(buffer, format="WEBP", lossless=True)
    return tarball({f"assets/{key}.webp": buffer.getvalue() for key in ("0041", "0042-fe0f")})


def names_package() -> bytes:
    entries = [{"hexcode": "0041", "label": "Crate"}, {"hexcode": "0042", "label": "chest"}]
    return tarball({"en/data.json": json.dumps(entries).encode()})


def test_sources_follow_aliases_and_ignore_variation_selectors():
    pytest.importorskip("resvg_py")
    source = SvgSource(svg_package('<rect x="2" y="2" width="4" height="4" fill="#f00"/>'))
    assert "0042" in source and "0043" not in source
    pixels = np.asarray(source.picture("0042"))
    assert pixels.shape == (256, 256, 4)
    assert tuple(pixels[128, 128]) == (255, 0, 0, 255) and pixels[8, 8, 3] == 0
    assert "0041" in WebpSource(webp_package())
    assert read_labels(names_package()) == {"0041": "Crate", "0042": "chest"}


def small_world(monkeypatch, tmp_path) -> Path:
    """Packages of two letters in place of the real ones, pinned, and a selection to match."""
    folder = tmp_path / "npm"
    folder.mkdir()
    contents = dict.fromkeys(STYLES, svg_package('<path d="M2 2h4v4H2z" fill="#f00"/>'))
    contents["3d"] = webp_package()

    def pinned(package, content):
        (folder / package.file_name).write_bytes(content)
        sha512 = base64.b64encode(hashlib.sha512(content).digest()).decode()
        return dataclasses.replace(package, sha512=sha512)

    packages = {style: pinned(ART_PACKAGES[style], contents[style]) for style in STYLES}
    names = pinned(NAMES_PACKAGE, names_package())
    monkeypatch.setattr(art_module, "ART_PACKAGES", packages)
    monkeypatch.setattr(art_module, "NAMES_PACKAGE", names)
    monkeypatch.setattr(art_module, "PACKAGES", (*packages.values(), names))
    monkeypatch.setattr(art_module, "selection_text", lambda: "# things\nA box\nB crib; chest\n")
    return folder


def test_building_twice_gives_the_same_bytes_and_reads_back(monkeypatch, tmp_path):
    pytest.importorskip("resvg_py")
    folder = small_world(monkeypatch, tmp_path)
    first = {p.name: p.read_bytes() for p in build_art(folder, tmp_path / "a")}
    second = {p.name: p.read_bytes() for p in build_art(folder, tmp_path / "b")}
    assert first == second
    assert set(first) == {
        *(f"art-{style}.webp" for style in STYLES),
        "concepts.json",
        "held_out.json",
        "ATTRIBUTION.md",
    }
    art = read_art(tmp_path / "a")
    assert [(c.name, c.aliases) for c in art.concepts] == [
        ("box", ("crate",)),
        ("crib", ("chest",)),
    ]
    assert art.pictures[0, 0, 56, 56].tolist()[2] > 240  # blue from the 3d package
    assert art.pictures[1, 2, 56, 56].tolist()[0] > 240  # red from an SVG


def test_a_concept_that_a_set_lacks_is_named(monkeypatch, tmp_path):
    pytest.importorskip("resvg_py")
    folder = small_world(monkeypatch, tmp_path)
    monkeypatch.setattr(art_module, "selection_text", lambda: "A box\nC crib\n")
    with pytest.raises(ValueError, match=r"fluent-emoji-3d does not draw crib"):
        build_art(folder, tmp_path / "a")


def test_reading_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"concepts\.json is missing.*flowsteer emoji data"):
        read_art(tmp_path)
