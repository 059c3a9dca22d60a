"""The whole reproduction, small: what it writes, and that different cells agree where they must."""

import json
import shutil

import pytest
import torch
from PIL import Image

from flowsteer.emoji.prompts import load_prompts
from flowsteer.flow import rectified_grid, stock_grid
from flowsteer.reproduce.cells import plan
from flowsteer.reproduce.mismatch import edge_grids, passage
from flowsteer.reproduce.presets import ROWS, find_preset
from flowsteer.reproduce.report import write_report
from flowsteer.reproduce.run import chosen_rates
from flowsteer.reproduce.store import Store
from flowsteer.students import StudentInfo

PRESET = find_preset("smoke")


def results(store, name):
    return store.read(name)["results"]


def last_answer(store, name, way=0):
    return results(store, name)["checkpoints"][-1]["ways"][way]


def test_every_cell_is_done_and_says_how(smoke):
    store, printed = smoke
    cells = plan(PRESET, rates=chosen_rates(store, PRESET))
    assert set(store.read_all()) == {cell.name for cell in cells}
    assert [line.split(":")[0] for line in printed[:-1]] == [cell.name for cell in cells]
    assert printed[-1] == str(store.folder / "report.md")
    for cell in cells:
        record = store.read(cell.name)
        assert record["seed"] == cell.seed and record["table"] == cell.table
        assert record["config"]["kind"] == cell.job.kind
        assert record["made_on"]["device"] and record["wall_seconds"] > 0
        if cell.row:
            assert record["config"]["flags"]["seed"] == cell.seed
            assert record["results"]["samples_per_second"] > 0
            assert record["results"]["peak_memory"] > 10**6


def test_the_report_has_all_sections_and_its_pictures(smoke):
    store, _ = smoke
    text = (store.folder / "report.md").read_text(encoding="utf-8")
    titles = ["In short", "What is done", "Learning rates", "Pictures"]
    for title in [
        *titles,
        "0. What",
        "1. Mismatch",
        "2. Stock",
        "3. Ablation",
        "4. Beyond",
        "5. Solvers",
    ]:
        assert f"\n## {title}" in text
    assert "random weights" in text
    linked = {part.split(")")[0] for part in text.split("](")[1:]}
    assert len(linked) == 7
    for link in linked:
        assert (store.folder / link).stat().st_size > 1000
    missing = [line for line in text.splitlines() if line.startswith("| 3. ablation")]
    assert missing == ["| 3. ablation | 14 | none |"]


def test_the_sheet_shows_teacher_and_students(smoke):
    store, _ = smoke
    with Image.open(store.folder / "plots" / "pictures.png") as sheet:
        assert sheet.height == 128 * (1 + len(ROWS))
        strip = sheet.crop((sheet.width - 6 * 128, 0, sheet.width, 128))
    with Image.open(store.picture("0-variants")) as teacher:
        assert teacher.size == (6 * 128, 128)
        assert strip.tobytes() == teacher.convert("RGB").tobytes()


def test_a_report_without_the_strips_keeps_its_sheet(smoke, tmp_path):
    store, _ = smoke
    kept = Store(shutil.copytree(store.folder, tmp_path / "kept"))
    sheet = kept.folder / "plots" / "pictures.png"
    before = sheet.read_bytes()
    for strip in kept.cells.glob("*.png"):
        strip.unlink()
    report = write_report(kept, plan(PRESET), {})
    assert "![pictures](plots/pictures.png)" in report.read_text(encoding="utf-8")
    assert sheet.read_bytes() == before


def test_a_second_call_does_nothing(smoke, reproduction):
    store, _ = smoke
    again = reproduction()
    shutil.copytree(store.folder, again.store.folder, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in again.store.cells.iterdir()}
    assert {progress.state for progress in again.run()} == {"done before"}
    assert {path: path.stat().st_mtime_ns for path in again.store.cells.iterdir()} == before


