import subprocess
import sys
from pathlib import Path

import pytest


def modules_after(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_flowsteer_is_light():
    assert not modules_after("import flowsteer") & {"torch", "diffusers", "transformers", "gradio"}


def test_the_command_line_starts_light():
    statement = "from flowsteer.cli.main import main; main(['--help'])"
    loaded = modules_after(statement)
    assert not loaded & {"torch", "diffusers", "transformers", "gradio"}


def test_schedule_needs_torch_alone():
    loaded = modules_after("from flowsteer.cli.main import main; main(['schedule'])")
    assert "torch" in loaded
    assert not loaded & {"diffusers", "transformers", "accelerate", "gradio"}


@pytest.mark.parametrize(
    "package", ["flowsteer.flow", "flowsteer.distill", "flowsteer.measure", "flowsteer.toy"]
)
def test_the_mathematics_needs_torch_alone(package):
    heavy = {"diffusers", "transformers", "accelerate", "peft", "gradio", "matplotlib"}
    assert not modules_after(f"import {package}") & heavy


def test_the_core_does_not_need_torchvision():
    statement = "import flowsteer.comparing, flowsteer.prompting, flowsteer.schedulers"
    assert "torchvision" not in modules_after(statement)


def test_loading_is_silent():
    code = "import flowsteer.models.sd3; flowsteer.load_pipeline(device='cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_import_contract_holds():
    """The layers of pyproject.toml: imports run downward, no cycles."""
    root = Path(__file__).parent.parent
    done = subprocess.run(["lint-imports", "--no-cache"], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout
