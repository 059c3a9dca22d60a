import json
import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.emoji.art import load_art
from flowsteer.emoji.backgrounds import background_colors
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.detector import (
    GRID_SIZE,
    Detection,
    Detector,
    DetectorConfig,
    DetectorMaps,
    intersection_over_union,
    load_detector,
    save_detector,
    suppress_overlaps,
)
from flowsteer.emoji.detector_loss import Truth, centre_heatmap, centre_loss, degrade, detector_loss
from flowsteer.emoji.detector_recipe import render_scenes, truth_of
from flowsteer.emoji.render import Renderer, pack_scenes
from flowsteer.emoji.scenes import (
    COLORS,
    DIRECTIONS,
    Background,
    Scene,
    World,
    draw_scene,
    scene_from_seed,
)

STYLES = ("3d", "flat", "noto", "twemoji")
WORLD = World(len(load_concepts()))


@pytest.fixture(scope="module")
def render():
    return Renderer(load_art())


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Detector(DetectorConfig(("koala", "pizza", "rocket"), STYLES, (8, 16, 16), 32)).eval()


def ideal_maps(detector: Detector, truth: Truth) -> DetectorMaps:
    """What a perfect network would say of scenes, wherever the centres are."""
    heat = centre_heatmap(truth).clamp(1e-4, 1 - 1e-4).logit()
    box = torch.zeros(len(heat), 3, GRID_SIZE, GRID_SIZE)
    embedding = torch.zeros(len(heat), detector.config.embedding, GRID_SIZE, GRID_SIZE)
    for b, m in truth.present.nonzero().tolist():
        at = truth.x[b, m] * GRID_SIZE, truth.y[b, m] * GRID_SIZE
        column, row = (int(v) for v in at)
        offset = [at[0] - column - 0.5, at[1] - row - 0.5, truth.size[b, m].log()]
        box[b, :, row, column] = torch.stack(offset)
        embedding[b, :, row, column] = detector.concept_weight[truth.concept[b, m]].detach()
    return DetectorMaps(heat, box, embedding)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_decoding_undoes_the_targets(seed):
    """Targets and decoder agree on cells, offsets, sizes, and on which objects are apart."""
    torch.manual_seed(0)
    names = tuple(concept.name for concept in load_concepts())
    detector = Detector(DetectorConfig(names, STYLES, (8, 16, 16), 64)).eval()
    scenes = [scene_from_seed(seed + i, WORLD) for i in range(8)]
    maps = ideal_maps(detector, truth_of(pack_scenes(scenes)))
    with torch.no_grad():
        found = detector.decode(maps, 0.3)
    for scene, detections in zip(scenes, found, strict=True):
        want = sorted((o.concept, o.x, o.y, o.size) for o in scene.objects)
        got = sorted((d.concept, d.x, d.y, d.size) for d in detections)
        assert len(got) == len(want)
        for (concept, *place), (found_concept, *found_place) in zip(want, got, strict=True):
            assert found_concept == concept
            assert found_place == pytest.approx(place, abs=1e-5)


def test_heatmap_is_one_in_exactly_one_cell_an_object():
    scenes = [scene_from_seed(i, WORLD) for i in range(200)]
    heat = centre_heatmap(truth_of(pack_scenes(scenes)))
    assert heat.shape == (200, GRID_SIZE, GRID_SIZE)
    assert (heat == 1).sum((1, 2)).tolist() == [len(scene.objects) for scene in scenes]
    assert float(heat.min()) >= 0


def test_centre_loss_is_least_for_the_truth():
    truth = truth_of(pack_scenes([scene_from_seed(i, WORLD) for i in range(8)]))
    exact = torch.where(centre_heatmap(truth) == 1, 20.0, -20.0)
    assert float(centre_loss(exact, truth)) < 1e-6
    assert float(centre_loss(-exact, truth)) > 10
    assert float(centre_loss(exact.roll(3, dims=2), truth)) > 10


def test_loss_teaches_every_parameter(tiny):
    scenes = [scene_from_seed(i, World(3)) for i in range(4)]
    tiny.train()
    images = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loss = detector_loss(tiny, images, truth_of(pack_scenes(scenes)))
    loss.total.backward()
    assert math.isfinite(loss.total.item())
    # the convolutions behind a block's zero-initialised last norm learn from the second step on
    untaught = {n for n, p in tiny.named_parameters() if p.grad is None}
    silent = {n for n, p in tiny.named_parameters() if p.grad is not None and not p.grad.any()}
    assert not untaught
    assert all(".layers." in name for name in silent)


