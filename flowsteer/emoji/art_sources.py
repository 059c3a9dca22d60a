"""Where the emoji art comes from: five npm packages, pinned by version and checksum."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from flowsteer.untrusted import read_bytes

MOST_TARBALL_BYTES = 500_000_000
STYLES = ("3d", "flat", "noto", "twemoji")


@dataclass(frozen=True)
class Package:
    """One npm package: name, version, sha512 of its tarball, and who made what is in it."""

    name: str
    version: str
    sha512: str
    licence: str
    author: str
    url: str

    @property
    def file_name(self) -> str:
        """The name `npm pack` gives the tarball."""
        return self.name.removeprefix("@").replace("/", "-") + f"-{self.version}.tgz"

    @property
    def tarball_url(self) -> str:
        """The tarball's address in the npm registry."""
        short = self.name.rpartition("/")[2]
        return f"https://registry.npmjs.org/{self.name}/-/{short}-{self.version}.tgz"


ART_PACKAGES = {
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by LobeHub",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by Iconify",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google Inc (Noto Emoji), packed by Iconify",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twitter, Inc and other contributors (Twemoji), packed by Iconify",
        "https://github.com/jdecked/twemoji",
    ),
}
NAMES_PACKAGE = Package(
    "emojibase-data",
    "17.0.0",
    "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "MIT",
    "Miles Johnson",
    "https://github.com/milesj/emojibase",
)
PACKAGES = (*ART_PACKAGES.values(), NAMES_PACKAGE)


def emoji_key(emoji: str) -> str:
    """An emoji's code points in lower-case hex, joined by "-", without variation selectors.

    The packages disagree on where U+FE0F is written; without it they agree.
    """
    return "-".join(f"{ord(char):04x}" for char in emoji if char != "\ufe0f")


def _hex_key(name: str) -> str:
    return "-".join(part for part in name.lower().split("-") if part != "fe0f")


def fetch_tarball(package: Package, timeout: float = 60.0) -> bytes:
    """Download a package from the npm registry.

    Raises:
        ValueError: if the registry cannot be reached, saying how to hand over the file instead.
    """
    try:
        with urllib.request.urlopen(package.tarball_url, timeout=timeout) as response:
            return bytes(response.read())
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(
            f"cannot fetch npm package {package.name} {package.version} ({error}); download it "
            f"with `npm pack {package.name}@{package.version}` and give its folder as tarballs"
        ) from error


def read_tarball(
    package: Package, tarballs: Mapping[str, str | Path] | str | Path | None = None
) -> bytes:
    """The bytes of one package's tarball, checked against its pinned sha512.

    Args:
        package: which package.
        tarballs: a folder of `npm pack` files, a mapping from package name to file, or None to
            fetch from the npm registry.

    Raises:
        ValueError: if the file is missing or is not the pinned version.
    """
    if tarballs is None:
        data = fetch_tarball(package)
        where = package.tarball_url
    else:
        if isinstance(tarballs, Mapping):
            path = Path(tarballs.get(package.name, package.file_name))
        else:
            path = Path(tarballs) / package.file_name
        if not path.is_file():
            raise ValueError(
                f"npm package {package.name} is missing: no file {path}; get it with "
                f"`npm pack {package.name}@{package.version}` in that folder"
            )
        data = read_bytes(path, f"npm package {package.name}", MOST_TARBALL_BYTES)
        where = str(path)
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != package.sha512:
        raise ValueError(
            f"{where} is not {package.name} {package.version}: its sha512 differs from the pinned "
            f"one; get it again with `npm pack {package.name}@{package.version}`"
        )
    return data


def _members(tarball: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isfile() else None
            if handle is not None:
                files[member.name.removeprefix("package/")] = handle.read()
    return files


class WebpSource:
    """Pictures of the Fluent 3D package: one 256 px WebP file an emoji."""

    def __init__(self, tarball: bytes) -> None:
        self._files = {
            _hex_key(Path(name).stem): data
            for name, data in _members(tarball).items()
            if name.endswith(".webp")
        }

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def picture(self, key: str) -> Image.Image:
        """The emoji as an RGBA image, 256x256."""
        return Image.open(io.BytesIO(self._files[key])).convert("RGBA")


class SvgSource:
    """Pictures of an Iconify package: SVG bodies in icons.json, code points in chars.json."""

    def __init__(self, tarball: bytes) -> None:
        files = _members(tarball)
        self._icons = json.loads(files["icons.json"])
        chars = json.loads(files["chars.json"])
        self._names = {_hex_key(key): name for key, name in chars.items()}

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def picture(self, key: str) -> Image.Image:
        """The emoji as an RGBA image, 256x256."""
        import resvg_py  # only needed to build the art, so not a dependency of the package

        name = self._names[key]
        aliases = self._icons.get("aliases", {})
        while name in aliases:
            name = aliases[name]["parent"]
        side = self._icons["width"]
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {side} {side}" width="{side}" height="{side}">'
            f"{self._icons['icons'][name]['body']}</svg>"
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256, skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def read_labels(tarball: bytes) -> dict[str, str]:
    """English label of every emoji in emojibase, by `emoji_key`."""
    entries = json.loads(_members(tarball)["en/data.json"])
    return {_hex_key(entry["hexcode"]): entry["label"] for entry in entries}
