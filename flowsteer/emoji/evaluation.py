"""EmojiEval: does a picture show what its prompt names? After GenEval (arXiv 2310.11513).

A prompt is right only if all that it names is right, by the detector and the background's
colours. What a prompt names must be there exactly as many times as it says, where GenEval, but for
counting, is content with more. An object that nobody asked for is wrong where this world never
draws one: beside a pair or a number of things. Beside a single one it may be, since captions tell
at times only one of two objects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from flowsteer.emoji.backgrounds import background_colors
from flowsteer.emoji.detector import Detection, Detector
from flowsteer.emoji.prompts import TASKS, EvalPrompt
from flowsteer.emoji.scenes import COLORS, PLACES
from flowsteer.measure.bootstrap import Interval, stratified_interval, wilson_interval

EXTRA_THRESHOLD = 0.5  # an object that nobody asked for counts from this score on


@dataclass(frozen=True)
class Finding:
    """What the judge saw in one picture, and what was wrong with it; None if nothing was."""

    problem: str | None
    objects: tuple[str, ...]  # "3d koala", highest score first
    background: tuple[str, ...]

    @property
    def correct(self) -> bool:
        """Whether the picture shows all that the prompt names."""
        return self.problem is None


@dataclass(frozen=True)
class EmojiEvalReport:
    """Accuracy by task (Wilson intervals) and overall: the mean of the tasks (bootstrap interval).

    held_out is the accuracy on prompts that name a pair left out of training, None if there are
    none. All intervals are at 95%.
    """

    overall: Interval
    tasks: dict[str, Interval]
    counts: dict[str, int]
    held_out: Interval | None = None

    def to_dict(self) -> dict:
        """As JSON can hold it; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict) -> EmojiEvalReport:
        """The report that `to_dict` wrote."""
        held_out = row.get("held_out")
        return cls(
            Interval(**row["overall"]),
            {task: Interval(**interval) for task, interval in row["tasks"].items()},
            dict(row["counts"]),
            None if held_out is None else Interval(**held_out),
        )

    def to_json(self) -> str:
        """As JSON text; `from_json` reads it back."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> EmojiEvalReport:
        """The report that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    def to_markdown(self) -> str:
        """A table: task, prompts, accuracy, 95% interval."""
        rows = [(task, str(self.counts[task]), self.tasks[task]) for task in self.tasks]
        rows.append(("**overall**", str(sum(self.counts.values())), self.overall))
        if self.held_out is not None:
            rows.append(("of these, held out", "", self.held_out))
        lines = ["| task | prompts | accuracy | 95% interval |", "|---|---:|---:|---|"]
        lines += [
            f"| {name.replace('_', ' ')} | {count} | {i.mean:.3f} | {i.ends('{:.3f} to {:.3f}')} |"
            for name, count, i in rows
        ]
        return "\n".join(lines)


def judge(prompts: Sequence[EvalPrompt], images: Tensor, detector: Detector) -> list[bool]:
    """Whether each picture shows all that its prompt names.

    Args:
        prompts: b prompts.
        images: (b, 3, 128, 128) in [-1, 1], in the same order.
        detector: as `load_detector` gives it.

    Raises:
        ValueError: if there are not as many pictures as prompts.
    """
    return [finding.correct for finding in examine(prompts, images, detector)]


def examine(prompts: Sequence[EvalPrompt], images: Tensor, detector: Detector) -> list[Finding]:
    """As `judge`, with the reasons."""
    if len(prompts) != len(images):
        raise ValueError(f"{len(prompts)} prompts and {len(images)} images; give as many")
    concepts, styles = detector.config.concepts, detector.config.styles
    findings = []
    for prompt, image, found in zip(prompts, images, detector.detect(images), strict=True):
        names = [(styles[d.style], concepts[d.concept]) for d in found]
        colors = tuple(COLORS[c] for c in background_colors(image, found))
        objects = tuple(f"{style} {concept}" for style, concept in names)
        findings.append(Finding(find_problem(prompt, found, names, colors), objects, colors))
    return findings


