"""`flowsteer evaluate` and `flowsteer emoji report`: what teacher and students are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flowsteer.cli.bench import write_json
from flowsteer.cli.inputs import WholeNumber, check_output_dir, check_output_file
from flowsteer.limits import Within, check_fields
from flowsteer.untrusted import read_json

MOST_PROMPTS = 1200


@dataclass(frozen=True)
class Evaluate:
    """EmojiEval, Frechet distance and distance to the teacher of a student, beside its teacher."""

    student: str = "flowsteer"
    """Bundled student or student folder."""
    model: str = "emoji"
    """The student's teacher: emoji, or a pipeline folder of the emoji architecture."""
    num_prompts: Annotated[WholeNumber, Within(6, MOST_PROMPTS)] | None = None
    """How many, a multiple of 6: an equal share of each task; by default all of the split."""
    split: Literal["test", "dev"] = "test"
    """dev while you tune, test for figures to report."""
    json: Path | None = None
    """Also write everything to this file."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def run(self) -> None:
        """Print a table row by row; half a minute on a GPU, 20 on two CPU cores for all prompts."""
        check_fields(self)
        if self.num_prompts is not None:
            check_shares(self.num_prompts, 6)
        if self.student == "none":
            raise ValueError("student = 'none' has nothing to compare; use flowsteer emoji report")
        check_output_file(self.json)
        from flowsteer.emoji.detector import load_detector
        from flowsteer.emoji.prompts import load_prompts
        from flowsteer.evaluation.report import compare_lines, known_undistilled, report_student
        from flowsteer.loading import check_drawable, load_pipeline, resolve_model, with_student
        from flowsteer.models.schedule import check_schedule_of
        from flowsteer.students import find_student

        find_student(self.student)
        prompts = load_prompts(self.split, self.num_prompts)
        check_drawable(self.model)
        check_schedule_of(resolve_model(self.model), self.model)
        teacher = load_pipeline(self.model, device=self.device)
        student = with_student(teacher, self.student)
        detector = load_detector(device=teacher.transformer.device)
        # the bundled teacher's own rows are on record, on these very prompts and noises
        shipped = self.model == "emoji" and self.split == "test"
        rows = known_undistilled(prompts) if shipped else []
        record = report_student(teacher, student, detector, prompts, rows)
        print("\n" + compare_lines(record["against"]))
        if self.json is not None:
            write_json(self.json, record)


@dataclass(frozen=True)
class EmojiReport:
    """Choose the teacher's guidance on dev prompts, then measure it and its 4-step variants."""

    output_dir: Path = Path("report")
    """Gets teacher.json, and defaults.json with the chosen guidance."""
    model: str = "emoji"
    """emoji, or a pipeline folder of the emoji architecture."""
    detector: Path | None = None
    """Detector folder; by default the bundled one."""
    autoencoder: Path | None = None
    """autoencoder.json of its training run, to be kept in the record."""
    num_prompts: Annotated[WholeNumber, Within(12, MOST_PROMPTS)] = MOST_PROMPTS
    """Test prompts, a multiple of 12; half as many dev prompts."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def run(self) -> None:
        """Print rows as they come, then write both files."""
        check_fields(self)
        check_shares(self.num_prompts, 12)
        check_output_dir(self.output_dir)
        autoencoder = None
        if self.autoencoder is not None:
            autoencoder = read_json(self.autoencoder, "a report of an autoencoder")
        from flowsteer.emoji.detector import DETECTOR_FOLDER, load_detector
        from flowsteer.emoji.prompts import load_prompts
        from flowsteer.evaluation.report import report_teacher
        from flowsteer.loading import check_drawable, load_pipeline, resolve_model
        from flowsteer.models.schedule import check_schedule_of

        check_drawable(self.model)
        check_schedule_of(resolve_model(self.model), self.model)
        pipe = load_pipeline(self.model, device=self.device)
        folder = self.detector or DETECTOR_FOLDER
        detector = load_detector(folder, pipe.transformer.device)
        dev, test = (
            load_prompts("dev", self.num_prompts // 2),
            load_prompts("test", self.num_prompts),
        )
        record = report_teacher(pipe, detector, dev, test)
        if autoencoder is not None:
            record["autoencoder"] = autoencoder
        write_json(self.output_dir / "teacher.json", record)
        defaults = {"guidance_scale": record["guidance_scale"]}
        write_json(self.output_dir / "defaults.json", defaults)


def check_shares(number: int, share: int) -> None:
    """Refuse a number of prompts that is no multiple of `share`."""
    if number % share:
        low = number - number % share
        raise ValueError(
            f"num_prompts = {number} gives the six tasks unequal shares; use {low} or {low + share}"
        )
