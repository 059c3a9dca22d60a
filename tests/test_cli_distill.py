"""`flowsteer distill`, as it is typed."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from flowsteer.cli import main
from flowsteer.generation import Settings, generate
from flowsteer.loading import load_pipeline
from flowsteer.students import StudentInfo
from flowsteer.training import latest_checkpoint
from flowsteer.training.log import read_log


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a koala\n\ntwo foxes\na pizza\n", encoding="utf-8")
    return file


@pytest.fixture
def distill(tiny_folder, tmp_path, prompts):
    """Runs `flowsteer distill` on the tiny model for two steps, into tmp_path / "out"."""

    def run(*words):
        flags = {
            "--pretrained_model_name_or_path": tiny_folder,
            "--output_dir": tmp_path / "out",
            "--prompts": prompts,
            "--method": "ota",
            "--train_batch_size": 2,
            "--max_train_steps": 2,
            "--checkpointing_steps": 1,
            "--lr_warmup_steps": 0,
            "--substeps": 1,
            "--rank": 2,
            "--device": "cpu",
        }
        flags |= dict(zip(words[::2], words[1::2], strict=True))
        given = {flag: value for flag, value in flags.items() if value is not None}
        typed = [word for pair in given.items() for word in pair if word is not True]
        return main(["distill", *map(str, typed)])

    return run


def weights(folder):
    """The LoRA of `folder/student`, as one vector; a file's bytes depend on a hash map's order."""
    tensors = load_file(folder / "student" / "pytorch_lora_weights.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def last_line(capsys):
    """What stands last on stderr, below the progress bar."""
    return capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


def test_distill_writes_a_student_that_loads(distill, tiny_folder, tmp_path, capsys):
    assert distill("--guidance_min", 2, "--guidance_max", 4) == 0
    captured = capsys.readouterr()
    folder = tmp_path / "out" / "student"
    assert captured.out.strip() == str(folder)
    assert "loss" in captured.err and "samples/s" in captured.err and "left" in captured.err
    info = StudentInfo.load(folder)
    assert (info.teacher, info.steps, info.lora_rank) == (str(tiny_folder), 2, 2)
    assert info.guidance_range == (2, 4)
    pipe = load_pipeline(str(tiny_folder), student=folder, device="cpu")
    (picture,) = generate(pipe, "a koala", 0, Settings())
    assert picture.nfe == 4


def test_distill_goes_on_from_its_latest_checkpoint(distill, tmp_path, capsys):
    assert distill() == 0
    first = weights(tmp_path / "out")
    assert distill("--resume_from_checkpoint", "latest", "--max_train_steps", 3) == 0
    assert StudentInfo.load(tmp_path / "out" / "student").steps == 3
    assert latest_checkpoint(tmp_path / "out").name == "checkpoint-3"
    assert not torch.equal(first, weights(tmp_path / "out"))
    # a run that is complete only writes its student again
    assert distill("--resume_from_checkpoint", "latest", "--max_train_steps", 3) == 0
    assert StudentInfo.load(tmp_path / "out" / "student").steps == 3


def test_old_checkpoints_go(distill, tmp_path):
    assert distill("--max_train_steps", 3, "--checkpoints_total_limit", 1) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint-3",
        "log.jsonl",
        "student",
    }


def test_distill_reports_to_tensorboard(distill, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert distill("--report_to", "tensorboard") == 0
    events = EventAccumulator(str(tmp_path / "out" / "logs"))
    events.Reload()
    assert {"loss", "learning_rate", "samples_per_second"} <= set(events.Tags()["scalars"])
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2]
    assert all(event.value > 0 for event in losses)


def test_divergence_is_one_line_code_2_and_keeps_the_last_checkpoint(distill, tmp_path, capsys):
    """A rate that no network survives under such an alpha: the loss overflows a step later."""
    assert distill("--checkpointing_steps", 2, "--lora_alpha", 65536, "--learning_rate", 1e-9) == 0
    good = latest_checkpoint(tmp_path / "out")
    student = tmp_path / "out" / "student" / "pytorch_lora_weights.safetensors"
    before = student.read_bytes()
    wild = ["--learning_rate", 1, "--lora_alpha", 65536]
    wild += ["--max_train_steps", 20, "--checkpointing_steps", 20]
    capsys.readouterr()
    assert distill(*wild, "--resume_from_checkpoint", "latest") == 2
    line = last_line(capsys)
    assert line.startswith("flowsteer: error: loss = ")
    assert "is not finite; lower --learning_rate (1)" in line
    assert latest_checkpoint(tmp_path / "out") == good
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint-2",
        "log.jsonl",
        "student",
    }
    assert student.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", None], "has no prompts of its own to learn from; give --prompts FILE"),
        (["--prompts", "/no/such/file"], "/no/such/file is not there"),
        (["--pretrained_model_name_or_path", "emojis"], "model = 'emojis' is unknown"),
        (["--learning_rate", "nan"], "learning_rate = nan"),
        (["--train_batch_size", 0], "train_batch_size = 0"),
        (["--method", "magic"], "method = 'magic' is unknown"),
        (["--rank", 0], "rank = 0"),
        (["--guidance_min", 3], "give both"),
        (["--device", "tpu9"], "device = 'tpu9'"),
        (["--resume_from_checkpoint", "/no/such/folder"], "is no complete checkpoint"),
        (["--rank", 0, "--report_to", "tensorboard"], "rank = 0"),
    ],
)
def test_bad_settings_write_nothing(distill, tmp_path, capsys, words, message):
    assert distill(*words) == 2
    line = last_line(capsys)
    assert line.startswith("flowsteer: error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_bad_prompts_in_the_file_write_nothing(distill, tmp_path, prompts, capsys):
    prompts.write_text("a koala\n" + "x" * 5000)
    assert distill() == 2
    assert "5,000 characters" in last_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path):
    """A folder of three captioned pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color in (("koala", "gray"), ("fox", "orange"), ("frog", "green")):
        Image.new("RGB", (40, 30), color).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name}")
    return folder


