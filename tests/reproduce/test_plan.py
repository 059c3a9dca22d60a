"""The plan: which cells a preset has, and with which flags."""

import json
from dataclasses import replace

import pytest

from flowsteer.reproduce.cells import ablation_name, plan
from flowsteer.reproduce.jobs import config_of
from flowsteer.reproduce.presets import PRESETS, ROWS, TABLES, find_preset
from flowsteer.reproduce.teaching import Training

FULL = find_preset("full")


def flags(cells, name):
    (cell,) = [cell for cell in cells if cell.name == name]
    return cell.job.flags


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_names_are_files_names_and_configs_are_json(preset):
    cells = plan(preset)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.table in TABLES and set(cell.name) <= set(
            "abcdefghijklmnopqrstuvwxyz_0123456789.-"
        )
        config = config_of(cell.job)
        assert json.loads(json.dumps(config))["kind"] == cell.job.kind


def test_the_papers_rows_are_single_additions():
    cells = plan(FULL, ["3"], [0])
    base = flags(cells, ablation_name("perflow", 0))
    changes = {}
    for row in ROWS:
        own = flags(cells, ablation_name(row, 0))
        keys = base.keys() | own.keys()
        changes[row] = {key for key in keys if base.get(key) != own.get(key)}
    assert changes["perflow-ota"] == {"method"}
    assert changes["perflow-adversarial"] == {"adversarial"}
    assert changes["perflow-scheduler"] == {"grid"}
    assert changes["all"] == changes["ota-scheduler"] == {"method", "grid"}
    assert base["grid"] == "stock" and base["method"] == "perflow"


def test_all_rows_train_on_as_many_student_samples_with_as_many_teacher_steps():
    """But ReFlow, whose one window gets the teacher steps of four."""
    runs = [cell.job for cell in plan(FULL, ["3"], [0])]
    assert len(runs) == len(ROWS)
    work = set()
    for job in runs:
        config = job.distillation("run")
        work.add(
            (config.max_train_steps, config.train_batch_size, config.windows * config.substeps)
        )
        assert config.windows == (1 if config.method == "reflow" else 4)
    assert len(work) == 1


def test_students_without_the_scheduler_run_on_the_edges_they_are_taught_on():
    for cell in plan(FULL, ["3", "tuning"]):
        config = cell.job.distillation("run")
        for steps, scheduler in cell.job.sampling:
            assert scheduler == config.grid
            assert config.edges(3.0).contained_in(
                {"stock": [1, 0.8577, 0.6022, 0.0089, 0], "rectified": [1, 0.9, 0.75, 0.5, 0]}[
                    scheduler
                ]
                if steps == 4
                else [1, 0]
            )


def test_every_row_is_tuned_on_the_same_rates():
    cells = plan(FULL, ["tuning"])
    tried = {}
    for cell in cells:
        assert cell.job.split == "dev" and cell.seed == 0
        tried.setdefault(cell.row, []).append(cell.job.flags["learning_rate"])
    assert set(tried) == set(ROWS)
    assert {tuple(rates) for rates in tried.values()} == {FULL.learning_rates}
    assert {cell.job.flags["max_train_steps"] for cell in cells} == {FULL.tuning_steps}


def test_chosen_rates_go_into_the_rows_runs_and_into_the_variants_of_it():
    cells = plan(FULL, rates={"all": 0.5, "ota-scheduler": 0.25})
    for cell in cells:
        if isinstance(cell.job, Training) and cell.table != "tuning":
            expected = {"all": 0.5, "ota-scheduler": 0.25}.get(
                cell.row, FULL.flags["learning_rate"]
            )
            assert cell.job.flags["learning_rate"] == expected


def test_variants_beyond_the_paper_leave_out_what_the_ablation_has():
    cells = plan(FULL, ["4"])
    names = {cell.name for cell in cells}
    assert names == {
        *(f"4-share_at_hi-{share}" for share in (0.0, 1.0)),  # 0.8 is the preset's
        *(f"4-share_on_policy-{share}" for share in (0.5, 1.0)),
        *("4-critic_states-rollout", "4-critic_logits-pooled"),
    }
    for cell in cells:
        base = flags(plan(FULL, ["3"]), ablation_name(cell.row, 0))
        changed = {key for key, value in cell.job.flags.items() if base.get(key) != value}
        assert len(changed) == 1


def test_seeds_and_tables_can_be_chosen():
    cells = plan(FULL, ["3"], [5, 7])
    assert {cell.seed for cell in cells} == {5, 7}
    assert {cell.job.flags["seed"] for cell in cells} == {5, 7}
    assert {cell.table for cell in plan(FULL, ["0", "2"])} == {"0", "2"}
    # what samples a student names the same one on every machine
    assert [c for c in plan(FULL, ["2"], [7])] == [c for c in plan(FULL, ["2"])]


def test_what_samples_a_student_comes_after_its_training():
    names = [cell.name for cell in plan(FULL)]
    for cell in plan(FULL):
        if cell.needs:
            assert names.index(cell.needs) < names.index(cell.name)
    first_run = min(i for i, name in enumerate(names) if name.startswith("3-"))
    assert all(i < first_run for i, name in enumerate(names) if name.startswith("tuning"))


def test_a_run_is_checked_when_it_is_planned():
    wrong = replace(FULL, flags=dict(FULL.flags) | {"substeps": 0})
    with pytest.raises(ValueError, match="substeps = 0"):
        plan(wrong, ["3"])


def test_unknown_tables_and_presets_are_refused():
    with pytest.raises(ValueError, match="table '9' is unknown"):
        plan(FULL, ["9"])
    with pytest.raises(ValueError, match="preset = 'half' is unknown; use one of full, smoke"):
        find_preset("half")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_prompts": 100}, "num_prompts = 100 must be a multiple of the 6"),
        ({"dev_prompts": 0}, "dev_prompts = 0"),
        ({"sheet": 4}, "sheet = 4"),
        ({"checkpoints": 7}, "7 checkpoints"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(FULL, **changes)
