"""Cached embeddings are the text encoders' own, and the encoders are not asked twice."""

import copy
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from flowsteer.emoji.pipeline import build_pipeline
from flowsteer.models import TextCondition, encode_prompts, fold_pipeline
from flowsteer.training import prompt_cache
from flowsteer.training.prompt_cache import PromptCache, model_key
from flowsteer.untrusted import read_header

TEXTS = ["koala", "a pizza", "", "two foxes", "a 3d koala left of a flat pizza"]


@pytest.fixture(scope="module")
def pipes():
    folded = fold_pipeline(build_pipeline("tiny", seed=3))
    long = build_pipeline("tiny", seed=3)
    torch.manual_seed(0)
    width = long.transformer.config.joint_attention_dim
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    long.text_encoder_3 = T5EncoderModel(T5Config(vocab_size=600, **sizes)).eval()
    long.tokenizer_3 = long.tokenizer
    return {"folded": folded, "t5": long}


@pytest.fixture
def pipe(pipes):
    return copy.deepcopy(pipes["folded"])


class Asked:
    """Counts the prompts that a pipeline's text encoder reads, and stops it at one."""

    def __init__(self, pipe, stop_at=None):
        self.count, self.stop_at = 0, stop_at
        pipe.text_encoder.register_forward_pre_hook(self.note)

    def note(self, _, args):
        self.count += len(args[0])
        if self.stop_at is not None and self.count >= self.stop_at:
            raise RuntimeError("the text encoders were asked")


def assert_same(got, expected):
    assert isinstance(got, TextCondition)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def embed(pipe, texts, size=2):
    """The pipeline's own condition, asked in batches as the cache asks."""
    parts = [encode_prompts(pipe, texts[low : low + size]) for low in range(0, len(texts), size)]
    return type(parts[0])(*(torch.cat(leaves) for leaves in zip(*parts, strict=True)))


def build(pipe, folder, texts=TEXTS, model="emoji"):
    return PromptCache.build(pipe, texts, folder, model, batch_size=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["folded", "t5"])
def test_the_cache_gives_what_the_text_encoders_give(pipes, tmp_path, kind, dtype):
    pipe = copy.deepcopy(pipes[kind])
    for encoder in (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
        if encoder is not None:
            encoder.to(dtype)
    expected = embed(pipe, TEXTS)
    assert expected.tokens.shape[1] == 31 + (256 if kind == "t5" else 1)
    assert expected.tokens.dtype == dtype
    fresh, again = build(pipe, tmp_path, TEXTS + TEXTS[:2]), build(pipe, tmp_path)
    order = [4, 0, 0, 3, 2, 1]
    texts = [TEXTS[row] for row in order]
    for cache in (fresh, again):
        assert_same(cache(texts), [leaf[order] for leaf in expected])
        assert_same(cache.on("cpu")(texts), cache(texts, "cpu"))
        assert cache(texts, "meta").tokens.device.type == "meta"


def test_a_second_build_asks_nobody_and_reads_headers_alone(pipe, tmp_path):
    build(pipe, tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # of the last prompt in the tensor that is stored last
    file.write_bytes(content)
    asked = Asked(pipe, stop_at=1)
    cache = build(pipe, tmp_path, TEXTS[::-1])
    assert asked.count == 0
    cache(TEXTS[:-1])
    with pytest.raises(ValueError, match="'a 3d koala left of a flat pizza' do not match their ch"):
        cache(TEXTS)


def test_only_new_prompts_are_encoded(pipe, tmp_path):
    asked = Asked(pipe)
    first = build(pipe, tmp_path, TEXTS[:3])
    assert asked.count == 3
    both = build(pipe, tmp_path, TEXTS)
    assert asked.count == 5
    assert_same(both(TEXTS[:3]), first(TEXTS[:3]))
    assert_same(both(TEXTS[3:]), embed(pipe, TEXTS[3:]))


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_damaged_file_is_made_anew_with_a_warning(pipe, tmp_path, keep):
    build(pipe, tmp_path, TEXTS[:4])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.warns(UserWarning, match=r"safetensors is no whole .* encoded anew"):
        cache = build(pipe, tmp_path)
    assert_same(cache(TEXTS), embed(pipe, TEXTS))
    Asked(pipe, stop_at=1)
    with warnings.catch_warnings(action="error"):
        build(pipe, tmp_path)  # the folder is whole from then on


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"prompts": "[" * 100_000}, "prompts of .* nested deeper than 64"),
        ({"prompts": "3"}, "prompts, checksums and embeddings differ"),
        ({"prompts": '["a"]'}, "prompts, checksums and embeddings differ"),
        ({"crc32": '["a", "b", "c", "d"]'}, "prompts, checksums and embeddings differ"),
        ({"crc32": "[1, 2, 3, " + "9" * 400 + "]"}, "a number of 400 digits"),
    ],
)
def test_a_file_that_lies_is_made_anew_with_a_warning(pipe, tmp_path, metadata, problem):
    build(pipe, tmp_path, TEXTS[:4])
    (file,) = tmp_path.iterdir()
    save_file(load_file(file), file, dict(read_header(file).metadata) | metadata)
    with pytest.warns(UserWarning, match=problem):
        cache = build(pipe, tmp_path)
    assert_same(cache(TEXTS), embed(pipe, TEXTS))


