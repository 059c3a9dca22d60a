"""How to sample: steps, guidance, grid and student, checked and filled in for a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flowsteer.pipeline_info import pipeline_info
from flowsteer.scheduling import call_scheduler, stock_sigmas
from flowsteer.validation import (
    check_flag,
    check_guidance_scale,
    check_num_inference_steps,
    check_scheduler,
    shorten,
)


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Args:
        student: bundled name or folder; None for the teacher.
        num_inference_steps: network calls on the path; None means 28 for a teacher and one a
            window for a student.
        guidance_scale: None means the teacher's own scale, and 1 (no guidance) for a student.
        scheduler: "rectified", or "stock" for the frozen grid of diffusers 0.42. It chooses the
            grid, whichever of the two the pipeline itself has; shift and all else are those of the
            pipeline's scheduler at the time.
        allow_grid_mismatch: run a student on a grid that lacks some of its edges.
    """

    student: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str = "rectified"
    allow_grid_mismatch: bool = False

    def validate(self) -> Settings:
        """These settings, once every value given is known to be in range.

        Raises:
            ValueError: naming the first value that is not.
        """
        if self.num_inference_steps is not None:
            check_num_inference_steps(self.num_inference_steps)
        if self.guidance_scale is not None:
            check_guidance_scale(self.guidance_scale)
        check_scheduler(self.scheduler)
        check_flag("allow_grid_mismatch", self.allow_grid_mismatch)
        return self

    def numbers(self) -> tuple[int, float]:
        """Steps and guidance scale of settings that are complete.

        Raises:
            ValueError: if one is still None; `resolve` fills them in.
        """
        if self.num_inference_steps is None or self.guidance_scale is None:
            raise ValueError(f"{self} is incomplete; use resolve(pipe)")
        return self.num_inference_steps, self.guidance_scale

    def resolve(self, pipe: Any) -> Settings:
        """These settings, checked, with every None filled in for `pipe`.

        `student` becomes the pipeline's own, since its weights decide.

        Raises:
            ValueError: if a value is out of range, or another student is meant.
        """
        self.validate()
        info = pipeline_info(pipe)
        name = info.student.name if info.student else None
        if self.student not in (None, "none", name):
            raise ValueError(
                f"student = {shorten(self.student)}, but the pipeline's is {name!r}: load one with"
                " load_pipeline(student=...) or with_student, or leave it out"
            )
        steps, scale = self.num_inference_steps, self.guidance_scale
        if steps is None:
            steps = info.num_inference_steps
        if scale is None:
            scale = info.default_guidance_scale
        return replace(
            self,
            student=name,
            num_inference_steps=int(steps),
            guidance_scale=float(scale),
            allow_grid_mismatch=self.allow_grid_mismatch or info.allow_grid_mismatch,
        )


def check_settings_fit(pipe: Any, settings: Settings) -> None:
    """Refuse a grid that lacks edges of the pipeline's student, before any network call.

    Raises:
        ValueError: naming both grids; or if the pipeline's scheduler is no Euler's for flows.
    """
    settings = settings.resolve(pipe)
    steps, _ = settings.numbers()
    scheduler = call_scheduler(pipe, settings.allow_grid_mismatch)
    if scheduler.config["use_dynamic_shifting"]:
        return  # such a shift is known only while sampling; the scheduler checks it then
    sigmas = stock_sigmas(pipe, steps) if settings.scheduler == "stock" else None
    scheduler.set_timesteps(steps, sigmas=sigmas)
