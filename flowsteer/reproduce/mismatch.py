"""Table 1: does it hurt the teacher to start a window from a point it never visits?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowsteer.emoji.concepts import load_concepts
from flowsteer.emoji.evaluation import judge, summarize
from flowsteer.emoji.prompts import EvalPrompt, true_scene_for
from flowsteer.emoji.render import SceneTensors, pack_scenes
from flowsteer.emoji.scenes import World
from flowsteer.evaluation.study import Setting, follow, pictures
from flowsteer.flow import interpolate, rectified_grid
from flowsteer.generation import initial_noise
from flowsteer.loading import TEACHER_STEPS
from flowsteer.measure.frechet import frechet_distance
from flowsteer.measure.latents import DIRECTIONS, latent_distance
from flowsteer.reproduce.jobs import Outcome, Place
from flowsteer.reproduce.workbench import Workbench

# Prompts' own seeds are below 2**22: these make other noises and other scenes of the same prompts.
OTHER_NOISE = 2**24
OTHER_SCENE = 2**24


@dataclass(frozen=True)
class Mismatch:
    """The guided teacher from its own states, and from interpolated ones, at every inner edge.

    Its own (authentic) state at an edge is where its 28 steps arrive from noise; the interpolated
    one is (1 - t) x_0 + t eps with a true picture of the prompt and the same noise, PeRFlow's
    start. From either it takes the rest of its 28 steps. What is measured:

    - EmojiEval of the final pictures, pairwise by prompt;
    - Frechet distance of the final pictures to true ones (other scenes of the same prompts), and
      to the teacher's own from other noises;
    - `latent_distance` of the states at the edge to the teacher's own from other noises. For
      authentic states that is the distance of two samples of one distribution, which is above 0
      since samples are finite: the floor that the interpolated states' is to be held against.
    """

    kind: ClassVar[str] = "mismatch"
    model: str
    num_prompts: int
    num_windows: int = 4
    directions: int = DIRECTIONS

    def run(self, bench: Workbench, place: Place) -> Outcome:
        """A row for each inner edge."""
        ground, shift = bench.test, bench.pipe.scheduler.shift
        setting, scale = ground.setting, bench.teacher.guidance_scale
        pieces = edge_grids(self.num_windows, shift)
        other = [
            initial_noise(OTHER_NOISE + prompt.seed, setting.noise.shape[1:])
            for prompt in setting.prompts
        ]
        own = passage(bench.pipe, setting, setting.noise, pieces, scale)
        again = passage(bench.pipe, setting, torch.stack(other), pieces, scale)
        x_0 = in_batches(bench.encode_scenes, true_scenes(setting.prompts))
        others = true_scenes(setting.prompts, OTHER_SCENE)
        judged = _Judged(bench, in_batches(bench.renderer, others), again[-1])
        authentic = judged.row(own[-1])
        rows = []
        for k in range(1, self.num_windows):
            t_hi = float(pieces[k][0])
            start = interpolate(x_0, setting.noise, t_hi)
            rest = torch.cat([pieces[k][:1], *(piece[1:] for piece in pieces[k:])])
            end = follow(bench.pipe, setting, start, rest, scale)
            states = {"authentic": own[k], "interpolated": start}
            rows.append(
                {
                    "window": k,
                    "t_hi": t_hi,
                    "interpolated": judged.row(end),
                    "latent_distance": {
                        name: latent_distance(x, again[k], self.directions)
                        for name, x in states.items()
                    },
                }
            )
        return Outcome({"authentic": authentic, "rows": rows})


class _Judged:
    """Scores final latents against true pictures and the teacher's from other noises."""

    def __init__(self, bench: Workbench, true: Tensor, again: Tensor):
        self.bench, self.prompts = bench, bench.test.setting.prompts
        self.true = bench.detector.features(true)
        self.again = bench.detector.features(pictures(bench.pipe, again))

    def row(self, latents: Tensor) -> dict[str, Any]:
        """Figures of latents (n, c, h, w), as JSON can hold them."""
        drawn = pictures(self.bench.pipe, latents)
        correct = judge(self.prompts, drawn, self.bench.detector)
        features = self.bench.detector.features(drawn)
        return {
            "emoji_eval": summarize(self.prompts, correct).to_dict(),
            "frechet_true": frechet_distance(features, self.true),
            "frechet_teacher": frechet_distance(features, self.again),
            "correct": "".join("01"[right] for right in correct),
        }


def edge_grids(num_windows: int, shift: float) -> list[Tensor]:
    """The teacher's 28 rectified steps, window by window: each piece has both of its edges.

    Raises:
        ValueError: if its steps do not divide into so many windows.
    """
    if TEACHER_STEPS % num_windows:
        raise ValueError(
            f"num_windows = {num_windows} does not divide the teacher's {TEACHER_STEPS} steps;"
            " use 2, 4, 7, 14 or 28"
        )
    grid, size = rectified_grid(TEACHER_STEPS, shift), TEACHER_STEPS // num_windows
    return [grid[k * size : (k + 1) * size + 1] for k in range(num_windows)]


def passage(
    pipe: Any, setting: Setting, noise: Tensor, pieces: list[Tensor], guidance_scale: float
) -> list[Tensor]:
    """The guided teacher's states at every edge, noise first: K + 1 of (n, c, h, w)."""
    states = [noise]
    for piece in pieces:
        states.append(follow(pipe, setting, states[-1], piece, guidance_scale))
    return states


def true_scenes(prompts: Sequence[EvalPrompt], offset: int = 0) -> SceneTensors:
    """A scene that shows each prompt, drawn from its seed plus `offset`."""
    world = World(len(load_concepts()))
    return pack_scenes([true_scene_for(prompt, offset + prompt.seed, world) for prompt in prompts])


def in_batches(
    make: Callable[[SceneTensors], Tensor], scenes: SceneTensors, batch_size: int = 256
) -> Tensor:
    """What `make` gives of scenes, some at a time, on the CPU."""
    chunks = zip(*(leaf.split(batch_size) for leaf in scenes), strict=True)
    return torch.cat([make(SceneTensors(*chunk)).cpu() for chunk in chunks])
