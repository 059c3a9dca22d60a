"""Run diffusers' own fast tests twice: with its Euler scheduler, and with ours in its place.

    git clone --depth 1 https://github.com/huggingface/diffusers
    pip install parameterized requests_mock
    python tests/tools/diffusers_tests.py diffusers [FILE ...]

The tests are those of the clone, the diffusers that they test is the installed one. They build
their networks at random; the configurations and tokenizers that they would fetch are made here
instead, so that nothing is fetched. Since the weights differ, tests that hold pixels against
recorded ones fail with either scheduler: what counts is that no test fails with ours alone.
Exit code 1 if one does. Not collected by pytest; a file takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "DIFFUSERS_TESTS"  # "stock" or "ours", then the file for the outcomes
FILES = {
    "Stable Diffusion 3": ["pipelines/stable_diffusion_3"],
    "ControlNet": ["pipelines/controlnet_sd3"],
    "LoRA": ["lora/test_lora_layers_sd3.py"],
}

# --- inside pytest: this file is its plugin ------------------------------------------------------

if VARIABLE in os.environ:
    # the installed one: the clone's conftest would put its own sources in front of it
    import diffusers

outcomes: dict[str, str] = {}


def pytest_configure(config):
    """Before a test imports them: our scheduler, and local stand-ins for the hub."""
    from flowsteer import RectifiedFlowMatchEulerDiscreteScheduler

    if os.environ[VARIABLE].startswith("ours"):
        diffusers.FlowMatchEulerDiscreteScheduler = RectifiedFlowMatchEulerDiscreteScheduler
    _stand_in_for_the_hub()


def pytest_runtest_logreport(report):
    """Note how a test ended; a failure of its set-up counts as its own."""
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session):
    """Hand the outcomes to the run that waits for them."""
    Path(os.environ[VARIABLE].partition(":")[2]).write_text(json.dumps(outcomes), encoding="utf-8")


def _stand_in_for_the_hub() -> None:
    import transformers

    from flowsteer.emoji.pipeline import build_tokenizer

    def t5_config():
        return transformers.T5Config(
            vocab_size=1103, d_model=32, d_kv=8, d_ff=37, num_layers=5, num_heads=4,
            relative_attention_num_buckets=8, decoder_start_token_id=0,
        )  # fmt: skip

    def clip():
        return transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(
                vocab_size=1000, hidden_size=32, intermediate_size=37, num_hidden_layers=5,
                num_attention_heads=4, projection_dim=32, bos_token_id=0, eos_token_id=2,
            )
        )  # fmt: skip

    made = {
        "AutoConfig": t5_config,
        "CLIPTextModelWithProjection": clip,
        "T5EncoderModel": lambda: transformers.T5EncoderModel(t5_config()),
        **dict.fromkeys(
            ("AutoTokenizer", "CLIPTokenizer", "T5Tokenizer", "T5TokenizerFast"),
            lambda: build_tokenizer((), 514),
        ),
    }
    for name, make in made.items():
        _replace_loading(getattr(transformers, name), make)


def _replace_loading(kind, make) -> None:
    load = kind.from_pretrained

    def from_pretrained(path, *args, **kwargs):
        tiny = str(path).startswith("hf-internal-testing/tiny-")
        return make() if tiny else load(path, *args, **kwargs)

    kind.from_pretrained = from_pretrained


# --- outside: two runs, side by side -------------------------------------------------------------


def run(checkout: Path, files: list[str], scheduler: str) -> dict[str, str]:
    """How each test ends with one scheduler."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "outcomes.json"
        here = Path(__file__).resolve()
        path = [str(here.parent), str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            VARIABLE: f"{scheduler}:{notes}",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", here.stem, "-p", "no:cacheprovider"]
        pytest = subprocess.run(
            [*command, *(f"tests/{name}" for name in files)],
            cwd=checkout, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        ends = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
        if not ends:
            sys.exit(f"no test ran in {checkout}:\n{pytest.stdout[-2000:]}{pytest.stderr[-2000:]}")
        return ends


def report(name: str, stock: dict[str, str], ours: dict[str, str]) -> bool:
    """Print both counts, and every test that ends otherwise; whether none fails with ours alone."""
    for label, ends in (("stock", stock), ("ours", ours)):
        passed, failed = (
            sum(end == kind for end in ends.values()) for kind in ("passed", "failed")
        )
        print(f"{name:<20} {label:<6} {passed} of {passed + failed} pass", flush=True)
    for test in sorted(stock.keys() | ours.keys()):
        if stock.get(test) != ours.get(test):
            print(f"  {test}: {stock.get(test)} with stock, {ours.get(test)} with ours")
    return not any(end == "failed" and stock.get(test) == "passed" for test, end in ours.items())


def main() -> None:
    """Compare the groups above, or the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a clone of huggingface/diffusers")
    parser.add_argument("files", nargs="*", help="files or folders under its tests/")
    asked = parser.parse_args()
    groups = {name: [name] for name in asked.files} or FILES
    fine = [
        report(name, *(run(asked.checkout, files, kind) for kind in ("stock", "ours")))
        for name, files in groups.items()
    ]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
