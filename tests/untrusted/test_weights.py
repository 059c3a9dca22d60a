"""Headers are read as safetensors reads them, and everything else is refused before reading."""

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from flowsteer.untrusted import check_finite, read_header, read_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, {"rank": "4"})
    return path


def rewrite(path, change):
    """Change the header, a dictionary or its text."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8:end]))
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def put(**fields):
    """A change of the entry of "a"."""
    return lambda header: header | {"a": header["a"] | fields}


def test_a_header_tells_what_save_file_wrote(path):
    header = read_header(path)
    assert header.tensors == {"a": ("F32", (2, 3)), "b": ("BF16", (4,))}
    assert (header.metadata, header.where) == ({"rank": "4"}, str(path))
    assert all(torch.equal(w, TENSORS[name]) for name, w in read_tensors(path, TENSORS).items())


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn],
)
def test_other_dtypes_are_read(tmp_path, dtype):
    save_file({"a": torch.ones(3).to(dtype), "none": torch.ones(0)}, tmp_path / "w")
    assert read_tensors(tmp_path / "w")["a"].dtype == dtype


CONTENTS = {
    "empty": (b"", "0 bytes"),
    "zero bytes": (bytes(1000), "its header would have 0"),
    "random": (bytes(range(7, 256)) * 4, "its header would have"),
    "a pickle": (pickle.dumps({"a": [1] * 100}), "it is a pickle"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "no text": (b"\x08" + bytes(7) + b"\xff" * 8, "not text"),
    "no JSON": (b"\x08" + bytes(7) + b"{{{{{{{{", "not readable as JSON"),
    "a list": (b"\x02" + bytes(7) + b"[]", "no JSON object"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_other_files_are_named(path, name):
    content, problem = CONTENTS[name]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} .*{problem}") as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_a_zip_and_a_torch_file_are_named(path):
    torch.save(TENSORS, path)
    with pytest.raises(ValueError, match="a ZIP or a PyTorch file"):
        read_header(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="a ZIP or a PyTorch file"):
        read_header(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda h: b"[" * 100_000, "deeper than 64"),
        (lambda h: b'{"a": 1, "a": 2}', "'a' stands in it twice"),
        (lambda h: h | {"a": 3}, "'a' has the dtype None"),
        (put(dtype="F1024"), "dtype 'F1024'"),
        (put(dtype=["F32"]), "the dtype"),
        (put(shape=[2, -3]), "the shape"),
        (put(shape=[2, 3.0]), "the shape"),
        (put(shape=[True, 6]), "the shape"),
        (put(shape=6), "the shape"),
        (put(shape=[1] * 9), "the shape"),
        (put(shape=[2**62, 2**62]), "needs .* bytes and has 24"),
        (put(shape=[2, 4]), "needs 32 bytes and has 24"),
        (put(data_offsets=[-8, 16]), "lies at"),
        (put(data_offsets=[0]), "lies at"),
        (put(data_offsets=[4, 28]), "overlap, or have a gap"),
        (put(data_offsets=[10**6, 10**6 + 24]), "overlap, or have a gap"),
        (lambda h: {"a": h["a"]}, "gap|promises"),
        (lambda h: h | {"__metadata__": {"a": 1}}, "metadata are not text"),
    ],
)
def test_a_header_that_lies_is_refused(path, change, problem):
    rewrite(path, change)
    with pytest.raises(ValueError, match=problem) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_cut_off_or_with_a_huge_header_is_refused(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no whole safetensors file"):
            read_header(path)
    with path.open("wb") as file:
        file.write((10**9).to_bytes(8, "little"))
        file.truncate(3 * 10**9)
    with pytest.raises(ValueError, match="header has 1,000,000,000 bytes"):
        read_header(path)


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        ({"a": TENSORS["a"]}, "another network: it has 'b'"),
        (TENSORS | {"c": torch.ones(1)}, "another network: it lacks 'c'"),
        (TENSORS | {"a": torch.ones(3, 2)}, r"'a' is float32 \(2, 3\), float32 \(3, 2\)"),
        (TENSORS | {"b": torch.ones(4)}, r"'b' is bfloat16 \(4,\), float32"),
    ],
)
def test_tensors_for_another_network_are_refused(path, expected, problem):
    with pytest.raises(ValueError, match=problem):
        read_tensors(path, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_values_that_are_not_finite_are_refused_by_name(path, value, dtype):
    save_file({"fine": torch.ones(2), "spoilt": torch.tensor([1, value]).to(dtype)}, path)
    with pytest.raises(ValueError, match=f"{path} is damaged: 'spoilt' holds values that"):
        read_tensors(path)
    with pytest.raises(ValueError, match="the average is damaged: 'spoilt'"):
        check_finite({"spoilt": torch.tensor([value])}, "the average")
