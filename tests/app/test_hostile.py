"""A hostile load: memory stays flat, threads and files few, the log short, the next one is served.

The long one is left out of plain `pytest`; alone it prints what it measured:
`pytest -s -m soak tests/app/test_hostile.py`. `FLOWSTEER_HOSTILE_CALLS` makes it longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowsteer.app.sessions import PATIENCE

CALLS = int(os.environ.get("FLOWSTEER_HOSTILE_CALLS", "3000"))
VISITORS = 6
MOST_THREADS = 110  # 48 of Gradio's, 40 of its web server's, and those of torch and the app
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
DEEP: list = []
for _ in range(12):
    DEEP = [DEEP]
RIGHT = {
    "prompt": "a fox",
    "seed": 3,
    "noises": 2,
    "columns": [{"network": "teacher", "steps": 2}, {"network": "lora"}],
    "networks": ["lora"],
    "shift": 3.0,
    "steps": 2,
    "images": True,
}
WRONG: list[Any] = [
    None, True, -1, 0, 3.5, 4.0, "4", "3.5", "four", "", " ", "x" * 5000, "\u202ea fox\x00", 2**70,
    10**400, -(10**400), 1e308, float("nan"), float("inf"), [], {}, [[1]], [None], {"a": {"b": []}},
    DEEP, FILE, [FILE], {"path": "https://example.org/x.png"}, "/etc/passwd", "../../app.py",
    "<script>alert(1)</script>", "a koala\nERROR:forged", ["teacher"] * 50, [{"network": "lora"}],
    [{"network": "teacher", "guidance": 10**400}], [{"network": "teacher", "steps": "4", "x": 1}],
    "?prompt=a+fox&seed=1&screen=results", "teacher-4-rectified-nan,lora-3-stock-1", "lora-4-a-b",
]  # fmt: skip
BODIES: list[bytes] = [
    b"", b"null", b"[]", b"{", b"\xff\xfe", b'"text"', b"[" * 50_000, b'{"data":' + b"[" * 3000,
    b'{"data": [' + b"9" * 5000 + b"]}", b'{"data": ["\\ud800"]}', b'{"data": "' + b"x" * 10**6,
    b"x" * 3_000_000,
]  # fmt: skip
SESSIONS = ["", " ", "a" * 500, "../..", "a<gradio-sep>b", 7, None, [], {"a": 1}, "é", "x\ny"]
PATHS = [
    "deep_link?session_hash=a", "file=/etc/passwd", "proxy=https://example.org", "vibe-code",
    "queue/data?session_hash=nobody", "queue/data", "call/compare/nothing", "monitoring/summary",
    "upload_progress?upload_id=1", "stream/a/b/1/playlist.m3u8", "heartbeat/%0a", "no/such/route",
]  # fmt: skip


class Visitor:
    """Makes one call after another, each with a session of its own.

    Args:
        address: of the app.
        seed: of all that it does.
    """

    def __init__(self, address: str, seed: int):
        self.http = httpx.Client(base_url=address, timeout=300)
        self.draw = random.Random(seed)
        self.config = self.http.get("/config").json()
        info = self.http.get("/gradio_api/info").json()["named_endpoints"]
        self.endpoints = {
            name.strip("/"): [p["parameter_name"] for p in endpoint["parameters"]]
            for name, endpoint in info.items()
        }
        self.functions = [f for f in self.config["dependencies"] if f["backend_fn"]]

    def call(self) -> None:
        """One call; its answer does not matter here, as long as there is one."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.event, 40), (self.endpoint, 30), (self.body, 8), (self.path, 5), (self.upload, 3),
            (self.cancelled, 7), (self.unheard, 7),
        ]  # fmt: skip
        (kind,) = self.draw.choices([k for k, _ in kinds], [weight for _, weight in kinds])
        kind()

    def session(self) -> str:
        return f"{self.draw.getrandbits(60):x}"

    def post(self, path: str, sent: Any) -> httpx.Response:
        body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        head = {"content-type": "application/json"}
        return self.http.post(f"/gradio_api/{path}", content=body, headers=head)

    def arguments(self, names: list[str], wrong: int) -> list[Any]:
        """Right values, of which some are made wrong."""
        values = [RIGHT.get(name) for name in names]
        for place in self.draw.sample(range(len(names)), min(wrong, len(names))):
            values[place] = self.draw.choice(WRONG)
        return values

    def event(self) -> None:
        """An event of the page, with anything for its inputs."""
        function = self.draw.choice(self.functions)
        data = [self.draw.choice(WRONG) for _ in function["inputs"]]
        if self.draw.random() < 0.1:
            data = data[:-1] if self.draw.random() < 0.5 else [*data, 1, 2, 3]
        sent = {"data": data, "fn_index": function["id"], "session_hash": self.session()}
        if self.draw.random() < 0.1:
            sent["fn_index"] = self.draw.choice([-1, 10**6, "0", None, 1.5, [0]])
        if self.draw.random() < 0.1:
            sent[self.draw.choice(["event_id", "trigger_id", "batched", "simple_format", "x"])] = (
                self.draw.choice(WRONG)
            )
        if self.draw.random() < 0.1:
            sent["session_hash"] = self.draw.choice(SESSIONS)
        if not function["queue"]:
            self.post("run/predict", sent)
        elif self.post("queue/join", sent).status_code == 200:
            self.listen(str(sent["session_hash"]))

    def endpoint(self) -> None:
        """A public endpoint; one call in four is right."""
        name = self.draw.choice(list(self.endpoints))
        values = self.arguments(self.endpoints[name], self.draw.randrange(4))
        if self.draw.random() < 0.3:
            named = dict(zip(self.endpoints[name], values, strict=True))
            if self.draw.random() < 0.3:
                named["nobody"] = 1
            answer = self.post(f"call/v2/{name}", named)
        else:
            answer = self.post(f"call/{name}", {"data": values})
        if answer.status_code == 200:
            self.http.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}")

    def body(self) -> None:
        """What is no call at all."""
        paths = ["queue/join", "run/predict", "call/compare", "call/v2/compare", "cancel", "reset"]
        self.post(self.draw.choice(paths), self.draw.choice(BODIES))

    def path(self) -> None:
        """Addresses that must not answer."""
        path = self.draw.choice(PATHS)
        if path.startswith("heartbeat"):
            return  # open as long as a page is
        self.http.get(f"/gradio_api/{path}")

    def upload(self) -> None:
        """A file, which nobody takes."""
        self.http.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 1000)})

    def cancelled(self) -> None:
        """A comparison that is left in the middle, or cancelled, or both."""
        sent, session = self.comparison()
        event = self.post("queue/join", sent).json()["event_id"]
        if self.draw.random() < 0.7:
            self.listen(session, most=self.draw.randrange(1, 6))
        if self.draw.random() < 0.7:
            self.post("cancel", {"session_hash": session, "fn_index": 0, "event_id": event})

    def unheard(self) -> None:
        """A comparison whose pictures nobody fetches."""
        sent, _ = self.comparison()
        self.post("queue/join", sent)

    def comparison(self) -> tuple[dict[str, Any], str]:
        session = self.session()
        values = self.arguments(self.endpoints["compare"], 0)
        number = next(f["id"] for f in self.functions if f["api_name"] == "compare")
        return {"data": values, "fn_index": number, "session_hash": session}, session

    def listen(self, session: str, most: int = 10**9) -> None:
        """A session's messages to their end, or some of them."""
        path = f"/gradio_api/queue/data?session_hash={session}"
        with self.http.stream("GET", path) as answer:
            for number, line in enumerate(answer.iter_lines()):
                if number >= most or "close_stream" in line:
                    return


