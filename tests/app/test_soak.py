"""Many clients at once on the real app: every request is answered or refused, memory stays flat.

It is left out of plain `pytest`; alone it prints what it measured:
`pytest -s -m soak tests/app/test_soak.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CLIENTS, EACH = 20, 10
SMALL = [{"network": "teacher", "steps": 2}, {"network": "lora"}]


@pytest.fixture
def app(start_app, tiny_folder, lora_student, tmp_path):
    """The app on the tiny model: process, address, and the folder of its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    options = ["--model", str(tiny_folder), "--student", str(lora_student)]
    process, address = start_app(options, {"TMPDIR": str(folder)})
    return process, address, folder


def resident(process: subprocess.Popen) -> float:
    """Megabytes of a process that are in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_200_requests_of_20_clients_then_an_interrupt(app):
    from gradio_client import Client

    process, address, folder = app
    lock, done, memory = threading.Lock(), 0, {}
    outcomes: list[str] = []

    def ask(client, number):
        nonlocal done
        prompt = "" if number % 25 == 24 else f"a fox {number}"
        try:
            cards = client.predict(prompt, number, 1, SMALL, api_name="/compare")["cards"]
            outcome = "answered" if len(cards) == 2 else "incomplete"
        except Exception as error:
            outcome = str(error)
        with lock:
            done += 1
            outcomes.append(outcome)
            if done in (50, 100, 150, 200):
                memory[done] = resident(process)

    clients = [Client(address, verbose=False) for _ in range(CLIENTS)]

    def visit(index):
        for turn in range(EACH):
            ask(clients[index], index * EACH + turn)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(visit, range(CLIENTS)))
    assert len(outcomes) == CLIENTS * EACH
    refused = [o for o in outcomes if o != "answered"]
    assert len(refused) == 8 and all("is empty" in o for o in refused)
    print("\nresident memory, MB:", {n: round(mb, 1) for n, mb in memory.items()})
    assert memory[200] <= 1.05 * memory[50]

    # all at once: the line is bounded, and what does not fit is refused with the reason
    outcomes.clear()
    jobs = [client.submit("a fox", i, 1, SMALL, api_name="/compare") for i in range(4)
            for client in clients]  # fmt: skip
    for job in jobs:
        try:
            outcomes.append("answered" if len(job.result(timeout=300)["cards"]) == 2 else "?")
        except Exception as error:
            outcomes.append(str(error))
    full = [o for o in outcomes if "the line is full" in o and "try again" in o]
    print("at once:", len(full), "refused of", len(outcomes))
    assert len(full) + outcomes.count("answered") == len(outcomes) == 80
    assert outcomes.count("answered") >= 32

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0 and "Traceback" not in output, output
    assert list(folder.rglob("*")) == []


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_work_leaves_nothing(app):
    from gradio_client import Client

    process, address, folder = app
    job = Client(address, verbose=False).submit("a fox", 0, 8, api_name="/compare")
    next(iter(job))
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, output
    assert list(folder.rglob("*")) == []
