"""How long things take here: medians of interleaved runs, and ratios within one run.

Every figure comes with what it is compared to, measured alternately in the same minutes, so that
other load on the machine falls on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowsteer.bench.app import bench_app
from flowsteer.bench.pictures import bench_generate
from flowsteer.bench.processes import bench_import, bench_start
from flowsteer.bench.report import BenchReport, Ratio, Timing, interleave
from flowsteer.bench.training import bench_train

__all__ = [
    "BENCHES",
    "BenchReport",
    "Ratio",
    "Timing",
    "bench_app",
    "bench_generate",
    "bench_import",
    "bench_start",
    "bench_train",
    "interleave",
    "run_benches",
]

BENCHES = ("generate", "train", "import", "start", "app")
MOST_STARTS = 3  # each takes many seconds
MOST_ITERATIONS = 5  # likewise


def run_benches(names: Sequence[str], student: str, repeats: int) -> Iterator[BenchReport]:
    """The benchmarks of these names, one report at a time.

    Args:
        names: of `BENCHES`.
        student: bundled name or folder, for those that need one.
        repeats: runs of each.

    Raises:
        ValueError: if a name or the student is unknown.
    """
    for name in names:
        if name == "generate":
            from flowsteer.loading import load_pipeline, with_student

            teacher = load_pipeline(device="cpu")
            yield bench_generate(teacher, with_student(teacher, student), repeats)
        elif name == "train":
            from flowsteer.loading import load_pipeline

            pipe = load_pipeline()
            on_gpu = pipe.device.type == "cuda"
            size = 256 if on_gpu else 2
            yield bench_train(pipe, min(repeats, MOST_ITERATIONS), size, compile=on_gpu)
        elif name == "import":
            yield bench_import(repeats)
        elif name == "start":
            yield bench_start(student, min(repeats, MOST_STARTS))
        elif name == "app":
            yield bench_app(student, repeats)
        else:
            raise ValueError(f"benchmark {name!r} is unknown; use one of {', '.join(BENCHES)}")
