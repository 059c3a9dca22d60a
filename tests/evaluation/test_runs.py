import json

import pytest

from flowsteer.evaluation.runs import load_run


def test_a_log_may_have_more_of_everything(tmp_path):
    record = {
        "device": "a GPU",
        "columns": ["step", "loss", "distance"],
        "rows": [[5, 0.5, None], [10, 0.25, 0.1]],
        "seconds": 7,
    }
    (tmp_path / "me_training.json").write_text(json.dumps(record))
    run = load_run("me", tmp_path)
    assert run.device == "a GPU" and run.rest == {"seconds": 7}
    assert run.rows == [{"step": 5, "loss": 0.5}, {"step": 10, "loss": 0.25, "distance": 0.1}]


def test_without_a_log_there_is_none_and_a_broken_one_is_refused(tmp_path):
    assert load_run("me", tmp_path) is None
    (tmp_path / "me_training.json").write_text("{}")
    with pytest.raises(ValueError, match="no rows with a step"):
        load_run("me", tmp_path)


def test_the_shipped_log_reads():
    run = load_run()
    assert run is None or run.rows[-1]["step"] > run.rows[0]["step"]