@pytest.fixture
def app(start_app, tiny_folder, lora_student, tmp_path):
    """The app on the tiny model: process, address, folder of temporary files, and its log."""
    folder, log = tmp_path / "temporary", tmp_path / "log"
    folder.mkdir()
    options = ["--model", str(tiny_folder), "--student", str(lora_student)]
    process, address = start_app(options, {"TMPDIR": str(folder)}, log)
    return process, address, folder, log


def resident(process: subprocess.Popen) -> float:
    """Megabytes of a process that are in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def threads(process: subprocess.Popen) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def attack(address: str, calls: int, seed: int) -> None:
    """So many calls, by several visitors at once."""
    visitors = [Visitor(address, seed * VISITORS + number) for number in range(VISITORS)]

    def work(visitor: Visitor) -> None:
        for _ in range(calls // VISITORS):
            visitor.call()

    with ThreadPoolExecutor(VISITORS) as pool:
        list(pool.map(work, visitors))


def honest(address: str) -> None:
    """A right request, as anybody would make it next."""
    from gradio_client import Client

    columns = [{"network": "teacher", "steps": 2}, {"network": "lora"}]
    result = Client(address, verbose=False).predict("a fox", 1, 1, columns, api_name="/compare")
    assert len(result["cards"]) == 2


def check_log_and_end(process: subprocess.Popen, log: Path, folder: Path) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    text = log.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert list(folder.rglob("*")) == []


@needs_proc
@pytest.mark.soak
def test_memory_stays_flat_under_a_hostile_load(app):
    process, address, folder, log = app
    rounds, start = 10, time.monotonic()
    seed = 1000
    while time.monotonic() - start < 1.5 * PATIENCE:  # until the first sessions are given up
        attack(address, CALLS // rounds // 4, seed := seed + 1)
    memory: list[float] = []
    most_threads = most_files = 0
    for number in range(1, rounds + 1):
        attack(address, CALLS // rounds, seed=number)
        memory.append(resident(process))
        most_threads = max(most_threads, threads(process))
        most_files = max(most_files, sum(p.is_file() for p in folder.rglob("*")))
        minutes = (time.monotonic() - start) / 60
        print(
            f"{number * CALLS // rounds:6d} calls {minutes:5.1f} min {memory[-1]:6.0f} MB"
            f" {threads(process):3d} threads {most_files} files, log {log.stat().st_size} bytes",
            flush=True,
        )
    honest(address)
    third = rounds // 3
    early, late = sum(memory[:third]) / third, sum(memory[-third:]) / third
    assert late <= 1.05 * early
    assert most_threads <= MOST_THREADS
    assert most_files == 0
    check_log_and_end(process, log, folder)
