"""What the server turns away before Gradio sees it, and what it keeps of a visit."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from coroutines import run_async

from flowsteer.app.sessions import Sessions
from flowsteer.app.studio import Studio
from flowsteer.app.temporary import PREFIX, make_folder

SMALL = [{"network": "teacher", "steps": 1}]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def served(tiny_folder):
    """The page with its teacher alone, and an HTTP client of it."""
    import gradio as gr

    from flowsteer.app.launch import build_page, launch

    studio = Studio(str(tiny_folder), ["none"], "cpu")
    page = build_page(studio)
    http = httpx.Client(base_url=f"{launch(page)}gradio_api/", timeout=60)
    studio.pipelines()
    yield page, http
    http.close()
    page.close(verbose=False)
    studio.close()
    gr.close_all(verbose=False)


def number_of(page, name):
    return next(number for number, fn in page.fns.items() if fn.api_name == name)


def honest(http):
    """A right request, from the event's id to its pictures."""
    answer = http.post("call/compare", json={"data": ["a fox", 0, 1, SMALL, True]})
    assert answer.status_code == 200, answer.text
    last = http.get(f"call/compare/{answer.json()['event_id']}").text.strip().splitlines()[-1]
    assert len(json.loads(last.removeprefix("data: "))[0]["cards"]) == 1


CALL = {"data": ["a fox", 0, 1, SMALL, True], "session_hash": "abc"}
BODIES = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"[]", "must be a JSON object"),
    (b'"a"', "must be a JSON object"),
    (b"[" * 20_000, "lists in one another"),
    (b'{"data": ' + b"[" * 50 + b"]" * 50 + b"}", "lists in one another"),
    (b'{"data": [' + b"9" * 5000 + b"]}", "not JSON"),
    (b'{"data": ["\\ud800"]}', "not JSON"),
    (b'{"data": "' + b"x" * 70_000 + b'"}', "longer than 64 kB"),
    (CALL | {"data": None}, "data must be a list of 5 values"),
    (CALL | {"data": ["a fox"]}, "data must be a list of 5 values"),
    (CALL | {"data": ["a fox"] * 9}, "data must be a list of 5 values"),
    (CALL | {"data": [{"path": "/etc/passwd", "meta": {}}, 0, 1, None, True]}, "no files"),
    (CALL | {"data": ["a", 0, 1, [[{"path": "x", "meta": 1}]], True]}, "no files"),
    (CALL | {"batched": True}, "batched"),
    (CALL | {"trigger_id": "a"}, "trigger_id"),
    (CALL | {"fn_index": 10**6}, "no function"),
    (CALL | {"fn_index": "0"}, "no function"),
    (CALL | {"fn_index": True}, "no function"),
    (CALL | {"session_hash": ""}, "session_hash must be"),
    (CALL | {"session_hash": "a/../b"}, "session_hash must be"),
    (CALL | {"session_hash": "a" * 65}, "session_hash must be"),
    (CALL | {"session_hash": ["a"]}, "session_hash must be"),
    (CALL | {"session_hash": None}, "session_hash must be"),
    (CALL | {"event_id": {}}, "event_id must be"),
]


