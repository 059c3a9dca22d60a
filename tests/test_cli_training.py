"""`flowsteer evaluate` and the emoji recipes, as they are typed."""

import json

import pytest

from flowsteer.cli import main
from flowsteer.emoji import autoencoder_recipe, teacher_recipe
from flowsteer.generation import Settings, generate
from flowsteer.loading import load_pipeline
from flowsteer.students import bundled_students


def last_line(capsys):
    """What stands last on stderr, below the progress bar."""
    return capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num_prompts 5", "num_prompts = 5 must be a whole number from 6 to 1,200"),
        ("--num_prompts 3.5", "num_prompts = 3.5"),
        ("--num_prompts 700 --split dev", "700"),
        ("--split train", "'train'"),
        ("--student nobody", "student = 'nobody' is unknown"),
        ("--student none", "student = 'none' has nothing to compare"),
        ("--model emojis --student {student}", "model = 'emojis' is unknown"),
    ],
)
def test_evaluate_refuses(lora_student, tmp_path, capsys, words, message):
    file = tmp_path / "deep" / "figures.json"
    words = words.format(student=lora_student).split()
    assert main(["evaluate", "--student", str(lora_student), *words, "--json", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and message in captured.err
    assert not file.parent.exists()


@pytest.mark.skipif("flowsteer" not in bundled_students(), reason="needs the shipped student")
def test_evaluate_measures_the_shipped_student(tmp_path, capsys):
    file = tmp_path / "figures.json"
    words = ["--num_prompts", "6", "--json", str(file), "--device", "cpu"]
    assert main(["evaluate", *words]) == 0
    out = capsys.readouterr().out
    assert "| student flowsteer | 4 |" in out
    assert "| teacher, rectified, guidance 3 | 8 |" in out
    record = json.loads(file.read_text())
    assert record["num_prompts"] == len(record["student"]["correct"]) == 6
    assert len(record["undistilled"]) == 12
    assert record["teacher"]["nfe"] == 56 and record["student"]["nfe"] == 4
    nearest = min(row["distance"]["mean"] for row in record["undistilled"])
    ratio = record["against"]["distance_ratio"]
    assert ratio == pytest.approx(record["student"]["distance"]["mean"] / nearest)


@pytest.mark.slow
def test_evaluate_samples_the_rows_of_an_unknown_teacher(tiny_folder, lora_student, capsys):
    words = ["--model", str(tiny_folder), "--student", str(lora_student), "--split", "dev"]
    assert main(["evaluate", *words, "--num_prompts", "6", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.count("| teacher, ") == 13 and "| student " in out
    assert "share of the teacher's overall: undefined" in out  # random weights are never right


@pytest.mark.slow
def test_the_report_measures_a_teacher(tiny_folder, tmp_path, capsys):
    out = tmp_path / "report"
    words = ["--model", str(tiny_folder), "--num_prompts", "12", "--output_dir", str(out)]
    assert main(["emoji", "report", *words, "--device", "cpu"]) == 0
    record = json.loads((out / "teacher.json").read_text())
    assert json.loads((out / "defaults.json").read_text()) == {
        "guidance_scale": record["guidance_scale"]
    }
    assert len(record["dev_guidance"]) == 6 and len(record["undistilled"]) == 12
    assert all(row["endpoint_distance"] > 0 for row in record["undistilled"])


def test_the_emoji_recipes_follow_each_other(tmp_path, monkeypatch, capsys):
    """Autoencoder, then a teacher on it, then a teacher that goes on from that one."""
    monkeypatch.setattr(autoencoder_recipe, "NORMALIZING_SCENES", 8)
    monkeypatch.setattr(autoencoder_recipe, "EVALUATION_SCENES", 8)
    monkeypatch.setattr(teacher_recipe, "CORPUS_SIZE", 50)
    short = ["--size", "tiny", "--max_train_steps", "2", "--train_batch_size", "2"]
    first = tmp_path / "autoencoder"
    assert main(["emoji", "autoencoder", *short, "--output_dir", str(first)]) == 0
    assert capsys.readouterr().out.strip() == str(first / "vae")
    short += ["--scenes", "4", "--vae", str(first / "vae")]
    for name, words in (
        ("one", []),
        ("two", ["--pretrained_model_name_or_path", str(tmp_path / "one" / "pipeline")]),
    ):
        folder = tmp_path / name
        assert main(["emoji", "teacher", *short, *words, "--output_dir", str(folder)]) == 0
        assert capsys.readouterr().out.strip() == str(folder / "pipeline")
        pipe = load_pipeline(str(folder / "pipeline"), device="cpu")
        (picture,) = generate(pipe, "koala", 0, Settings(num_inference_steps=1))
        assert picture.image.size == (128, 128)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("teacher --vae /no/such/vae", "'/no/such/vae' is no autoencoder"),
        ("teacher --size tiny --vae {tiny}/vae --scenes 0", "scenes = 0"),
        ("teacher --vae {tiny}/vae --pretrained_model_name_or_path {tiny}/vae", "is no pipeline"),
        ("teacher --vae {tiny}", "is no autoencoder"),
        ("autoencoder --size huge", "'huge'"),
        ("autoencoder --max_train_seconds 0", "max_train_seconds = 0"),
    ],
)
def test_the_recipes_refuse(tiny_folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(teacher_recipe, "CORPUS_SIZE", 50)
    out = ["--output_dir", str(tmp_path / "out"), "--max_train_steps", "1"]
    assert main(["emoji", *words.format(tiny=tiny_folder).split(), *out]) == 2
    line = last_line(capsys)
    assert line.startswith("flowsteer: error: ") and message in line
    assert not (tmp_path / "out").exists()
