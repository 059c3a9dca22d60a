"""Samples of the emoji world: the same scene and caption for a number, however they are asked."""

import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.emoji.art import load_art
from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.batches import CaptionSource, SceneSource, encode, scene_encoder
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.pipeline import SIZES, build_autoencoder
from flowsteer.emoji.render import Renderer
from flowsteer.emoji.scenes import COLORS, World
from flowsteer.emoji.words import known_words, normalize_prompt
from flowsteer.training.data import NumberedBatches
from flowsteer.training.sources import cached


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = build_autoencoder(SIZES["tiny"])
    vae.register_to_config(scaling_factor=1.7, shift_factor=0.3)
    return vae.requires_grad_(False).eval()


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 11)), st.integers(0, 2**40))
def test_samples_do_not_depend_on_how_they_are_batched(cuts, first):
    edges = [first, *(first + cut for cut in sorted(cuts)), first + 12]
    ranges = [range(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    whole = SceneSource(4)(range(first, first + 12))
    parts = [SceneSource(4)(part) for part in ranges]
    assert [text for part in parts for text in part.texts] == whole.texts
    for name, leaf in whole.pictures._asdict().items():
        assert torch.equal(torch.cat([getattr(part.pictures, name) for part in parts]), leaf)
    captions = [CaptionSource(4)(part) for part in ranges]
    assert [text for part in captions for text in part.texts] == whole.texts
    assert all(part.pictures is None for part in captions)


def test_samples_and_seeds_differ():
    scenes = [SceneSource(seed)(range(100)) for seed in (0, 1)]
    places = torch.cat([drawn.pictures.place for drawn in scenes]).flatten(1)
    assert len(places.unique(dim=0)) == 200
    texts = [text for drawn in scenes for text in drawn.texts]
    assert len(set(texts)) > 190


def test_captions_tell_of_their_own_scenes():
    """Those that name a background or a style, against what is drawn."""
    color = f"({'|'.join(COLORS)})"
    background_words = re.compile(rf"{color} (?:to {color} )?(?:gradient|background)")
    drawn = SceneSource(0)(range(2000))
    backgrounds, sprites = drawn.pictures.background.tolist(), drawn.pictures.sprite.tolist()
    colored = styled = 0
    for text, background, sprite in zip(drawn.texts, backgrounds, sprites, strict=True):
        if found := background_words.search(text):
            assert [COLORS[k] for k in background[:2]] == [found[1], found[2] or found[1]]
            colored += 1
        if told := set(text.split()) & set(STYLES):
            assert told <= {STYLES[style] for concept, style in sprite if concept >= 0}
            styled += 1
    assert colored > 700 and styled > 500


def test_captions_are_normalised_and_of_training_scenes():
    drawn = SceneSource(7)(range(1500))
    assert all(text == normalize_prompt(text) for text in drawn.texts)
    assert {word for text in drawn.texts for word in text.split()} <= known_words()
    world = World(len(load_concepts()), training=True)
    pairs = 0
    for sprite in drawn.pictures.sprite.tolist():
        shown = [(concept, style) for concept, style in sprite if concept >= 0]
        assert all(world.allows_style(concept, style) for concept, style in shown)
        concepts = {concept for concept, _ in shown}
        if len(concepts) == 2:
            assert world.allows_pair(*concepts)
            pairs += 1
    assert pairs > 300  # chance would hold out 1 in 20


def test_scenes_come_from_workers_as_they_are():
    source = pickle.loads(pickle.dumps(SceneSource(3)))
    (texts, scenes), expected = NumberedBatches(_Five(source), 1)(2), source(range(10, 15))
    assert texts == expected.texts and type(scenes) is type(expected.pictures)
    assert all(map(torch.equal, scenes, expected.pictures))


class _Five:
    def __init__(self, source):
        self.source = source

    def __call__(self, index):
        return self.source(range(5 * index, 5 * index + 5))


def test_scenes_are_drawn_encoded_and_normalised(vae):
    scenes = SceneSource(0)(range(3)).pictures
    latents = scene_encoder(vae)(scenes)
    pictures = Renderer(load_art(), "cpu")(scenes)
    z = vae.encode(pictures).latent_dist.mean
    torch.testing.assert_close(latents / 1.7 + 0.3, z)
    torch.testing.assert_close(latents, encode(vae, pictures))  # as recipes train the teacher
    assert torch.equal(scene_encoder(vae, "cpu")(scenes), latents)


def test_cached_scenes_are_the_sources_own(vae):
    source, encode_scenes = SceneSource(5), scene_encoder(vae)
    drawn, look_up = cached(source, encode_scenes, 5, seed=1, batch_size=2)
    first = source(range(5))
    expected = encode_scenes(first.pictures)
    got = drawn(range(10))
    assert sorted(got.texts[:5]) == sorted(first.texts) == sorted(got.texts[5:])
    rows = got.pictures.tolist()
    assert got.texts == [first.texts[row] for row in rows]
    # float16 keeps 11 bits
    torch.testing.assert_close(look_up(got.pictures), expected[rows], rtol=2**-11, atol=1e-4)
