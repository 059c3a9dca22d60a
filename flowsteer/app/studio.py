"""Teacher and students of one app: loaded in the background, used by one request at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from flowsteer.app.comparing import Comparing, Post
from flowsteer.app.desk import MOST_WAITING, Desk, ShouldStop, Waiting
from flowsteer.app.networks import TEACHER, Choices, networks_for
from flowsteer.app.requests import (
    TEACHER_PATH_STEPS,
    CompareRequest,
    ScheduleRequest,
    TrajectoryRequest,
)
from flowsteer.app.snapshots import Comparison, Schedules, Trace, Trajectories

if TYPE_CHECKING:
    from flowsteer.app.verdicts import Judge
    from flowsteer.comparing import Column, PipelineSet

MOST_REFERENCES = 64  # 16 kB each for the bundled model, a megabyte for SD3


class Studio:
    """What the screens and the endpoints draw with.

    Everything that touches the networks runs on the desk's one thread, so the page is there while
    the weights still load.

    Args:
        model: bundled name, folder or hub id, as in `load_pipeline`.
        students: names or folders beside those that the package ships; "none" for the teacher
            alone.
        device: as in `load_pipeline`.
        most_waiting: requests in line, one more is refused.

    Raises:
        ValueError: if a student is unknown.
    """

    def __init__(
        self,
        model: str = "emoji",
        students: Sequence[str] = (),
        device: str | None = None,
        most_waiting: int = MOST_WAITING,
    ):
        self.model = model
        self.device = device
        self.choices = Choices(networks_for(model, students))
        self.judge: Judge | None = None
        self._given = [name for name in students if name.lower() != "none"]
        self._references: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._loaded: Future[PipelineSet] = Future()
        self._number = -1
        self.desk = Desk(most_waiting)
        self.desk.submit(self._load)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are there, or loading them has failed."""
        return self._loaded.done()

    @property
    def has_detector(self) -> bool:
        """Whether pictures are judged: those of the bundled world are."""
        return self.model == "emoji"

    def pipelines(self) -> PipelineSet:
        """The loaded pipelines; waits for them.

        Raises:
            ValueError: if the model or a student cannot be loaded.
        """
        return self._loaded.result()

    def close(self) -> None:
        """Stop what runs and drop what waits."""
        from flowsteer.app import gpu

        self.desk.close()
        self._loaded.cancel()
        gpu.clear(self._number)

    def compare(
        self, request: CompareRequest, should_stop: ShouldStop = lambda: False
    ) -> Iterator[Comparison | Waiting]:
        """Snapshots whenever something has changed; the last has every card, unless stopped.

        The cheapest columns come first. Distances are to the teacher's 28 steps, which are taken
        at the end where no column shows them.

        Raises:
            LineFull: if too many are waiting.
            ValueError: if the request does not fit the networks, or loading has failed.
        """
        return self.desk.do(
            lambda post, stop: Comparing(self, request, post, stop).run(), should_stop
        )

    def trajectory(
        self, request: TrajectoryRequest, should_stop: ShouldStop = lambda: False
    ) -> Iterator[Trajectories | Waiting]:
        """Snapshots with a path more each; raises as `compare`."""
        return self.desk.do(partial(self._trace_all, request), should_stop)

    def schedule(
        self, request: ScheduleRequest, should_stop: ShouldStop = lambda: False
    ) -> Iterator[Schedules | Waiting]:
        """Snapshots with the teacher's picture on one grid more each; raises as `compare`."""
        return self.desk.do(partial(self._schedule_all, request), should_stop)

    def reference_column(self) -> Column:
        """The teacher's 28 steps."""
        return self.choices.column(TEACHER, TEACHER_PATH_STEPS)

    def notes(self, prompt: str) -> tuple[str, ...]:
        """What the model will not read of a prompt, a sentence each."""
        from flowsteer.app.notes import prompt_notes

        return tuple(prompt_notes(self.pipelines().teacher, prompt))

    def reference(self, prompt: str, seed: int, should_stop: ShouldStop) -> Any:
        """Final latents of the teacher's 28 steps, kept for a while; on the desk's thread."""
        from flowsteer.app import gpu

        if (prompt, seed) not in self._references:
            column, stop = self.reference_column(), gpu.callback(should_stop)
            self.keep_reference(prompt, seed, gpu.reach(self._number, prompt, column, seed, stop))
        return self._references[prompt, seed]

    def keep_reference(self, prompt: str, seed: int, latents: Any) -> None:
        """Remember a reference, and forget the oldest."""
        self._references[prompt, seed] = latents
        self._references.move_to_end((prompt, seed))
        while len(self._references) > MOST_REFERENCES:
            self._references.popitem(last=False)

    @property
    def number(self) -> int:
        """What stands for the pipelines in `flowsteer.app.gpu`."""
        self.pipelines()
        return self._number

    def _load(self, post: Post, should_stop: ShouldStop) -> None:
        from flowsteer.comparing import PipelineSet
        from flowsteer.loading import load_pipeline

        try:
            pipelines = PipelineSet(load_pipeline(self.model, device=self.device))
            for network in self.choices.students[:1]:  # the others at their first picture
                pipelines.pipeline(network.student)
            for name in self._given:
                pipelines.pipeline(name)
        except Exception as error:
            self._loaded.set_exception(error)
            return
        if self.has_detector:
            from flowsteer.app.verdicts import Judge

            self.judge = Judge()
        from flowsteer.app import gpu

        scheduler = pipelines.teacher.scheduler.config
        if not scheduler.use_dynamic_shifting:
            self.choices.shift = float(scheduler.shift)
        self._number = gpu.put_down(pipelines)
        self._loaded.set_result(pipelines)

    def _trace_all(self, request: TrajectoryRequest, post: Post, should_stop: ShouldStop) -> None:
        from flowsteer.app import gpu
        from flowsteer.generation import GenerationStopped

        notes, steps = self.notes(request.prompt), 0
        traces: dict[str, Trace] = {}

        def shown() -> Trajectories:
            left = [column.key for column in request.columns if column.key not in traces]
            return Trajectories(request, dict(traces), left[0] if left else None, steps, notes)

        def after_step() -> bool:
            nonlocal steps
            steps += 1
            post(shown())
            return should_stop()

        post(shown())
        for column in request.columns:
            try:
                path, frames = gpu.trace(
                    self.number, request.prompt, column, request.seed, gpu.callback(after_step)
                )
            except GenerationStopped:
                return
            traces[column.key] = Trace(column, path, tuple(frames), self._edges(column))
            steps = 0
            post(shown())

    def _edges(self, column: Column) -> tuple[float, ...]:
        student = self.choices.networks[column.key.rsplit("-", 3)[0]].student
        if student is None:
            return ()
        from flowsteer.students import find_student

        found = find_student(student)
        return found.info.edges if found else ()

    def _schedule_all(self, request: ScheduleRequest, post: Post, should_stop: ShouldStop) -> None:
        from flowsteer.app import gpu
        from flowsteer.flow.grids import GRIDS
        from flowsteer.generation import GenerationStopped

        notes = self.notes(request.prompt)
        pictures: dict[str, Any] = {}
        distances: dict[str, float] = {}
        steps = 0

        def after_step() -> bool:
            nonlocal steps
            steps += 1
            post(Schedules(request, dict(pictures), dict(distances), steps, notes))
            return should_stop()

        try:
            for name, make in GRIDS.items():
                grid = make(request.steps, request.shift).tolist()
                picture, latents = gpu.draw_on_grid(
                    self.number,
                    request.prompt,
                    request.column,
                    grid,
                    request.seed,
                    gpu.callback(after_step),
                )
                pictures[name] = picture
                steps = 0
                post(Schedules(request, dict(pictures), dict(distances), steps, notes))
                target = self.reference(request.prompt, request.seed, should_stop)
                distances[name] = gpu.distance(latents, target)
        except GenerationStopped:
            return
        post(Schedules(request, dict(pictures), dict(distances), 0, notes))