def test_students_are_taught_on_their_rows_grid(smoke):
    store, _ = smoke
    grids = {"stock": stock_grid(4, 3.0), "rectified": rectified_grid(4, 3.0)}
    for name, row in ROWS.items():
        info = StudentInfo.load(store.students / f"3-{name}-seed1")
        if name == "reflow":
            assert info.edges == (1, 0)
        else:
            assert info.edges == pytest.approx(grids[row.grid].tolist())
        assert info.steps == 2 and info.method == row.flags["method"]
        assert not store.run(f"3-{name}-seed1").exists()  # its checkpoints are gone
    assert not (store.students / "tuning-all-lr0.001").exists()


def test_the_later_half_of_the_checkpoints_is_judged(smoke):
    store, _ = smoke
    rows = results(store, "3-all-seed0")["checkpoints"]
    assert [row["step"] for row in rows] == [1, 2]
    first, last = (row["ways"][0] for row in rows)
    assert first["distances"] != last["distances"]
    assert rows[0]["seconds"] == pytest.approx(rows[1]["seconds"] / 2)
    assert results(store, "3-all-seed0")["seconds"] == pytest.approx(rows[1]["seconds"])


def test_runs_of_two_seeds_and_of_two_rows_differ(smoke):
    store, _ = smoke
    names = [f"3-{row}-seed{seed}" for row in ROWS for seed in (0, 1)]
    losses = {tuple(results(store, name)["curve"]["loss"]) for name in names}
    assert len(losses) == len(names)
    for row in ROWS:
        one, two = (last_answer(store, f"3-{row}-seed{seed}") for seed in (0, 1))
        assert one["distances"] != two["distances"]


def test_only_a_critic_has_a_judgement(smoke):
    store, _ = smoke
    curves = {row: results(store, f"3-{row}-seed0")["curve"] for row in ROWS}
    with_critic = {row for row, curve in curves.items() if "critic_accuracy" in curve}
    assert with_critic == {"perflow-adversarial", "all"}
    assert curves["all"]["step"] == [1, 2]


@pytest.mark.parametrize("name", ["perflow", "all"])
def test_the_saved_student_is_the_last_checkpoint(smoke, name):
    """The scheduler's table samples the LoRA that was saved in bf16, the ablation the averages."""
    store, _ = smoke
    grid = ROWS[name].grid
    rows = results(store, f"2-scheduler-{name}")["rows"]
    (saved,) = [r for r in rows if r["scheduler"] == grid and r["num_inference_steps"] == 4]
    judged = last_answer(store, f"3-{name}-seed0")
    assert saved["distances"] == pytest.approx(judged["distances"], abs=2e-3)


def test_grids_that_lack_a_students_edges_are_marked(smoke):
    store, _ = smoke
    fits = {
        name: {
            (row["scheduler"], row["num_inference_steps"])
            for row in results(store, f"2-scheduler-{name}")["rows"]
            if row["fits"]
        }
        for name in ("teacher", "perflow", "all")
    }
    assert len(fits["teacher"]) == 6
    assert fits["perflow"] == {("stock", 4)}
    assert fits["all"] == {("rectified", 4), ("rectified", 8)}


def test_tables_0_and_2_agree_on_what_both_sample(smoke):
    """The tiny teacher's own guidance is 7, which is one of the undistilled variants."""
    store, _ = smoke
    for grid in ("stock", "rectified"):
        (variant,) = [
            row
            for row in results(store, "0-variants")["rows"]
            if (row["scheduler"], row["guidance_scale"]) == (grid, 7.0)
        ]
        (swept,) = [
            row
            for row in results(store, "2-scheduler-teacher")["rows"]
            if (row["scheduler"], row["num_inference_steps"]) == (grid, 4)
        ]
        assert variant["distances"] == swept["distances"]


