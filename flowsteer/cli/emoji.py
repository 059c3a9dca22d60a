"""`flowsteer emoji data | detector`: the art, and the judge that looks at pictures of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowsteer.cli.inputs import check_output_dir
from flowsteer.training.config import TrainingConfig


@dataclass(frozen=True)
class EmojiData:
    """Build the packed art from its npm packages, licences and attributions beside it."""

    output_dir: Path
    """Folder for the art."""
    tarballs: Path | None = None
    """Folder with the packages' .tgz files; by default they are fetched from the npm registry."""

    def run(self) -> None:
        """Write the art and print the files' paths."""
        output_dir = check_output_dir(self.output_dir)
        from flowsteer.emoji.art import build_art

        for path in build_art(self.tarballs, output_dir):
            print(path)


# defaults: the settings of the bundled detector, from detector_recipe.detector_config


@dataclass(frozen=True)
class EmojiDetector(TrainingConfig):
    """Train the detector on true scenes; the result is OUTPUT_DIR/detector, measured in
    OUTPUT_DIR/detector.json."""

    train_batch_size: int = 512
    learning_rate: float = 2e-3
    lr_warmup_steps: int = 200
    adam_weight_decay: float = 0.02
    max_grad_norm: float = 5.0
    mixed_precision: Literal["no", "bf16"] | None = "bf16"
    checkpointing_steps: int = 2000
    start: Path | None = None
    """Detector folder to go on from; by default a fresh one."""

    def run(self) -> None:
        """Train, with a progress bar on stderr; print the result's folder and its accuracy."""
        output_dir = check_output_dir(self.output_dir)
        from flowsteer.emoji.detector import load_detector
        from flowsteer.emoji.detector_recipe import DETECTOR, train_detector
        from flowsteer.training.progress import watch
        from flowsteer.training.run_folder import check_run

        check_run(self, DETECTOR)
        start = None if self.start is None else load_detector(self.start)
        for _ in watch(train_detector(self, start), self, "detector"):
            pass
        print(output_dir / "detector")
        print((output_dir / "detector.json").read_text(encoding="utf-8"))
