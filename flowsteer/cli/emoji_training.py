"""`flowsteer emoji autoencoder | teacher`: the recipes behind the bundled weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flowsteer.cli.inputs import check_output_dir
from flowsteer.limits import Within
from flowsteer.training.config import TrainingConfig


@dataclass(frozen=True)
class EmojiAutoencoder(TrainingConfig):
    """Train the autoencoder on scenes drawn on the fly; the result is OUTPUT_DIR/vae."""

    output_dir: str = "autoencoder"
    max_train_seconds: float | None = 300.0
    """Stop after this much wall-clock time; with both limits, at the first one reached."""
    train_batch_size: int = 256
    """Samples per process and micro-step."""
    learning_rate: float = 1e-3
    lr_warmup_steps: int = 100
    adam_weight_decay: float = 0.0
    checkpointing_steps: int = 2000
    """Optimiser steps between checkpoints."""
    size: Literal["emoji", "tiny"] = "emoji"
    """Architecture; tiny is for tests."""

    def run(self) -> None:
        """Train, with a progress bar on stderr; print the result's folder."""
        check_output_dir(self.output_dir)
        from flowsteer.emoji.autoencoder_recipe import AUTOENCODER, train_autoencoder
        from flowsteer.training.progress import watch
        from flowsteer.training.run_folder import check_run

        check_run(self, AUTOENCODER)
        for _ in watch(train_autoencoder(self, self.size), self, "autoencoder"):
            pass
        print(Path(self.output_dir) / "vae")


@dataclass(frozen=True)
class EmojiTeacher(TrainingConfig):
    """Train SD3's transformer and text encoders on scenes; the result is OUTPUT_DIR/pipeline."""

    output_dir: str = "teacher"
    max_train_seconds: float | None = 900.0
    """Stop after this much wall-clock time; with both limits, at the first one reached."""
    train_batch_size: int = 1024
    """Samples per process and micro-step."""
    learning_rate: float = 1e-3
    lr_warmup_steps: int = 300
    ema_decay: float = 0.9995
    checkpointing_steps: int = 2000
    """Optimiser steps between checkpoints."""
    vae: Path = Path("autoencoder/vae")
    """Trained autoencoder."""
    pretrained_model_name_or_path: Path | None = None
    """Pipeline folder to go on from; by default a fresh model."""
    size: Literal["emoji", "tiny"] = "emoji"
    """Architecture of a fresh model; tiny is for tests."""
    scenes: Annotated[int, Within(1, 10_000_000)] = 1_000_000
    """Scenes drawn and encoded before the first step."""

    def run(self) -> None:
        """Train, with a progress bar on stderr; print the result's folder."""
        check_output_dir(self.output_dir)
        _check_folder(self.vae, "config.json", "autoencoder")
        if self.pretrained_model_name_or_path is not None:
            _check_folder(self.pretrained_model_name_or_path, "model_index.json", "pipeline")
        from diffusers import AutoencoderKL, StableDiffusion3Pipeline

        from flowsteer.emoji.teacher_recipe import PIPELINE, train_teacher
        from flowsteer.training.progress import watch
        from flowsteer.training.run_folder import check_run

        check_run(self, PIPELINE)
        vae = AutoencoderKL.from_pretrained(self.vae, local_files_only=True)
        start = None
        if self.pretrained_model_name_or_path is not None:
            start = StableDiffusion3Pipeline.from_pretrained(
                self.pretrained_model_name_or_path,
                text_encoder_3=None,
                tokenizer_3=None,
                local_files_only=True,
            )
        reports = train_teacher(self, vae, self.size, start, self.scenes)
        for _ in watch(reports, self, "teacher"):
            pass
        print(Path(self.output_dir) / "pipeline")


def _check_folder(folder: Path, file: str, kind: str) -> None:
    """Make sure that a folder holds what `save_pretrained` writes for this kind of thing."""
    if not (folder / file).is_file():
        raise ValueError(
            f"{str(folder)!r} is no {kind}: it has no {file}; give the folder that"
            " flowsteer emoji autoencoder or teacher printed"
        )