def test_the_teachers_own_path_is_the_reference(smoke, bench):
    """Window by window it arrives where 28 steps at once do, so table 1's authentic row is it."""
    ground = bench.test
    pieces = edge_grids(4, 3.0)
    joined = torch.cat([pieces[0], *(piece[1:] for piece in pieces[1:])])
    torch.testing.assert_close(joined, rectified_grid(28, 3.0), rtol=0, atol=0)
    assert [float(piece[0]) for piece in pieces] == pytest.approx([1, 0.9, 0.75, 0.5])
    scale = bench.teacher.guidance_scale
    states = passage(bench.pipe, ground.setting, ground.setting.noise, pieces, scale)
    assert len(states) == 5
    torch.testing.assert_close(states[-1], ground.reference.latents, rtol=1e-5, atol=1e-5)
    store, _ = smoke
    teacher = results(store, "0-variants")["teacher"]["correct"]
    assert results(store, "1-mismatch")["authentic"]["correct"] == teacher


def test_interpolated_starts_are_another_distribution_the_more_the_less_noise_is_left(smoke):
    """Random weights draw nothing like a true picture, so the states must come apart."""
    store, _ = smoke
    rows = results(store, "1-mismatch")["rows"]
    assert [row["window"] for row in rows] == [1, 2, 3]
    excess = [
        row["latent_distance"]["interpolated"] / row["latent_distance"]["authentic"] for row in rows
    ]
    assert 1 < excess[0] < excess[1] < excess[2]
    ends = {row["interpolated"]["frechet_true"] for row in rows}
    assert len(ends) == 3


def test_edges_that_are_no_teacher_steps_are_refused():
    with pytest.raises(ValueError, match="num_windows = 3 does not divide"):
        edge_grids(3, 3.0)


def test_choices_are_made_on_dev_prompts_and_figures_are_of_test_prompts(smoke):
    store, _ = smoke
    assert not {p.text for p in load_prompts("dev")} & {p.text for p in load_prompts("test")}
    for name, record in store.read_all().items():
        if "split" in record["config"]:
            assert record["config"]["split"] == ("dev" if name.startswith("tuning") else "test")


def test_the_chosen_rates_are_the_ones_that_were_used(smoke):
    store, _ = smoke
    rates = chosen_rates(store, PRESET)
    assert set(rates) == set(ROWS)
    for row, rate in rates.items():
        for seed in PRESET.seeds:
            config = store.read(f"3-{row}-seed{seed}")["config"]
            assert config["flags"]["learning_rate"] == rate


def test_a_cell_made_again_elsewhere_is_the_same(smoke, reproduction):
    """So that merging is copying: only the tuning cells, which decide the rate, come along."""
    store, _ = smoke
    name = "3-perflow-adversarial-seed1"
    elsewhere = reproduction(name)
    elsewhere.store.cells.mkdir()
    for path in store.cells.glob("tuning-*.json"):
        shutil.copy(path, elsewhere.store.cells)
    (progress,) = elsewhere.run()
    assert progress.state == "done"
    here, there = store.read(name), elsewhere.store.read(name)
    assert here["config"] == there["config"]
    for one, two in zip(
        here["results"]["checkpoints"], there["results"]["checkpoints"], strict=True
    ):
        assert one["ways"] == two["ways"]
    assert here["results"]["curve"]["loss"] == there["results"]["curve"]["loss"]
    with Image.open(store.picture(name)) as a, Image.open(elsewhere.store.picture(name)) as b:
        assert a.tobytes() == b.tobytes()


def test_more_teacher_calls_err_less_with_every_solver(smoke):
    store, _ = smoke
    rows = results(store, "5-solvers")["rows"]
    assert len(rows) == 8
    for solver in ("euler", "heun", "multistep"):
        errors = [row["endpoint"]["mean"] for row in rows if row["solver"] == solver]
        assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]
    text = (store.folder / "report.md").read_text(encoding="utf-8")
    assert "Teacher calls for an endpoint error of " in text


def test_cells_hold_plain_json(smoke):
    store, _ = smoke
    for name in store.read_all():
        text = (store.cells / f"{name}.json").read_text(encoding="utf-8")
        json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are none
