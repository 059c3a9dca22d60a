"""The autoencoder's and the teacher's recipes on tiny networks: results, resumption, divergence."""

import json
from itertools import combinations

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from safetensors.torch import load_file

from flowsteer.emoji import autoencoder_recipe, teacher_recipe
from flowsteer.emoji.art import load_art
from flowsteer.emoji.autoencoder_recipe import normalize_latents, train_autoencoder
from flowsteer.emoji.batches import SceneBatch, encode, fill_bank, tokenize
from flowsteer.emoji.pipeline import SIZES, build_autoencoder, build_pipeline
from flowsteer.emoji.render import Renderer
from flowsteer.emoji.scenes import held_out_style, pair_held_out
from flowsteer.emoji.teacher_recipe import train_teacher
from flowsteer.models.autoencoder import decode_latents
from flowsteer.training import TrainingConfig, TrainingDiverged, latest_checkpoint
from flowsteer.training.data import seeded_generator

CAPTIONS = ["a koala", "two foxes on a pink background", "a 3d pizza"]


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    """The recipes' own numbers take minutes here; these are read when a recipe runs."""
    monkeypatch.setattr(autoencoder_recipe, "NORMALIZING_SCENES", 32)
    monkeypatch.setattr(autoencoder_recipe, "EVALUATION_SCENES", 32)
    monkeypatch.setattr(teacher_recipe, "CORPUS_SIZE", 50)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = build_autoencoder(SIZES["tiny"])
    normalize_latents(vae, seed=0, scenes=32)
    return vae


def config(folder, **settings):
    defaults = {
        "max_train_steps": 4,
        "train_batch_size": 2,
        "checkpointing_steps": 2,
        "learning_rate": 1e-3,
        "lr_warmup_steps": 0,
    }
    return TrainingConfig(output_dir=str(folder), **(defaults | settings))


def autoencoder(folder, **settings):
    return train_autoencoder(config(folder, **settings), "tiny", report_every=1)


@pytest.fixture(scope="module")
def teacher_of(vae):
    def start(folder, pipe=None, **settings):
        return train_teacher(config(folder, **settings), vae, "tiny", pipe, 4, report_every=1)

    return start


def run(reports, stop_after=None):
    done = []
    for report in reports:
        done.append(report)
        if report.step == stop_after:
            break
    return done


def tensors(folder):
    """All weights below a folder, by file and name."""
    return {
        f"{path.relative_to(folder)}/{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def load_stock(folder):
    pipe = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def trained_autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder_recipe, "NORMALIZING_SCENES", 32)
        patch.setattr(autoencoder_recipe, "EVALUATION_SCENES", 32)
        reports = run(autoencoder(folder, max_train_steps=6, learning_rate=5e-3))
    return folder, reports


def test_the_autoencoder_learns_and_its_latents_are_normalised(trained_autoencoder):
    folder, reports = trained_autoencoder
    assert reports[-1].loss < 0.9 * reports[0].loss
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    assert vae.config.scaling_factor != 1 and vae.config.shift_factor != 0
    pictures = Renderer(load_art(), "cpu")(SceneBatch(32, seed=77)(0)[0])
    with torch.no_grad():
        latents = encode(vae, pictures)
        drawn = decode_latents(vae, latents)
    assert latents.mean().abs() < 0.1
    assert latents.std() == pytest.approx(1, abs=0.1)
    assert drawn.shape == pictures.shape and drawn.isfinite().all()
    record = json.loads((folder / "autoencoder.json").read_text())
    own = autoencoder_recipe.evaluate_autoencoder(vae, 32)
    assert record["psnr"] == pytest.approx(own, abs=0.1)  # the file holds bf16


def test_a_resumed_autoencoder_is_the_uninterrupted_one(tmp_path):
    run(autoencoder(tmp_path / "whole"))
    run(autoencoder(tmp_path / "parts"), stop_after=3)
    assert not (tmp_path / "parts" / "vae").exists()
    reports = run(autoencoder(tmp_path / "parts", resume_from_checkpoint="latest"))
    assert [report.step for report in reports] == [3, 4]
    assert_same(tensors(tmp_path / "whole" / "vae"), tensors(tmp_path / "parts" / "vae"))


def test_the_teachers_folder_loads_in_stock_diffusers(teacher_of, vae, tmp_path):
    reports = run(teacher_of(tmp_path, learning_rate=1e-2, train_batch_size=4))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert all(report.loss > 0 for report in reports)
    pipe = load_stock(tmp_path / "pipeline")
    assert type(pipe) is StableDiffusion3Pipeline
    assert pipe.vae.config.scaling_factor == vae.config.scaling_factor
    fresh = build_pipeline("tiny", 0)
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        network, start = getattr(pipe, name), dict(getattr(fresh, name).named_parameters())
        moved = [n for n, p in network.named_parameters() if (p - start[n]).abs().max() > 1e-3]
        assert moved, f"{name} was not trained"
    picture = pipe("a koala", num_inference_steps=1, output_type="pt").images
    assert picture.shape == (1, 3, 128, 128) and picture.isfinite().all()


