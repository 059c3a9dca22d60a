"""`flowsteer compare`: the app's columns in one PNG."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from flowsteer.cli.inputs import (
    AUTO,
    WholeNumber,
    check_output_dir,
    choose_student,
    collect_prompts,
    precision_of,
)
from flowsteer.validation import check_seed


@dataclass(frozen=True)
class Compare:
    """Draw the 28-step teacher, 4-step teachers and a student from one noise, side by side."""

    prompt: Positional[tuple[str, ...]] = ()
    """What to draw; several prompts give several sheets."""
    prompts: Path | None = None
    """File with one prompt a line; blank lines and # comments are left out."""
    from_file: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The app's ZIP or its settings.json: draw that comparison again, one PNG a picture. Or a PNG
    of flowsteer: compare its prompt, from its seed. Model, students and seeds are the file's."""
    model: str = "emoji"
    """Bundled name (emoji), pipeline folder, or hub id."""
    student: str = AUTO
    """Bundled student, student folder, or none to leave that column out; auto means flowsteer for
    the emoji model and none for others."""
    seed: WholeNumber = 0
    """Seed of the noise, 0 to 4,294,967,295."""
    output_dir: Path = Path("out")
    """Folder for the PNGs; made when the first is ready."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""
    dtype: str | None = None
    """float32, bfloat16 or float16; by default float32, and bfloat16 for hub models on a GPU."""

    def run(self) -> None:
        """Write one sheet a prompt; print a line a column, then the sheet's path."""
        if self.from_file is not None:
            self._draw_again(self.from_file)
            return
        prompts = collect_prompts(self.prompt, self.prompts)
        seed = check_seed(self.seed)
        output_dir = check_output_dir(self.output_dir)

        from flowsteer.comparing import PipelineSet, columns_for
        from flowsteer.loading import check_drawable, load_pipeline
        from flowsteer.students import find_student

        student = choose_student(self.student, self.model)
        find_student(student)  # an unknown one must fail before the model loads
        check_drawable(self.model)
        pipelines = PipelineSet(load_pipeline(self.model, device=self.device, dtype=self.dtype))
        columns = columns_for(student)
        for index, prompt in enumerate(prompts):
            _compare_one(pipelines, prompt, seed, columns, output_dir, index)

    def _draw_again(self, file: Path) -> None:
        """Draw a comparison that the app has saved, and say whether its pictures are the same."""
        if self.prompt or self.prompts is not None:
            raise ValueError("--from names the prompt itself; leave prompts out")
        output_dir = check_output_dir(self.output_dir)
        from flowsteer.comparing import PipelineSet, compare
        from flowsteer.comparison_files import is_png, picture_file, read_comparison, read_sheet
        from flowsteer.loading import check_drawable, load_pipeline
        from flowsteer.pictures import comparison_record, free_path, save_png
        from flowsteer.students import find_student

        for name in ("model", "student", "seed"):
            if getattr(self, name) != getattr(Compare, name):
                raise ValueError(f"--from names {name} itself; leave it out")
        sheet = is_png(file)
        saved = read_sheet(file) if sheet else read_comparison(file)
        for column in saved.columns:
            find_student(column.settings.student)
        check_drawable(saved.model)
        dtype = self.dtype or saved.dtype
        pipelines = PipelineSet(load_pipeline(saved.model, device=self.device, dtype=dtype))
        if sheet:
            _compare_one(pipelines, saved.prompt, saved.seeds[0], saved.columns, output_dir, 0)
            return
        for card in compare(pipelines, saved.prompt, saved.seeds, saved.columns):
            name = picture_file(card.column, card.seed)
            dtype = precision_of(pipelines.teacher)
            record = comparison_record(saved.prompt, card.seed, saved.model, [card], dtype)
            path = free_path(output_dir / slug_file(name), record)
            save_png(card.image, path, record)
            before = saved.pictures.get(name)
            verdict = "" if before is None else _same(before, card.image)
            print(f"{path}{verdict}", flush=True)


def slug_file(name: str) -> str:
    """A picture's file name without anything that could lead out of its folder."""
    from flowsteer.pictures import slug

    return slug(name.removesuffix(".png"), width=120) + ".png"


def _same(before: Any, now: Any) -> str:
    same = before.size == now.size and before.tobytes() == now.convert("RGB").tobytes()
    return "  equal to the file's" if same else "  DIFFERS from the file's"


def _compare_one(
    pipelines: Any, prompt: str, seed: int, columns: Any, output_dir: Path, index: int
) -> None:
    from tqdm import tqdm

    from flowsteer.comparing import compare
    from flowsteer.loading import pipeline_info
    from flowsteer.pictures import (
        comparison_record,
        comparison_sheet,
        free_path,
        model_parts,
        prompt_slug,
        save_png,
        slug,
    )
    from flowsteer.students import student_title

    stream = compare(pipelines, prompt, seed, columns)
    cards = []
    for card in tqdm(stream, total=len(columns), unit="column", disable=not sys.stderr.isatty()):
        cards.append(card)
    for card in cards:
        distance = "reference" if card.distance is None else f"distance {card.distance:.3f}"
        print(
            f"{card.column.title:<42} NFE {card.nfe:>3}  {card.seconds:7.2f} s  {distance}",
            flush=True,
        )
    model, dtype = pipeline_info(pipelines.teacher).model, precision_of(pipelines.teacher)
    sheet = comparison_sheet(cards, f"{prompt}  (seed {seed})")
    record = comparison_record(prompt, seed, model, cards, dtype)
    titles = [student_title(c.settings.student) for c in columns if c.settings.student]
    parts = [prompt_slug(prompt), *model_parts(model, dtype), "compare", *map(slug, titles)]
    path = output_dir / f"{index:03d}-{'-'.join(parts)}-seed{seed}.png"
    print(save_png(sheet, free_path(path, record), record), flush=True)