def test_perflow_learns_from_a_folder_of_pictures(distill, pictures, tmp_path):
    data = ["--prompts", None, "--train_data_dir", pictures]
    assert distill("--method", "perflow", *data) == 0
    first = weights(tmp_path / "out")
    assert StudentInfo.load(tmp_path / "out" / "student").method == "perflow"
    # other pictures under the same prompts teach something else
    for file in pictures.glob("*.png"):
        Image.new("RGB", (40, 30), "blue").save(file)
    assert distill("--method", "perflow", *data, "--output_dir", tmp_path / "other") == 0
    assert not torch.equal(first, weights(tmp_path / "other"))


def test_encoded_pictures_are_kept(distill, pictures, capsys):
    words = ["--method", "perflow", "--prompts", None, "--train_data_dir", pictures]
    assert distill(*words, "--cache_samples", 3) == 0
    assert "encode" in capsys.readouterr().err


def test_embeddings_are_kept_on_disk_and_change_nothing(distill, tmp_path, capsys):
    assert distill() == 0
    plain = weights(tmp_path / "out")
    words = ["--prompt_cache", tmp_path / "cache"]
    assert distill(*words, "--output_dir", tmp_path / "b") == 0
    assert torch.equal(weights(tmp_path / "b"), plain)
    assert "embed prompts" in capsys.readouterr().err
    words += ["--offload_text_encoders", True]
    assert distill(*words, "--output_dir", tmp_path / "c") == 0
    assert "embed prompts" not in capsys.readouterr().err
    assert torch.equal(weights(tmp_path / "c"), plain)


def test_flowsteer_logs_its_critic(distill, tmp_path):
    assert distill("--method", "flowsteer", "--validation_steps", 1) == 0
    rows = read_log(tmp_path / "out")
    assert [row["step"] for row in rows] == [1, 2]
    names = {
        "critic_loss",
        "critic_accuracy",
        "critic_ranked",
        "critic_real",
        "critic_fake",
        "critic_grad_norm",
    }
    names |= {"cosine", "adversarial_loss", "feature_matching_loss", "distance_to_teacher"}
    assert names <= rows[0].keys()
    assert 0 <= rows[1]["critic_accuracy"] <= 1
    where = {name for row in rows for name in row if name.startswith("critic_accuracy_at_")}
    edges = {"critic_accuracy_at_0.9", "critic_accuracy_at_0.75", "critic_accuracy_at_0.5"}
    assert where and where <= edges | {"critic_accuracy_at_0"}


def test_a_second_round_of_reflow(distill, tmp_path):
    assert distill("--method", "reflow") == 0
    first = tmp_path / "first"
    (tmp_path / "out" / "student").rename(first)
    (tmp_path / "out").rename(tmp_path / "round-1")
    assert distill("--method", "reflow", "--student", first) == 0
    info = json.loads((tmp_path / "out" / "student" / "flowsteer.json").read_text())
    assert (info["edges"], info["guidance_range"]) == ([1, 0], [1, 1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "perflow"], "learns from pictures, and --prompts has none"),
        (["--train_data_dir", "."], "prompts and train_data_dir are both given"),
        (["--prompts", None, "--train_data_dir", "/no/folder"], "/no/folder is no folder"),
        (["--cache_samples", 0], "cache_samples = 0 must be a whole number from 1"),
        (["--method", "reflow", "--num_windows", 4], "num_windows = 4"),
        (["--student", "nobody"], "student = 'nobody' is unknown"),
        (["--critic_depth", 9, "--method", "flowsteer"], "depth = 9"),
        (["--share_on_policy", 2], "share_on_policy = 2"),
        (["--solver", "magic"], "--solver"),
    ],
)
def test_bad_choices_write_nothing(distill, tmp_path, capsys, words, message):
    assert distill(*words) == 2
    line = last_line(capsys)
    assert line.startswith("flowsteer: error: ") and message in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def fresh_accelerate():
    """accelerate remembers a process's first precision: forgotten here, as in a new process."""
    AcceleratorState._reset_state(True)
    yield AcceleratorState._reset_state
    AcceleratorState._reset_state(True)