def find_problem(
    prompt: EvalPrompt,
    objects: Sequence[Detection],
    names: Sequence[tuple[str, str]],
    background: tuple[str, ...],
) -> str | None:
    """The first thing a picture gets wrong, in words, or None.

    Args:
        prompt: what was asked for.
        objects: what the detector found.
        names: their (style, concept).
        background: the background's colours, by name.
    """
    told = [thing.concept for thing in prompt.objects]
    seen = [(o, n) for o, n in zip(objects, names, strict=True) if n[1] in told]
    for thing in prompt.objects:
        styles = [style for _, (style, concept) in seen if concept == thing.concept]
        if len(styles) != thing.count:
            return f"{len(styles)} of {thing.concept}, not {thing.count}"
        if thing.style is not None and set(styles) != {thing.style}:
            return f"{thing.concept} in style {styles[0]}, not {thing.style}"
    extra = _extra(prompt, objects, names)
    if extra is not None:
        return f"a {extra} that nobody asked for"
    if prompt.background is not None and background != prompt.background:
        return f"background {' to '.join(background)}, not {' to '.join(prompt.background)}"
    where = {concept: o for o, (_, concept) in seen}
    if prompt.relation is not None and not stands(where[told[0]], prompt.relation, where[told[1]]):
        return f"{told[0]} is not {prompt.relation} {told[1]}"
    if prompt.place is not None and place_of(where[told[0]]) != prompt.place:
        return f"{told[0]} is at {place_of(where[told[0]])}, not {prompt.place}"
    return None


def stands(first: Detection, relation: str, second: Detection) -> bool:
    """Whether first is left of, right of, above or below second.

    The direction named has to be the main one: within 45 degrees. In true scenes it is within 31.
    """
    dx, dy = second.x - first.x, second.y - first.y
    ahead, aside = {
        "left of": (dx, dy),
        "right of": (-dx, dy),
        "above": (dy, dx),
        "below": (-dy, dx),
    }[relation]
    return ahead > abs(aside)


def place_of(thing: Detection) -> str:
    """The name in `scenes.PLACES` of where an object is.

    `scenes.place_name` leaves gaps between the places, in which captions name none; here each
    gap is divided in its middle.
    """
    row, column = (0 if v < 0.415 else 2 if v > 0.585 else 1 for v in (thing.y, thing.x))
    return PLACES[row][column]


def summarize(prompts: Sequence[EvalPrompt], correct: Sequence[bool]) -> EmojiEvalReport:
    """Accuracy by task and overall.

    Args:
        prompts: n prompts.
        correct: what `judge` says of each.

    Raises:
        ValueError: if the lengths differ, or there is no prompt.
    """
    if len(prompts) != len(correct) or not prompts:
        raise ValueError(f"{len(prompts)} prompts and {len(correct)} verdicts; give one a prompt")
    verdicts = list(zip(prompts, correct, strict=True))
    by_task = {task: [bool(c) for p, c in verdicts if p.task == task] for task in TASKS}
    by_task = {task: values for task, values in by_task.items() if values}
    held_out = [bool(c) for p, c in verdicts if p.held_out]
    return EmojiEvalReport(
        overall=stratified_interval(list(by_task.values())),
        tasks={task: wilson_interval(sum(v), len(v)) for task, v in by_task.items()},
        counts={task: len(v) for task, v in by_task.items()},
        held_out=wilson_interval(sum(held_out), len(held_out)) if held_out else None,
    )


def _extra(
    prompt: EvalPrompt, objects: Sequence[Detection], names: Sequence[tuple[str, str]]
) -> str | None:
    told = {thing.concept for thing in prompt.objects}
    extras = [
        concept
        for o, (_, concept) in zip(objects, names, strict=True)
        if concept not in told and o.score >= EXTRA_THRESHOLD
    ]
    allowed = 1 if sum(thing.count for thing in prompt.objects) == 1 else 0
    return extras[allowed] if len(extras) > allowed else None
