from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsteer.emoji.art_sources import STYLES
from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.detector import Detection
from flowsteer.emoji.evaluation import find_problem
from flowsteer.emoji.prompts import (
    PROMPTS_FOLDER,
    TASKS,
    EvalPrompt,
    PromptObject,
    load_prompts,
    true_scene_for,
    write_prompts,
)
from flowsteer.emoji.scenes import COLORS, World, held_out_style, pair_held_out
from flowsteer.emoji.words import normalize_prompt, unknown_words

CONCEPTS = load_concepts()
WORLD = World(len(CONCEPTS))
NUMBERS = {concept.name: number for number, concept in enumerate(CONCEPTS)}


def test_the_files_in_the_repository_are_what_the_function_draws(tmp_path):
    for path in write_prompts(tmp_path):
        assert path.read_bytes() == (PROMPTS_FOLDER / path.name).read_bytes()


@pytest.mark.parametrize(("split", "per_task"), [("test", 200), ("dev", 100)])
def test_each_task_has_its_share(split, per_task):
    prompts = load_prompts(split)
    assert Counter(prompt.task for prompt in prompts) == dict.fromkeys(TASKS, per_task)


def test_no_prompt_is_drawn_twice_and_no_noise_either():
    prompts = load_prompts("test") + load_prompts("dev")
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 1800
    assert len({normalize_prompt(prompt.text) for prompt in prompts}) == len(prompts)
    assert len({prompt.seed for prompt in prompts}) == len(prompts)


def test_the_model_knows_every_word_and_reads_names_as_they_are():
    for prompt in load_prompts("test") + load_prompts("dev"):
        assert unknown_words(prompt.text) == []
        words = normalize_prompt(prompt.text)
        for thing in prompt.objects:
            concept = CONCEPTS[NUMBERS[thing.concept]]
            name = concept.name if thing.count == 1 else concept.plural
            assert normalize_prompt(name) in words


@given(st.integers(6, 600))
def test_any_number_of_prompts_is_shared_among_the_tasks(number):
    prompts = load_prompts("dev", number)
    assert len(prompts) == number
    shares = Counter(prompt.task for prompt in prompts)
    assert max(shares.values()) - min(shares.values()) <= 1 and len(shares) == 6
    assert prompts == load_prompts("dev")[:number]


@pytest.mark.parametrize("number", [0, 5, -1, 601, 7.5])
def test_impossible_numbers_of_prompts_are_refused(number):
    with pytest.raises(ValueError, match=r"num_prompts is .*6 to 600"):
        load_prompts("dev", number)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="test, dev"):
        load_prompts("train")


def test_held_out_pairs_are_flagged():
    flagged = Counter()
    for prompt in load_prompts("test") + load_prompts("dev"):
        numbers = [NUMBERS[thing.concept] for thing in prompt.objects]
        truth = len(numbers) == 2 and pair_held_out(*numbers)
        for number, thing in zip(numbers, prompt.objects, strict=True):
            if thing.style is not None:
                truth |= held_out_style(number) == STYLES.index(thing.style)
        assert prompt.held_out == truth
        flagged[prompt.task] += truth
    for task in ("two_objects", "position", "style"):
        assert flagged[task] > 5  # enough to speak of


def test_every_task_names_what_it_tests():
    for prompt in load_prompts("test"):
        one = len(prompt.objects) == 1
        assert (prompt.background is not None) == (prompt.task == "colors")
        assert (prompt.relation is not None or prompt.place is not None) == (
            prompt.task == "position"
        )
        assert any(thing.style for thing in prompt.objects) == (prompt.task == "style")
        assert (prompt.objects[0].count > 1) == (prompt.task == "counting")
        if prompt.task == "style" and not one:
            assert prompt.objects[0].style != prompt.objects[1].style
        for word in (prompt.relation, prompt.place, *(prompt.background or ())):
            assert word is None or word in prompt.text.replace("center", "middle")


def perfect_finding(scene):
    found = [Detection(o.concept, o.style, o.x, o.y, o.size, 1.0) for o in scene.objects]
    names = [(STYLES[o.style], CONCEPTS[o.concept].name) for o in scene.objects]
    return found, names, tuple(COLORS[color] for color in scene.background.colors)


def test_a_true_scene_of_every_prompt_is_judged_right():
    for prompt in load_prompts("test") + load_prompts("dev"):
        scene = true_scene_for(prompt, prompt.seed, WORLD)
        assert find_problem(prompt, *perfect_finding(scene)) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(load_prompts("dev")), st.sampled_from(load_prompts("dev")))
def test_a_true_scene_of_another_prompt_is_judged_wrong(prompt, other):
    if {o.concept for o in prompt.objects} != {o.concept for o in other.objects}:
        scene = true_scene_for(other, 0, WORLD)
        assert find_problem(prompt, *perfect_finding(scene)) is not None


def test_a_true_scene_is_drawn_from_its_seed_and_leaves_the_rest_open():
    prompt = EvalPrompt("a koala", "single", (PromptObject("koala"),))
    assert true_scene_for(prompt, 1, WORLD) == true_scene_for(prompt, 1, WORLD)
    scenes = [true_scene_for(prompt, seed, WORLD) for seed in range(40)]
    assert len({scene.background.colors for scene in scenes}) > 10
    assert {scene.objects[0].style for scene in scenes} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "prompt",
    [
        EvalPrompt("a dodecahedron", "single", (PromptObject("dodecahedron"),)),
        EvalPrompt("a koala on teal", "colors", (PromptObject("koala"),), ("teal",)),
        EvalPrompt("an oil koala", "style", (PromptObject("koala", "oil"),)),
    ],
)
def test_what_the_world_does_not_have_is_refused(prompt):
    with pytest.raises(ValueError, match="the world has no"):
        true_scene_for(prompt, 0, WORLD)


def test_more_objects_than_a_scene_holds_are_refused(monkeypatch):
    monkeypatch.setattr("flowsteer.emoji.prompts._TRIES", 300)  # the error, sooner
    prompt = EvalPrompt("nine koalas", "counting", (PromptObject("koala", count=9),))
    with pytest.raises(ValueError, match="up to 4"):
        true_scene_for(prompt, 0, WORLD)
