"""Where results cannot go is said before a model is loaded, with code 2 and nothing written."""

import os

import pytest

from flowsteer.cli import main
from flowsteer.cli.inputs import check_output_dir

COMMANDS = [
    ["generate", "a koala"],
    ["compare", "a koala"],
    ["distill"],
    ["reproduce", "--preset", "smoke"],
    ["emoji", "autoencoder"],
    ["emoji", "teacher"],
    ["emoji", "detector", "--max_train_steps", "1"],
    ["emoji", "report"],
    ["emoji", "data"],
]


@pytest.fixture
def no_model(monkeypatch):
    """Fails if a command comes as far as loading or training."""

    def loaded(*args, **kwargs):
        raise AssertionError("too late: something was loaded")

    monkeypatch.setattr("flowsteer.loading.load_pipeline", loaded)
    monkeypatch.setattr("flowsteer.training.loop.train", loaded)
    monkeypatch.setattr("flowsteer.emoji.art.build_art", loaded)


def places(tmp_path):
    """Kind -> an impossible folder, and a word of the message."""
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    return {
        "empty": ("", "is empty"),
        "file": (tmp_path / "file", "is a file"),
        "under a file": (tmp_path / "file" / "a" / "b", "is a file"),
        "dangling link": (tmp_path / "nowhere", "is a file"),
        "long name": (tmp_path / ("x" * 300), "too long"),
        "long path": (tmp_path.joinpath(*["x" * 200] * 25), "too long"),
        "not a disk": ("/proc/nothing/out", "No such file"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "kind", ["empty", "file", "under a file", "dangling link", "long name", "not a disk"]
)
def test_impossible_folders(no_model, tmp_path, monkeypatch, capsys, command, kind):
    monkeypatch.chdir(tmp_path)
    folder, message = places(tmp_path)[kind]
    before = sorted(os.listdir(tmp_path))
    assert main([*command, "--output_dir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and "--output_dir" in error
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("command", [["evaluate"], ["bench", "import"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["under a file", "long name", "not a disk"])
def test_impossible_files_of_figures(no_model, tmp_path, capsys, command, kind):
    folder, message = places(tmp_path)[kind]
    assert main([*command, "--json", f"{folder}/x.json"]) == 2
    assert message in capsys.readouterr().err
    assert main([*command, "--json", str(tmp_path)]) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err


def test_every_impossible_kind_at_once(tmp_path):
    for folder, message in places(tmp_path).values():
        with pytest.raises(ValueError, match=message):
            check_output_dir(folder)
    with pytest.raises(ValueError, match="null"):
        check_output_dir("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    for folder in (tmp_path / "closed", tmp_path / "closed" / "deeper"):
        with pytest.raises(ValueError, match="Permission denied"):
            check_output_dir(folder)


def test_a_full_or_read_only_disk(tmp_path, monkeypatch):
    """The system's own word for it, and what was made on the way is gone again."""

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="Read-only file system; choose another folder"):
        check_output_dir(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_possible_folder_is_not_made_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for folder in ("a/b/c", ".", tmp_path / "there", tmp_path / "there" / "x"):
        check_output_dir(folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["there"]
