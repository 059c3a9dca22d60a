"""What the detector behind EmojiEval says of a picture of the bundled world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from flowsteer.emoji.detector import Detector


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what its prompt names, and what is seen in it.

    Args:
        correct: None if the prompt names things in words that the judge does not read.
        problem: what is wrong; None where nothing is, or nothing was judged.
        objects: such as "3d koala", surest first.
        background: one colour, or the two ends of a gradient.
    """

    correct: bool | None
    problem: str | None
    objects: tuple[str, ...]
    background: tuple[str, ...]

    @property
    def seen(self) -> str:
        """Such as "3d koala, flat pizza on pink"."""
        things = ", ".join(self.objects) or "nothing"
        return f"{things} on {' to '.join(self.background)}"


class Judge:
    """The bundled detector, loaded at first use; for one thread at a time."""

    def __init__(self) -> None:
        self._detector: Detector | None = None

    def look(self, prompt: str, picture: Image.Image) -> Verdict:
        """Judge one 128 px picture by its prompt."""
        from flowsteer.emoji.detector import load_detector
        from flowsteer.emoji.evaluation import examine
        from flowsteer.emoji.prompts import EvalPrompt
        from flowsteer.emoji.reading import read_scene

        if self._detector is None:
            self._detector = load_detector()
        scene = read_scene(prompt)
        pixels = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32))
        images = pixels.permute(2, 0, 1)[None] / 127.5 - 1
        asked = scene or EvalPrompt(prompt, "single", ())
        (finding,) = examine([asked], images, self._detector)
        return Verdict(
            correct=None if scene is None else finding.correct,
            problem=None if scene is None else finding.problem,
            objects=finding.objects,
            background=finding.background,
        )
