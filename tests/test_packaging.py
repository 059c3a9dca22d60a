import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import flowsteer

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MEGABYTE = 1_000_000


def test_environment_yml_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    python, pip, rest = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert rest == {"pip": ["-e .[app,notebooks,test]"]}
    assert {"app", "notebooks", "test"} <= PROJECT["optional-dependencies"].keys()


def test_every_requirement_has_a_lower_bound_and_a_major_cap():
    lines = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        lines += [line for line in extra if not line.startswith("flowsteer[")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[\d.]+,<\d+", line), line


def test_torchvision_is_not_required():
    assert not any("torchvision" in line for line in PROJECT["dependencies"])


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -e ".[app]" && python app.py' in readme
    assert 'pip install -e ".[test]" && pytest' in readme


def test_the_readme_carries_the_header_of_a_space():
    _, header, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    space = yaml.safe_load(header)
    assert space["sdk"] == "gradio" and (ROOT / space["app_file"]).is_file()
    (gradio,) = [r for r in PROJECT["optional-dependencies"]["app"] if r.startswith("gradio")]
    lower, upper = re.fullmatch(r"gradio>=([\d.]+),<(\d+)", gradio).groups()
    version = tuple(map(int, space["sdk_version"].split(".")))
    assert tuple(map(int, lower.split("."))) <= version < (int(upper),)
    assert 3.11 <= float(space["python_version"]) <= 3.13
    assert len(space["short_description"]) <= 60  # the hub refuses longer ones
    assert ".[app]" in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_ci_runs_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert 'pip install -e ".[test]" && pytest' in script.read_text(encoding="utf-8")


def test_the_licence_is_apache():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data(wheel):
    assert wheel.name == f"flowsteer-{flowsteer.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "flowsteer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source - packed == set()
    assert {name for name in packed if ".dist-info/" not in name} == source
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    for needed in (
        "flowsteer/emoji/weights/pipeline/model_index.json",
        "flowsteer/emoji/weights/defaults.json",
        "flowsteer/emoji/weights/detector/model.safetensors",
        "flowsteer/emoji/students/flowsteer/flowsteer.json",
        "flowsteer/emoji/students/flowsteer/pytorch_lora_weights.safetensors",
        "flowsteer/emoji/data/ATTRIBUTION.md",
        "flowsteer/emoji/data/art-noto.webp",
    ):
        assert needed in packed


@pytest.mark.slow
def test_the_wheel_leaves_room_for_later_students(wheel):
    """95 MB in all, of which 18 stay free for the students of later versions."""
    assert wheel.stat().st_size <= (95 - 18) * MEGABYTE


@pytest.mark.slow
def test_the_wheel_works_from_elsewhere(wheel, tmp_path):
    """Unpacked and imported by path, it finds its weights and draws."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import flowsteer; assert 'site' in flowsteer.__file__, flowsteer.__file__\n"
        "from flowsteer.generation import Settings, generate\n"
        "pipe = flowsteer.load_pipeline(device='cpu')\n"
        "generate(pipe, '🐨 on blue', 0, Settings(num_inference_steps=1))\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
