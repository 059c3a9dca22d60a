"""`flowsteer generate`: pictures from prompts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from flowsteer.cli.inputs import (
    AUTO,
    Number,
    WholeNumber,
    check_output_dir,
    choose_student,
    collect_prompts,
    precision_of,
)
from flowsteer.untrusted import name_of
from flowsteer.validation import check_seed, check_whole_number, shorten

MOST_PICTURES = 1000


@dataclass(frozen=True)
class Generate:
    """Draw pictures. PNGs carry prompt, seed and settings in a text chunk."""

    prompt: Positional[tuple[str, ...]] = ()
    """What to draw; several prompts give several pictures."""
    prompts: Path | None = None
    """File with one prompt a line; blank lines and # comments are left out."""
    from_file: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A PNG that this command wrote: draw it again; prompt, model, student, seed and settings are
    the file's."""
    model: str = "emoji"
    """Bundled name (emoji), pipeline folder, or hub id."""
    student: str = AUTO
    """Bundled student, student folder, or none for the teacher; auto means flowsteer for the emoji
    model and none for others."""
    num_inference_steps: WholeNumber | None = None
    """Steps, 1 to 1,000; by default 28 for a teacher and one a window for a student."""
    guidance_scale: Number | None = None
    """1 means no guidance; by default the teacher's own scale, and 1 for a student."""
    scheduler: Literal["rectified", "stock"] = "rectified"
    """Time grid."""
    seed: WholeNumber = 0
    """Seed of the noise, 0 to 4,294,967,295; every prompt starts from it."""
    num_images_per_prompt: WholeNumber = 1
    """Pictures a prompt, from consecutive seeds."""
    batch_size: WholeNumber = 1
    """Pictures made at once; with more than 1, a value may differ by 1/255 from the same picture
    drawn alone."""
    output_dir: Path = Path("out")
    """Folder for the PNGs; made when the first is ready."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""
    dtype: str | None = None
    """float32, bfloat16 or float16; by default float32, and bfloat16 for hub models on a GPU."""
    allow_grid_mismatch: bool = False
    """Run a student on a grid that lacks some of its edges; the pictures are labelled."""

    def run(self) -> None:
        """Write one PNG a picture and print its path."""
        if self.from_file is not None:
            _as_drawn(self, self.from_file).run()
            return
        prompts = collect_prompts(self.prompt, self.prompts)
        seeds = self._seeds(len(prompts))
        output_dir = check_output_dir(self.output_dir)
        batch_size = check_whole_number("batch_size", self.batch_size, 1, MOST_PICTURES)

        from flowsteer.generation import Settings, stream_pictures
        from flowsteer.loading import check_drawable, load_pipeline
        from flowsteer.pictures import free_path, picture_name, picture_record, save_png

        settings = Settings(
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            scheduler=self.scheduler,
            allow_grid_mismatch=self.allow_grid_mismatch,
        ).validate()
        check_drawable(self.model)
        pipe = load_pipeline(
            self.model,
            student=choose_student(self.student, self.model),
            device=self.device,
            dtype=self.dtype,
            allow_grid_mismatch=self.allow_grid_mismatch,
        )
        dtype = precision_of(pipe)
        stream = stream_pictures(pipe, prompts, seeds, settings, batch_size)
        for index, picture in enumerate(_with_bar(stream, len(prompts) * len(seeds))):
            record = picture_record(picture, dtype)
            path = free_path(output_dir / picture_name(picture, index, dtype), record)
            print(save_png(picture.image, path, record), flush=True)

    def _seeds(self, num_prompts: int) -> list[int]:
        """Consecutive seeds, the last of them in range too."""
        most = max(1, MOST_PICTURES // num_prompts)
        count = check_whole_number("num_images_per_prompt", self.num_images_per_prompt, 1, most)
        first = check_seed(self.seed)
        check_seed(first + count - 1)
        return list(range(first, first + count))


def _as_drawn(command: Generate, file: Path) -> Generate:
    """The command that draws a picture as its own record says.

    Raises:
        ValueError: if flags are given that the record decides, or it is none of a picture.
    """
    kept = {"output_dir", "device", "dtype", "batch_size", "from_file"}
    for flag in fields(Generate):
        if flag.name not in kept and getattr(command, flag.name) != flag.default:
            raise ValueError(f"--from names {flag.name} itself; leave it out")
    from flowsteer.pictures import read_record

    record, names = read_record(file), {item.name for item in fields(Generate)}
    texts = ("model", "prompt", "scheduler")
    if not all(isinstance(record.get(name), str) for name in texts):
        what = "is a comparison: use flowsteer compare --from" if "columns" in record else "is none"
        raise ValueError(f"{name_of(file)} must be a picture of flowsteer generate; it {what}")
    for name in ("student", "dtype"):
        if not isinstance(record.get(name), str | None):
            raise ValueError(f"{name_of(file)}: {name} = {shorten(record[name])} must be text")
    drawn = {name: value for name, value in record.items() if name in names - {"prompt"}}
    drawn |= {"prompt": (record["prompt"],), "student": record.get("student") or "none"}
    if command.dtype is not None:
        drawn["dtype"] = command.dtype
    return replace(command, from_file=None, **drawn)


def _with_bar(stream, total):
    """A progress bar on stderr; none for a single picture or when nobody watches."""
    from tqdm import tqdm

    quiet = total == 1 or not sys.stderr.isatty()
    return tqdm(stream, total=total, unit="picture", disable=quiet)
