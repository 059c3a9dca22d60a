"""`flowsteer distill`: teach a few-step student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowsteer.cli.inputs import check_output_dir, collect_prompts
from flowsteer.training.config import DistillationConfig


@dataclass(frozen=True)
class Distill(DistillationConfig):
    """Teach a few-step student from prompts alone; the result is OUTPUT_DIR/student."""

    prompts: Path | None = None
    """File with one prompt a line to learn from; by default captions of emoji scenes."""
    device: str | None = None
    """Such as cpu or cuda; by default a GPU if there is one."""

    def run(self) -> None:
        """Train, with a progress bar on stderr; print the student's folder."""
        check_output_dir(Path(self.output_dir))
        texts = None if self.prompts is None else collect_prompts((), self.prompts)
        if texts is None and self.pretrained_model_name_or_path != "emoji":
            raise ValueError(
                f"pretrained_model_name_or_path = {self.pretrained_model_name_or_path!r} has no"
                " prompts of its own to learn from; give --prompts FILE, one prompt a line"
            )
        from flowsteer.emoji.batches import CaptionBatch
        from flowsteer.emoji.words import normalize_prompt
        from flowsteer.loading import load_pipeline, pipeline_info
        from flowsteer.training.distillation import PromptBatch, distill
        from flowsteer.training.progress import watch

        if texts and self.pretrained_model_name_or_path == "emoji":
            texts = [normalize_prompt(text) for text in texts]  # as its pipeline reads them
        pipe = load_pipeline(self.pretrained_model_name_or_path, device=self.device)
        size = self.train_batch_size
        batches = (
            PromptBatch(tuple(texts), size, self.seed) if texts else CaptionBatch(size, self.seed)
        )
        scale = pipeline_info(pipe).guidance_scale
        for _ in watch(distill(pipe, batches, self, scale), self, "distil"):
            pass
        print(Path(self.output_dir) / "student")