def test_degraded_pictures_are_seeded_in_range_and_each_their_own():
    images = torch.zeros(4, 3, 128, 128)
    images[..., 40:80, 40:80] = 1.0
    once, twice = (degrade(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, twice)
    assert once.min() >= -1 and once.max() <= 1
    for i in range(3):
        assert not torch.allclose(once[i], once[i + 1], atol=0.02)
    assert (once - images).abs().mean() < 0.2  # a little worse, not another picture


def test_default_network_is_small():
    detector = Detector(DetectorConfig(tuple(c.name for c in load_concepts()), STYLES))
    assert sum(p.numel() for p in detector.parameters()) < 2_000_000


def test_a_picture_is_judged_alike_in_any_company(tiny):
    images = torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tiny.train()  # detect has to see to it itself
    together = tiny.detect(images, threshold=0.0)
    alone = [tiny.detect(image[None], threshold=0.0)[0] for image in images]
    for one, other in zip(together, tiny.detect(images, threshold=0.0, batch_size=2), strict=True):
        assert [d.concept for d in one] == [d.concept for d in other]
    for one, other in zip(together, alone, strict=True):
        assert [d.score for d in one] == pytest.approx([d.score for d in other], abs=1e-5)
    torch.testing.assert_close(
        tiny.features(images), torch.cat([tiny.features(i[None]) for i in images])
    )


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 128, 128), "shape"),
        (torch.zeros(1, 3, 64, 64), "128"),
        (torch.zeros(0, 3, 128, 128), "at least 1"),
        (torch.full((1, 3, 128, 128), torch.nan), "NaN"),
    ],
)
def test_what_is_no_picture_is_refused(tiny, images, words):
    with pytest.raises(ValueError, match=words):
        tiny.detect(images)
    with pytest.raises(ValueError, match=words):
        tiny.features(images)


def test_saving_and_loading_gives_the_same_detector(tiny, tmp_path):
    tiny.stem[1][1].running_mean.normal_(generator=torch.Generator().manual_seed(0))
    save_detector(tiny, tmp_path / "detector")
    back = load_detector(tmp_path / "detector")
    assert back.config == tiny.config and not back.training
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # weights are kept in half precision
    torch.testing.assert_close(back.features(images), tiny.features(images), rtol=0.02, atol=0.01)
    assert sorted(p.name for p in (tmp_path / "detector").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_folders_that_hold_no_detector_are_named(tiny, tmp_path):
    with pytest.raises(ValueError, match="nowhere holds no detector"):
        load_detector(tmp_path / "nowhere")
    save_detector(tiny, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "concepts": ["koala"]}))
    with pytest.raises(ValueError, match="do not fit each other"):
        load_detector(tmp_path)
    for widths in ([10**6] * 3, [10**12] * 3, [0, 0, 0]):  # no memory is taken for them
        (tmp_path / "config.json").write_text(json.dumps({**config, "widths": widths}))
        with pytest.raises(ValueError, match="do not fit each other|holds no detector"):
            load_detector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 3}))
    with pytest.raises(ValueError, match="depth"):
        load_detector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="holds no detector"):
        load_detector(tmp_path)


def test_a_detector_needs_names():
    with pytest.raises(ValueError, match="got 0"):
        DetectorConfig((), STYLES)


BOXES = st.builds(
    Detection,
    st.just(0),
    st.just(0),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.05, 0.9),
    st.floats(0, 1),
)


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_one_only_with_itself(a, b):
    assert intersection_over_union(a, a) == pytest.approx(1)
    assert intersection_over_union(a, b) == pytest.approx(intersection_over_union(b, a))
    assert 0 <= intersection_over_union(a, b) <= 1 + 1e-9


def test_overlap_of_known_squares():
    a = Detection(0, 0, 0.5, 0.5, 0.4, 1.0)
    beside = replace(a, x=0.7)  # half of each is shared
    assert intersection_over_union(a, beside) == pytest.approx(1 / 3)
    assert intersection_over_union(a, replace(a, size=0.2)) == pytest.approx(1 / 4)
    assert intersection_over_union(a, replace(a, x=0.95)) == 0


