"""The endpoints for programs, over HTTP, on a tiny model."""

from __future__ import annotations

import base64
import io
import math

import pytest
from PIL import Image

from flowsteer.app.studio import Studio
from flowsteer.flow.grids import rectified_grid, stock_grid

FAULTS = [
    ({"prompt": ""}, "prompt = '' is empty"),
    ({"prompt": "x" * 5000}, "prompt has 5,000 characters, the limit is 1,000"),
    ({"prompt": None}, "prompt = None must be text"),
    ({"prompt": ["a", "b"]}, "must be text"),
    ({"prompt": {"a": 1}}, "must be text"),
    ({"prompt": "a fox", "seed": -1}, "seed = -1 must be a whole number"),
    ({"prompt": "a fox", "seed": 2**70}, "must be a whole number"),
    ({"prompt": "a fox", "seed": 3.5}, "seed = 3.5 must be a whole number"),
    ({"prompt": "a fox", "seed": None}, "seed = None must be a whole number"),
    ({"prompt": "a fox", "noises": 9}, "noises = 9 must be a whole number from 1 to 8"),
    ({"prompt": "a fox", "noises": [1]}, "noises = "),
    ({"prompt": "a fox", "columns": "teacher"}, "must be a list"),
    ({"prompt": "a fox", "columns": []}, "columns has 0 entries"),
    ({"prompt": "a fox", "columns": [{"network": "teacher"}] * 7}, "columns has 7 entries"),
    ({"prompt": "a fox", "columns": [{"network": "/etc"}]}, "network = '/etc' is unknown"),
    ({"prompt": "a fox", "columns": [{"network": "a/b"}]}, "network = 'a/b' is unknown"),
    ({"prompt": "a fox", "columns": [{"network": "teacher", "steps": 1000}]}, "steps = 1000"),
    ({"prompt": "a fox", "columns": [{"network": "teacher", "guidance": 0}]}, "guidance_scale = 0"),
    ({"prompt": "a fox", "columns": [{"network": "lora", "steps": 3}]}, "edge"),
]


@pytest.fixture(scope="module")
def client(tiny_folder, lora_student):
    import gradio as gr
    from gradio_client import Client

    from flowsteer.app.launch import build_page, launch

    studio = Studio(str(tiny_folder), [str(lora_student)], "cpu")
    page = build_page(studio)
    yield Client(launch(page), verbose=False)
    page.close(verbose=False)
    studio.close()
    gr.close_all(verbose=False)


def picture(text):
    data = base64.b64decode(text.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def test_three_endpoints_are_public_and_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert sorted(endpoints) == ["/compare", "/schedule", "/trajectory"]
    for name, start in (
        ("/compare", "Draw one prompt with teacher"),
        ("/trajectory", "Follow teacher and students"),
        ("/schedule", "Compare the stock time grid"),
    ):
        assert endpoints[name]["description"].startswith(start)
        assert all(p["label"] for p in endpoints[name]["parameters"])


def test_compare_streams_a_growing_result(client):
    results = list(client.submit("a koala", 3, api_name="/compare"))
    counts = [len(result["cards"]) for result in results if result["cards"]]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 5
    last = results[-1]
    assert (last["prompt"], last["seed"], last["seeds"]) == ("a koala", 3, [3])
    assert [card["nfe"] for card in last["cards"]] == [56, 8, 8, 4, 4]
    assert last["cards"][0]["distance"] == 0
    assert all(card["distance"] > 0 for card in last["cards"][1:])
    assert all(card["verdict"] is None for card in last["cards"])
    for card in last["cards"]:
        assert len(card["sigmas"]) == card["num_inference_steps"] + 1
        assert picture(card["image"]).size == (128, 128)


def test_columns_and_noises_of_ones_own(client):
    columns = [{"network": "lora", "steps": 8}, {"network": "teacher", "steps": 2, "guidance": 3}]
    last = client.predict("a fox", 7, 3, columns, api_name="/compare")
    assert [(card["nfe"], card["seed"]) for card in last["cards"]] == [
        (8, 7), (8, 8), (8, 9), (4, 7), (4, 8), (4, 9)
    ]  # fmt: skip
    assert all(card["distance"] > 0 for card in last["cards"])


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_bad_arguments_are_refused_in_one_line(client, arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        client.predict(**arguments, api_name="/compare")
    assert "\n" not in str(caught.value)


def test_a_refused_request_leaves_the_next_one_working(client):
    with pytest.raises(Exception, match="is empty"):
        client.predict(prompt=" ", api_name="/compare")
    assert len(client.predict(prompt="a fox", api_name="/compare")["cards"]) == 5


def test_nothing_is_uploaded_and_no_file_is_served(client):
    import httpx

    for body in (b"x", b"x" * 100_000):
        sent = httpx.post(f"{client.src}gradio_api/upload", files={"files": ("a.png", body)})
        assert sent.status_code == 413
    for path in ("app.py", "/etc/passwd", "../app.py", "README.md"):
        answer = httpx.get(f"{client.src}gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_what_a_visitor_typed_stays_on_one_line_of_the_log(caplog):
    from flowsteer.app.screens.base import shown_error

    told = shown_error(RuntimeError("bad\nWARNING: forged line"))
    assert "forged" not in str(told)
    assert "bad\\nWARNING: forged line" in caplog.text
    assert not any(line.startswith("WARNING: forged") for line in caplog.text.splitlines())


def test_trajectory_gives_paths_from_one_noise(client):
    result = client.predict("a fox", 2, ["lora", "teacher"], api_name="/trajectory")
    teacher, student, few = result["paths"]
    assert len(teacher["times"]) == 29 and len(teacher["x0_hats"]) == 28
    assert student["window_edges"] == [1, 0.9, 0.75, 0.5, 0]
    assert student["times"] == pytest.approx(student["window_edges"])
    assert set(teacher["distances"]) == {0.0}
    for path in (student, few):
        assert path["points"][0] == teacher["points"][0]
        assert path["distances"][0] == 0 and path["distances"][-1] > 0
        assert len(path["points"]) == len(path["distances"]) == len(path["times"])
    assert picture(few["x0_hats"][-1]).size == (128, 128)
    assert 0 < sum(result["explained"]) <= 1 + 1e-9
    with pytest.raises(Exception, match="network"):
        client.predict("a fox", 2, ["nobody"], api_name="/trajectory")


def test_schedule_gives_grids_and_pictures_if_asked(client):
    result = client.predict(3.0, 4, api_name="/schedule")
    for name, make in (("stock", stock_grid), ("rectified", rectified_grid)):
        assert result[name]["sigmas"] == pytest.approx(make(4, 3.0).tolist())
        assert sum(result[name]["step_sizes"]) == pytest.approx(1)
        assert "image" not in result[name]
    assert result["stock"]["last_step"] < 0.01 and result["rectified"]["last_step"] == 0.5
    drawn = client.predict(5.0, 2, "a fox", 1, api_name="/schedule")
    assert drawn["stock"]["distance"] != drawn["rectified"]["distance"]
    assert picture(drawn["rectified"]["image"]).size == (128, 128)
    for shift, steps in ((0, 4), (math.inf, 4), (3, 0), ("x", 4), (None, 4), (3, [4])):
        with pytest.raises(Exception, match="(shift|steps) = |JSON"):
            client.predict(shift, steps, api_name="/schedule")