@pytest.mark.parametrize(("body", "reason"), BODIES)
def test_a_body_that_nobody_sends_is_one_line_here_and_in_the_log(served, caplog, body, reason):
    page, http = served
    if isinstance(body, dict):
        body = json.dumps({"fn_index": number_of(page, "compare")} | body).encode()
    with caplog.at_level(logging.WARNING):
        answer = http.post("queue/join", content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert reason in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    (told,) = [r.getMessage() for r in caplog.records if "/queue/join" in r.getMessage()]
    assert reason in told and "\n" not in told and len(told) < 400


@pytest.mark.parametrize(
    "path",
    [
        "deep_link?session_hash=abc", "file=/etc/passwd", "proxy=https://example.org", "vibe-code",
        "component_server", "monitoring/summary", "stream/a/b/1/playlist.m3u8", "dev/reload",
    ],
)  # fmt: skip
def test_routes_that_the_app_does_not_need_are_closed(served, path):
    assert served[1].get(path).status_code == 404
    assert served[1].post(path, content=b"{}", headers=JSON).status_code == 404


def test_a_queued_function_is_not_run_past_the_queue(served):
    answer = served[1].post("run/compare", json=CALL)
    assert answer.status_code == 404 and "queue" in answer.json()["detail"]


def test_what_fails_all_the_same_is_one_line(served, caplog, capfd):
    _, http = served
    with caplog.at_level(logging.WARNING):
        unknown = http.post("call/v2/compare", json={"prompt": "a fox", "nobody": 1})
        gone = http.get("queue/data", params={"session_hash": "nobody"})
    assert unknown.status_code == 500 and gone.status_code == 200
    assert "session_not_found" in gone.text
    assert len([r for r in caplog.records if " failed with " in r.getMessage()]) == 2
    assert "Traceback" not in "".join(capfd.readouterr())


def test_the_next_request_gets_an_event_whatever_came_before(served, capfd):
    """Events of a session named "" ended Gradio's queue for good: it looked for their messages
    under another name, in the loop that serves all."""
    page, http = served
    bad = CALL | {"fn_index": number_of(page, "compare"), "session_hash": ""}
    with ThreadPoolExecutor(10) as pool:  # several at once, or there is no queue of them
        sent = [bad, bad | {"session_hash": "left"}] * 10
        answers = list(pool.map(lambda body: http.post("queue/join", json=body), sent))
    assert [answer.status_code for answer in answers] == [400, 200] * 10
    http.post("cancel", json={"session_hash": "left", "fn_index": 0, "event_id": "nothing"})
    honest(http)
    assert not page._queue.stopped
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("value", [None, True, "4", -1, 3.5, 10**400, [], {"a": 1}, [[None]]])
def test_values_of_the_wrong_type_are_told_in_one_line_by_every_function(served, capfd, value):
    page, http = served
    for number, function in page.fns.items():
        if function.fn is None or not function.inputs:
            continue
        call = {"data": [value] * len(function.inputs), "fn_index": number, "session_hash": "w"}
        if not function.queue:
            answer = http.post("run/predict", content=json.dumps(call).encode(), headers=JSON)
            told = answer.json().get("error", "")
        else:
            sent = http.post("queue/join", content=json.dumps(call).encode(), headers=JSON)
            assert sent.status_code == 200, (number, function.name)
            lines = http.get("queue/data", params={"session_hash": "w"}).text.splitlines()
            ends = [json.loads(line[6:]) for line in lines if "process_completed" in line]
            told = ends[-1]["output"].get("error") or ""
        assert "\n" not in told and "Error)" not in told, (number, function.name, told)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_an_event_is_cancelled_by_its_own_session_and_function_alone(served):
    page, http = served
    number = number_of(page, "compare")
    long = CALL | {"data": ["a fox", 0, 8, None, True], "fn_index": number, "session_hash": "mine"}
    event = http.post("queue/join", json=long).json()["event_id"]
    mine = {"session_hash": "mine", "fn_index": number, "event_id": event}
    for wrong in ({"session_hash": "yours"}, {"fn_index": 0}, {"event_id": "other"}):
        assert http.post("cancel", json=mine | wrong).status_code == 404
    assert http.post("cancel", json=mine).json() == {"success": True}
    honest(http)


def test_sessions_that_nobody_listens_to_are_given_up_with_all_that_is_kept(served, tmp_path):
    page, http = served
    number = number_of(page, "compare")
    for name in ("one", "two"):
        http.post("queue/join", json=CALL | {"fn_index": number, "session_hash": name})
    long = CALL | {"data": ["a fox", 0, 8, None, True], "fn_index": number, "session_hash": "long"}
    http.post("queue/join", json=long)
    queue = page._queue
    assert {"one", "two", "long"} <= queue.pending_messages_per_session.keys()
    sessions = Sessions(page, tmp_path, patience=0.0)
    with sessions.listening("two"):
        run_async(sessions.sweep())
        time.sleep(0.01)
        run_async(sessions.sweep())
    assert "two" in queue.pending_messages_per_session
    gone = {"one", "long"}
    assert not gone & queue.pending_messages_per_session.keys()
    assert not gone & queue.pending_event_ids_session.keys()
    deadline = time.monotonic() + 60
    while queue.event_ids_to_events and time.monotonic() < deadline:  # after the step in work
        time.sleep(0.05)
    run_async(sessions.sweep())
    assert not queue.event_ids_to_events and not page.app.iterators
    assert not page.state_holder.session_data
    honest(http)


def test_a_session_has_time_to_listen_from_its_latest_request_on(served, tmp_path):
    page, http = served
    sessions = Sessions(page, tmp_path, patience=0.05)
    http.post("queue/join", json=CALL | {"fn_index": number_of(page, "compare")})
    run_async(sessions.sweep())
    time.sleep(0.1)
    sessions.seen("abc")
    run_async(sessions.sweep())
    assert "abc" in page._queue.pending_messages_per_session
    assert sessions.of_event("unknown") == "unknown"


def test_temporary_files_go_with_age_and_folders_with_the_next_server(tmp_path, monkeypatch):
    import os
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, running = make_folder(), make_folder()
    long_ago = time.time() - 2 * 24 * 3600
    for path in (killed / "old", running / "old", running / "new"):
        path.write_text("x", encoding="utf-8")
    for path in (killed / "old", running / "old", killed):
        os.utime(path, (long_ago, long_ago))
    other = tmp_path / "flowsteer-apparently"
    other.mkdir()
    os.utime(other, (long_ago, long_ago))
    Sessions(None, running)._remove_old_files()
    assert [path.name for path in running.iterdir()] == ["new"]
    fresh = make_folder()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {running.name, fresh.name, other.name}
    assert fresh.name.startswith(PREFIX)