def losses(folder):
    return [row["loss"] for row in read_log(folder)]


def test_the_launcher_s_precision_is_the_flag_s(distill, tmp_path, monkeypatch, fresh_accelerate):
    """`accelerate launch --mixed_precision bf16` and `--mixed_precision bf16` teach the same."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for name, words in (("exact", []), ("flag", ["--mixed_precision", "bf16"])):
        assert distill("--output_dir", tmp_path / name, *words) == 0
        fresh_accelerate(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert distill("--output_dir", tmp_path / "launcher") == 0
    assert losses(tmp_path / "launcher") == losses(tmp_path / "flag")
    assert losses(tmp_path / "exact") != losses(tmp_path / "flag")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adam_weight_decay", 1e300], "adam_weight_decay = 1e+300 must be a number from 0 to 1"),
        (["--learning_rate", 1e38], "learning_rate = 1e+38 must be a number above 0"),
        (["--train_batch_size", 10**12], "train_batch_size = 1000000000000 must be"),
        (["--train_batch_size", 10**400], "train_batch_size = 100000"),
        (["--num_windows", 1000], "num_windows = 1000 must be a whole number from 1 to 64"),
        (["--compile", True], "compile = True needs a CUDA GPU"),
        (["--preset", "gpu"], "give --no_compile"),
        (["--rank", -3], "rank = -3"),
        (["--output_dir", ""], "--output_dir is empty"),
    ],
)
def test_numbers_that_make_no_sense_write_nothing(distill, tmp_path, capsys, words, message):
    before = set(tmp_path.iterdir())
    assert distill(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith("flowsteer: error: ") and message in err and err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_the_preset_s_name_stays_with_the_student(distill, tmp_path):
    words = ["--preset", "gpu", "--no_compile", True, "--mixed_precision", "no"]
    assert distill(*words, "--dataloader_num_workers", 0) == 0
    settings = StudentInfo.load(tmp_path / "out" / "student").settings
    assert (settings["preset"], settings["share_at_hi"]) == ("gpu", 0.8)


def test_a_second_run_in_a_folder_is_refused_before_anything_is_loaded(
    distill, tmp_path, capsys, monkeypatch
):
    assert distill("--max_train_steps", 4) == 0
    before = weights(tmp_path / "out")
    monkeypatch.setattr("flowsteer.loading.load_pipeline", lambda *args, **kwargs: 1 / 0)
    resume = ["--max_train_steps", 6, "--resume_from_checkpoint", "latest"]
    refused = [
        (["--seed", 7], "holds a run already (checkpoint-4, student, log.jsonl): go on with"),
        ([*resume, "--lora_alpha", 16], "lora_alpha = 16.0 (it has 2)"),
        ([*resume, "--rank", 4], "rank = 4 (it has 2)"),
        ([*resume, "--num_windows", 2], "num_windows = 2 (it has 4)"),
        (resume[2:], "past max_train_steps = 2"),
        (["--resume_from_checkpoint", "checkpoint-9"], "there are: checkpoint-3, checkpoint-4"),
    ]
    for words, message in refused:
        assert distill(*words) == 2
        line = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
        assert line.startswith("flowsteer: error: ") and message in line, line
    assert torch.equal(weights(tmp_path / "out"), before)


def test_a_run_goes_on_from_a_checkpoint_by_name_and_says_what_is_new(distill, tmp_path, capsys):
    assert distill("--max_train_steps", 3, "--checkpoints_total_limit", 3) == 0
    assert [row["step"] for row in read_log(tmp_path / "out")] == [1, 2, 3]
    capsys.readouterr()
    words = ["--resume_from_checkpoint", "checkpoint-1", "--logging_steps", 2, "--seed", 5]
    assert distill(*words, "--max_train_steps", 3, "--checkpointing_steps", 2) == 0
    err = capsys.readouterr().err.replace("\r", "\n")
    (line,) = [line for line in err.splitlines() if "other settings" in line]
    assert line.startswith("flowsteer: warning: ") and "seed = 5 (was 0)" in line
    assert "going back to checkpoint-1" in err
    assert [row["step"] for row in read_log(tmp_path / "out")] == [1, 2, 3]
    assert StudentInfo.load(tmp_path / "out" / "student").steps == 3


def test_files_of_the_user_where_the_student_goes_are_never_removed(distill, tmp_path, capsys):
    assert distill() == 0
    note = tmp_path / "out" / "student" / "README.md"
    note.write_text("my notes")
    assert distill("--resume_from_checkpoint", "latest", "--max_train_steps", 3) == 2
    assert "holds README.md, which no run wrote: move it away" in last_line(capsys)
    assert note.read_text() == "my notes"
