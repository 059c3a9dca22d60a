"""The study: its sampler is the pipeline's, and what it writes can be read again."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from flowsteer import load_pipeline
from flowsteer.emoji.detector import load_detector
from flowsteer.emoji.evaluation import EmojiEvalReport, summarize
from flowsteer.emoji.prompts import TASKS, load_prompts
from flowsteer.evaluation import study
from flowsteer.evaluation.report import (
    RESULTS,
    best_scale,
    compare_rows,
    known_undistilled,
    report_student,
    report_teacher,
)
from flowsteer.evaluation.study import (
    Result,
    Variant,
    evaluate_variants,
    prepare,
    sample,
    take_reference,
    undistilled_variants,
)
from flowsteer.generation import Settings, encode
from flowsteer.generation import sample as pipeline_sample
from flowsteer.loading import with_student
from flowsteer.students import StudentInfo


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(device="cpu")


@pytest.fixture(scope="module")
def detector():
    return load_detector(device="cpu")


@pytest.mark.parametrize("scheduler", ["rectified", "stock"])
def test_samples_are_the_pipelines_own_latents(pipe, scheduler):
    prompts = load_prompts("dev", 6)[:2]
    setting = prepare(pipe, prompts)
    got = sample(pipe, setting, Variant("four", 4, 3.0, scheduler))
    expected = pipeline_sample(
        pipe,
        encode(pipe, [prompt.text for prompt in prompts]),
        setting.noise,
        Settings(num_inference_steps=4, guidance_scale=3.0, scheduler=scheduler),
    ).latents
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


def test_batches_change_nothing(tiny):
    setting = prepare(tiny, load_prompts("dev", 6), batch_size=4)
    variant = Variant("two", 2, 2.0)
    torch.testing.assert_close(
        sample(tiny, setting, variant, batch_size=4),
        sample(tiny, setting, variant),
        rtol=1e-4,
        atol=1e-5,
    )


def result(prompts, correct, distances, label="teacher, stock, guidance 3"):
    return Result(
        variant=Variant(label, 4, 3.0, "stock"),
        report=summarize(prompts, correct),
        correct=list(correct),
        distances=list(distances),
        frechet=1.25,
        endpoint_distance=0.5,
    )


def test_results_survive_json():
    prompts = load_prompts("test", 12)
    correct = [i % 3 > 0 for i in range(12)]
    first = result(prompts, correct, [i / 16 for i in range(12)])
    row = json.loads(json.dumps(first.to_json()))
    again = Result.from_json(row, prompts)
    assert again.to_json() == first.to_json()
    assert again.variant == first.variant and again.variant.nfe == 8
    assert (again.frechet, again.endpoint_distance) == (1.25, 0.5)


def test_a_record_can_be_cut_to_its_first_prompts():
    prompts = load_prompts("test", 12)
    correct = [True] * 6 + [False] * 6
    row = result(prompts, correct, [0.25] * 6 + [0.75] * 6).to_json()
    cut = Result.from_json(row, prompts[:6])
    assert cut.report.overall.mean == 1 and set(cut.report.counts.values()) == {1}
    assert cut.correct == [True] * 6 and cut.distance.mean == 0.25
    assert cut.frechet is None  # of twelve pictures: no figure for six


def test_variants_are_judged_on_the_same_noise(tiny, detector, monkeypatch):
    monkeypatch.setattr(study, "ENDPOINT_STEPS", 8)
    setting = prepare(tiny, load_prompts("dev", 6))
    reference = take_reference(tiny, setting, Variant("reference", 8, 2.0), detector)
    variants = [Variant("the same", 8, 2.0), Variant("fewer", 2, 2.0), Variant("unguided", 8)]
    same, fewer, unguided = evaluate_variants(
        tiny, variants, setting, detector, reference, endpoint_prompts=2
    )
    assert max(same.distances) == 0
    assert same.endpoint_distance == pytest.approx(0, abs=1e-4)  # batches of two and of six
    assert same.frechet == pytest.approx(0, abs=1e-6)
    assert min(fewer.distances) > 0.01 and fewer.frechet > same.frechet
    # each guidance scale has an endpoint of its own, which this one is
    assert min(unguided.distances) > 0.001
    assert unguided.endpoint_distance == pytest.approx(0, abs=1e-4)
    assert [len(row.correct) for row in (same, fewer, unguided)] == [6, 6, 6]


def test_the_judge_tells_pictures_from_blurs(pipe, detector):
    """One prompt a task: eight guided steps come close to sixteen, a single one draws nothing."""
    setting = prepare(pipe, load_prompts("dev", 6))
    reference = take_reference(pipe, setting, Variant("reference", 16, 4.0), detector)
    many, few = evaluate_variants(
        pipe, [Variant("many", 8, 4.0), Variant("few", 1)], setting, detector, reference
    )
    assert many.distance.mean < 0.7 * few.distance.mean
    assert sum(many.correct) >= 4 > sum(few.correct)


@pytest.fixture(scope="module")
def record():
    return json.loads((RESULTS / "teacher.json").read_text(encoding="utf-8"))


def test_the_shipped_record_agrees_with_itself(record):
    """Its figures follow from the answers prompt by prompt."""
    prompts = load_prompts("test")
    assert record["num_prompts"] == len(prompts) == 1200
    rows = [record["teacher"], record["stock_default"], record["undistilled"][9]]
    for row in rows:
        read, told = Result.from_json(row, prompts), EmojiEvalReport.from_dict(row["emoji_eval"])
        assert read.report.counts == told.counts == dict.fromkeys(TASKS, 200)
        for task in TASKS:
            assert vars(read.report.tasks[task]) == pytest.approx(vars(told.tasks[task]))
        assert vars(read.report.held_out) == pytest.approx(vars(told.held_out))
        # a bootstrap's ends depend on the random numbers, so they may move a little
        assert vars(read.report.overall) == pytest.approx(vars(told.overall), abs=2e-3)
        assert read.report.overall.mean == pytest.approx(told.overall.mean)
        assert read.distance.mean == pytest.approx(row["distance"]["mean"], abs=1e-4)
        assert read.variant.nfe == row["nfe"]


def test_known_rows_are_all_undistilled_variants(record):
    prompts = load_prompts("test", 60)
    rows = known_undistilled(prompts)
    assert [row.variant for row in rows] == undistilled_variants()
    for row, shipped in zip(rows, record["undistilled"], strict=True):
        assert "".join("01"[right] for right in row.correct) == shipped["correct"][:60]
        assert row.distances == shipped["distances"][:60]


def test_the_records_defaults_are_in_use(pipe, record):
    from flowsteer.loading import pipeline_info

    assert pipeline_info(pipe).guidance_scale == record["guidance_scale"]
    chosen = best_scale(record["dev_guidance"], len(load_prompts("dev")))
    assert chosen == record["guidance_scale"]


def test_the_lowest_scale_that_prompts_cannot_tell_from_the_best_is_taken():
    curve = [
        {"guidance_scale": scale, "overall": overall}
        for scale, overall in ((2.0, 0.8), (3.0, 0.89), (4.0, 0.9), (5.0, 0.85))
    ]
    assert best_scale(curve, 600) == 3.0  # a standard error is .012
    assert best_scale(curve, 60_000) == 4.0


def test_rows_are_compared_with_the_best_and_the_nearest():
    prompts = load_prompts("test", 60)
    teacher = result(prompts, [True] * 60, [0.0] * 60)
    student = result(prompts, [True] * 54 + [False] * 6, [0.3] * 60)
    obedient = result(prompts, [True] * 30 + [False] * 30, [0.9] * 60, "obedient")
    near = result(prompts, [True] * 6 + [False] * 54, [0.6] * 60, "near")
    against = compare_rows(student, teacher, [near, obedient])
    assert against["share_of_teacher"] == pytest.approx(0.9)
    assert (against["best_undistilled"], against["nearest_undistilled"]) == ("obedient", "near")
    assert against["distance_ratio"] == pytest.approx(0.5)
    gain = against["gain_over_best"]
    assert gain["mean"] == pytest.approx(0.4) and 0 < gain["low"] < 0.4 < gain["high"] < 1
    assert against["least_gain"] == gain


def test_a_teacher_is_no_student(tiny, detector):
    with pytest.raises(ValueError, match="is no student"):
        report_student(tiny, tiny, detector, load_prompts("dev", 6))


def test_a_student_is_no_teacher(tiny, detector, lora_student):
    prompts = load_prompts("dev", 6)
    with pytest.raises(ValueError, match="not a teacher; give its teacher's"):
        report_teacher(with_student(tiny, lora_student), detector, prompts, prompts)


def student_on(tiny, lora_student, folder, edges):
    """The same weights, said to be taught on other windows."""
    shutil.copytree(lora_student, folder)
    replace(StudentInfo.load(folder), edges=edges).save(folder)
    return with_student(tiny, folder)


def test_a_student_is_not_measured_on_a_grid_that_crosses_its_edges(
    tiny, detector, lora_student, tmp_path
):
    student = student_on(tiny, lora_student, tmp_path / "odd", (1, 0.8, 0.6, 0.3, 0))
    with pytest.raises(ValueError, match="misses .0.8, 0.6, 0.3."):
        report_student(tiny, student, detector, load_prompts("dev", 6))


def test_known_rows_of_another_length_are_no_rivals(tiny, detector, lora_student, tmp_path):
    prompts = load_prompts("test", 6)
    student = student_on(tiny, lora_student, tmp_path / "two", (1, 0.75, 0))
    record = report_student(tiny, student, detector, prompts, known_undistilled(prompts))
    rows = [*record["undistilled"], record["student"]]
    assert {row["num_inference_steps"] for row in rows} == {2}