@given(st.lists(BOXES, max_size=8))
def test_of_overlapping_detections_the_surest_stays(detections):
    kept = suppress_overlaps(detections)
    assert [d.score for d in kept] == sorted((d.score for d in kept), reverse=True)
    for dropped in detections:
        if dropped not in kept:
            assert any(
                intersection_over_union(dropped, k) >= 0.4 and k.score >= dropped.score
                for k in kept
            )
    assert suppress_overlaps(kept) == kept


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_pairs_of_background_colors_are_read(render, direction):
    rng = random.Random(direction)
    scenes = []
    for first in range(len(COLORS)):
        for second in range(len(COLORS)):
            colors = (first,) if first == second else (first, second)
            scene = draw_scene(rng, WORLD)
            scenes.append(Scene(scene.kind, scene.objects, Background(colors, direction)))
    for scene, image in zip(scenes, render_scenes(render, scenes, clean=False), strict=True):
        found = [Detection(0, 0, o.x, o.y, o.size, 1.0) for o in scene.objects]
        assert background_colors(image, found) == scene.background.colors


def test_background_is_read_though_a_small_object_was_missed(render):
    rng = random.Random(0)
    scenes = [s for s in (draw_scene(rng, WORLD) for _ in range(200)) if len(s.objects) == 2][:40]
    right = 0
    for scene, image in zip(scenes, render_scenes(render, scenes), strict=True):
        o = scene.objects[0]
        found = [Detection(0, 0, o.x, o.y, o.size, 1.0)]
        right += background_colors(image, found) == scene.background.colors
    assert right >= 38


def test_background_behind_an_object_that_fills_the_canvas_is_still_an_answer():
    image = torch.ones(3, 128, 128)
    assert background_colors(image, [Detection(0, 0, 0.5, 0.5, 2.0, 1.0)]) == (
        COLORS.index("white"),
    )


@pytest.fixture(scope="module")
def detector():
    return load_detector()


@pytest.fixture(scope="module")
def scenes():
    rng = random.Random("tests of the bundled detector")
    return [draw_scene(rng, WORLD) for _ in range(240)]


@pytest.fixture(scope="module")
def images(render, scenes):
    return render_scenes(render, scenes)


def test_knows_the_bundled_concepts_in_their_order(detector):
    assert detector.config.concepts == tuple(c.name for c in load_concepts())
    assert detector.config.styles == STYLES


def test_finds_counts_names_and_places_objects(detector, scenes, images):
    counted = named = styled = total = 0
    errors = []
    for scene, found in zip(scenes, detector.detect(images), strict=True):
        counted += len(found) == len(scene.objects)
        total += len(scene.objects)
        for o in scene.objects:
            near = min(found, key=lambda d: math.hypot(d.x - o.x, d.y - o.y), default=None)
            if near is None or math.hypot(near.x - o.x, near.y - o.y) > 0.1:
                continue
            named += near.concept == o.concept
            styled += near.style == o.style
            errors.append(abs(near.x - o.x) + abs(near.y - o.y) + abs(near.size - o.size))
    assert counted >= 0.97 * len(scenes)
    assert named >= 0.97 * total
    assert styled >= 0.97 * total
    assert sum(errors) / len(errors) < 0.03


def test_sees_through_blur_and_noise(detector, render, scenes):
    found = detector.detect(render_scenes(render, scenes, seed=1, clean=False))
    right = sum(
        sorted(d.concept for d in ds) == sorted(o.concept for o in scene.objects)
        for scene, ds in zip(scenes, found, strict=True)
    )
    assert right >= 0.93 * len(scenes)


def test_finds_nothing_in_an_empty_background(detector, render):
    things = scene_from_seed(0, WORLD).objects
    scenes = [Scene("single", things, Background((c,))) for c in range(len(COLORS))]
    packed = pack_scenes(scenes)
    empty = render(packed._replace(sprite=torch.full_like(packed.sprite, -1)))
    assert detector.detect(empty) == [[]] * len(COLORS)


def test_features_tell_worse_pictures_from_other_ones(detector, render, scenes, images):
    from flowsteer.measure import frechet_distance

    same = frechet_distance(detector.features(images[:120]), detector.features(images[120:]))
    blurred = torch.nn.functional.avg_pool2d(images[120:], 5, 1, 2)
    worse = frechet_distance(detector.features(images[:120]), detector.features(blurred))
    assert worse > 1.5 * same


def test_is_at_most_4_mb():
    from flowsteer.emoji.detector import DETECTOR_FOLDER

    assert (DETECTOR_FOLDER / "model.safetensors").stat().st_size <= 4_000_000
