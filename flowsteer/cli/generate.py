"""`flowsteer generate`: pictures from prompts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from flowsteer.cli.inputs import (
    AUTO,
    Number,
    WholeNumber,
    check_output_dir,
    choose_student,
    collect_prompts,
)
from flowsteer.validation import check_seed, check_whole_number

MOST_PICTURES = 1000


@dataclass(frozen=True)
class Generate:
    """Draw pictures. PNGs carry prompt, seed and settings in a text chunk."""

    prompt: Positional[tuple[str, ...]] = ()
    """What to draw; several prompts give several pictures."""
    prompts: Path | None = None
    """File with one prompt a line."""
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
    """Pictures made at once; with 1, they do not depend on their neighbours to the last bit."""
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
        prompts = collect_prompts(self.prompt, self.prompts)
        seeds = self._seeds(len(prompts))
        output_dir = check_output_dir(self.output_dir)
        batch_size = check_whole_number("batch_size", self.batch_size, 1, MOST_PICTURES)

        from flowsteer.generation import Settings, stream_pictures
        from flowsteer.loading import check_drawable, load_pipeline
        from flowsteer.pictures import picture_name, picture_record, save_png

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
        stream = stream_pictures(pipe, prompts, seeds, settings, batch_size)
        for index, picture in enumerate(_with_bar(stream, len(prompts) * len(seeds))):
            path = output_dir / picture_name(picture, index)
            print(save_png(picture.image, path, picture_record(picture)), flush=True)

    def _seeds(self, num_prompts: int) -> list[int]:
        """Consecutive seeds, the last of them in range too."""
        most = max(1, MOST_PICTURES // num_prompts)
        count = check_whole_number("num_images_per_prompt", self.num_images_per_prompt, 1, most)
        first = check_seed(self.seed)
        check_seed(first + count - 1)
        return list(range(first, first + count))


def _with_bar(stream, total):
    """A progress bar on stderr; none for a single picture or when nobody watches."""
    from tqdm import tqdm

    quiet = total == 1 or not sys.stderr.isatty()
    return tqdm(stream, total=total, unit="picture", disable=quiet)