def test_an_interrupted_build_goes_on_where_it_stopped(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_cache, "PROMPTS_PER_FILE", 2)
    cut_off = copy.deepcopy(pipe)
    Asked(cut_off, stop_at=5)
    with pytest.raises(RuntimeError, match="were asked"):
        build(cut_off, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    asked = Asked(pipe)
    cache = build(pipe, tmp_path)
    assert asked.count == 1 and len(list(tmp_path.iterdir())) == 3
    assert_same(cache(TEXTS), embed(pipe, TEXTS))


def test_a_file_is_there_whole_or_not_at_all(pipe, tmp_path, monkeypatch):
    def full_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr(prompt_cache.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        build(pipe, tmp_path)
    assert list(tmp_path.iterdir()) == []


def retrained(pipe):
    with torch.no_grad():
        pipe.text_encoder_2.text_projection.weight.mul_(1.01)
    return pipe


def halved(pipe):
    pipe.text_encoder.bfloat16()
    return pipe


def unfolded(pipe):
    return build_pipeline("tiny", seed=3)


@pytest.mark.parametrize("change", [retrained, halved, unfolded])
def test_embeddings_of_other_encoders_are_not_taken(pipe, tmp_path, change):
    build(pipe, tmp_path)
    same, other = copy.deepcopy(pipe), change(copy.deepcopy(pipe))
    assert model_key(same, "emoji") == model_key(pipe, "emoji")
    assert model_key(other, "emoji") != model_key(pipe, "emoji")
    asked = Asked(other)
    cache = build(other, tmp_path)
    assert asked.count == len(TEXTS)
    assert_same(cache(TEXTS), embed(other, TEXTS))


def test_weights_that_both_precisions_can_hold_are_told_apart(pipe):
    pipe.text_encoder.bfloat16()
    half = model_key(pipe, "emoji")
    pipe.text_encoder.float()
    assert model_key(pipe, "emoji") != half


def test_each_model_and_version_has_its_own(pipe, monkeypatch):
    keys = {model_key(pipe, "emoji"), model_key(pipe, "other")}
    monkeypatch.setattr(prompt_cache.flowsteer, "__version__", "99")
    assert len(keys | {model_key(pipe, "emoji")}) == 3


def test_what_the_cache_cannot_do_is_said(pipe, tmp_path):
    cache = build(pipe, tmp_path / "deep" / "cache", TEXTS[:2])
    with pytest.raises(ValueError, match="prompt 'two foxes' is not in the cache"):
        cache(["koala", "two foxes"])
    build(pipe, cache.folder)
    with pytest.raises(ValueError, match="is not in the cache"):
        build(pipe, cache.folder, TEXTS[:2])(["two foxes"])  # stored, but not of this list
    with pytest.raises(ValueError, match="0 prompts"):
        build(pipe, tmp_path, [])
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; name a folder"):
        build(pipe, tmp_path / "file")