def test_a_resumed_teacher_is_the_uninterrupted_one(teacher_of, tmp_path):
    run(teacher_of(tmp_path / "whole"))
    run(teacher_of(tmp_path / "parts"), stop_after=3)
    assert not (tmp_path / "parts" / "pipeline").exists()
    reports = run(teacher_of(tmp_path / "parts", resume_from_checkpoint="latest"))
    assert [report.step for report in reports] == [3, 4]
    assert_same(tensors(tmp_path / "whole" / "pipeline"), tensors(tmp_path / "parts" / "pipeline"))


def test_a_teacher_goes_on_from_another_with_its_tokenizer(teacher_of, tmp_path):
    """A rate too small to move a weight leaves the start's weights, and always its tokenizer."""
    start = build_pipeline("tiny", seed=5, corpus=CAPTIONS * 20)
    vocabulary = start.tokenizer.get_vocab()
    expected = {n: p.detach().clone() for n, p in start.transformer.named_parameters()}
    run(teacher_of(tmp_path, start, max_train_steps=1, learning_rate=1e-12))
    pipe = load_stock(tmp_path / "pipeline")
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        assert tokenizer.get_vocab() == vocabulary
        assert torch.equal(tokenize(tokenizer, CAPTIONS), tokenize(start.tokenizer, CAPTIONS))
    for name, parameter in pipe.transformer.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("recipe", ["autoencoder", "teacher"])
def test_divergence_leaves_the_last_checkpoint_alone(teacher_of, tmp_path, recipe, monkeypatch):
    make = {"autoencoder": autoencoder, "teacher": teacher_of}[recipe]
    run(make(tmp_path), stop_after=3)
    before = tensors(tmp_path)
    # far beyond the flag's limit, below which nothing diverges in a few steps
    monkeypatch.setattr(TrainingConfig, "learning_rate_at", lambda *arguments: 1e30)
    wild = {"resume_from_checkpoint": "latest", "max_train_steps": 8}
    with pytest.raises(TrainingDiverged, match="is not finite; lower --learning_rate"):
        run(make(tmp_path, **wild))
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"
    assert_same(before, tensors(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]


def test_a_nan_learning_rate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="learning_rate = nan"):
        autoencoder(tmp_path / "out", learning_rate=float("nan"))
    assert not (tmp_path / "out").exists()


def test_training_times_lean_towards_noise():
    times = teacher_recipe.training_times(20_000, torch.Generator().manual_seed(0))
    assert times.min() > 0 and times.max() < 1
    # the logit-normal's median 1/2, shifted by 1.5
    assert times.median() == pytest.approx(0.6, abs=0.01)


def test_held_out_pairs_are_in_no_batch():
    make = SceneBatch(1500, seed=3)
    styled = paired = 0
    for index in range(2):
        for sprites in make(index)[0].sprite.tolist():
            shown = {(concept, style) for concept, style in sprites if concept >= 0}
            for concept, style in shown:
                held = held_out_style(concept)
                assert held != style
                styled += held is not None
            for first, second in combinations({concept for concept, _ in shown}, 2):
                assert not pair_held_out(first, second)
                paired += 1
    # enough were drawn for a leak to show: chance would hold out 1 in 4 of these and 1 in 20
    assert styled > 300 and paired > 500


def test_batches_are_functions_of_seed_and_number():
    make, other = SceneBatch(3, 1), SceneBatch(3, 2)
    assert str(make(5)) == str(make(5))
    assert len({str(make(5)), str(make(6)), str(other(5))}) == 3


@pytest.fixture(scope="module")
def tokenizer():
    return build_pipeline("tiny", corpus=CAPTIONS * 20).tokenizer


def test_the_bank_holds_encoded_scenes_with_their_captions(vae, tokenizer):
    bank = fill_bank(vae, tokenizer, 5, seed=9, captions=2, batch_size=2)
    assert len(bank) == 5 and bank.ids.shape == (2, 5, 31)
    make, render = SceneBatch(2, 9, tokenizer, captions=2), Renderer(load_art(), "cpu")
    parts = [make(index) for index in range(3)]
    with torch.no_grad():
        expected = torch.cat([encode(vae, render(scenes)) for scenes, _ in parts])[:5]
    torch.testing.assert_close(bank.latents.float(), expected, rtol=1e-2, atol=1e-2)  # bf16
    assert torch.equal(bank.ids.long(), torch.cat([ids for _, ids in parts], 1)[:, :5])
    assert not torch.equal(bank.ids[0], bank.ids[1])


def test_draws_from_the_bank_keep_latents_and_captions_together(vae, tokenizer):
    bank = fill_bank(vae, tokenizer, 4, seed=9, captions=2)
    latents, ids = bank.draw(64, seeded_generator("cpu", 1))
    assert latents.dtype == torch.float32
    rows = (latents[:, None] == bank.latents.float()).flatten(2).all(2).long().argmax(1)
    assert set(rows.tolist()) == {0, 1, 2, 3}
    captions = [[bank.ids[which, row].tolist() for which in (0, 1)] for row in rows]
    assert all(told.tolist() in pair for told, pair in zip(ids, captions, strict=True))
    assert {pair.index(told.tolist()) for told, pair in zip(ids, captions, strict=True)} == {0, 1}


def test_an_empty_bank_is_refused(vae, tokenizer):
    with pytest.raises(ValueError, match="scenes = 0 must be at least 1"):
        fill_bank(vae, tokenizer, 0, seed=1)
