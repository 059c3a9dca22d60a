"""The endpoint for programs, over HTTP, on a tiny model."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from flowsteer.app.comparator import Comparator

FAULTS = [
    ({"prompt": ""}, "prompt = '' is empty"),
    ({"prompt": "x" * 5000}, "prompt has 5,000 characters, the limit is 1,000"),
    ({"prompt": None}, "prompt = None must be text"),
    ({"prompt": ["a", "b"]}, "must be text"),
    ({"prompt": "a fox", "seed": -1}, "seed = -1 must be a whole number"),
    ({"prompt": "a fox", "seed": 2**70}, "must be a whole number"),
    ({"prompt": "a fox", "seed": 3.5}, "seed = 3.5 must be a whole number"),
    ({"prompt": "a fox", "seed": None}, "seed = None must be a whole number"),
]


@pytest.fixture(scope="module")
def client(tiny_folder, lora_student):
    import gradio as gr
    from gradio_client import Client

    from flowsteer.app.launch import build_page, launch

    comparator = Comparator(str(tiny_folder), str(lora_student), "cpu")
    page = build_page(comparator)
    yield Client(launch(page), verbose=False)
    page.close(verbose=False)
    comparator.close()
    gr.close_all(verbose=False)


def test_compare_is_the_one_public_endpoint_and_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/compare"]
    assert endpoints["/compare"]["description"].startswith("Draw one prompt with teacher")


def test_compare_streams_a_growing_result(client):
    results = list(client.submit("a koala", 3, api_name="/compare"))
    assert [len(result["cards"]) for result in results] == [1, 2, 3, 4, 5]
    last = results[-1]
    assert (last["prompt"], last["seed"]) == ("a koala", 3)
    assert [card["nfe"] for card in last["cards"]] == [56, 8, 8, 4, 4]
    assert last["cards"][0]["distance"] is None
    assert all(card["distance"] >= 0 for card in last["cards"][1:])
    for card in last["cards"]:
        assert len(card["sigmas"]) == card["num_inference_steps"] + 1
        data = base64.b64decode(card["image"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).format == "PNG"


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_bad_arguments_are_refused_in_one_line(client, arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        client.predict(**arguments, api_name="/compare")
    assert "\n" not in str(caught.value)


def test_a_refused_request_leaves_the_next_one_working(client):
    with pytest.raises(Exception, match="is empty"):
        client.predict(prompt=" ", api_name="/compare")
    assert len(client.predict(prompt="a fox", api_name="/compare")["cards"]) == 5
