"""What a visitor can choose from: networks by key, and columns made of them.

A visitor names a network by its key in a fixed table, never by a path or a hub id, so nothing that
is typed can make the app read a file or ask the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowsteer.comparing import COMPARE_COLUMNS, Column
from flowsteer.loading import TEACHER_STEPS
from flowsteer.settings import Settings
from flowsteer.students import bundled_students, find_student, student_title
from flowsteer.validation import check_whole_number, shorten

TEACHER = "teacher"
MOST_COLUMNS = 6
MOST_STEPS = 100
AUTO = "auto"
FIELDS = ("network", "steps", "scheduler", "guidance")


@dataclass(frozen=True)
class Network:
    """A teacher or student as visitors see it.

    Args:
        key: letters, digits, dots and hyphens; unique.
        title: for people.
        student: name or folder; None for the teacher.
        steps: to start from.
    """

    key: str
    title: str
    student: str | None
    steps: int

    @property
    def guided(self) -> bool:
        """Whether it is guided unless told otherwise: teachers are."""
        return self.student is None


def networks_for(model: str, students: Sequence[str]) -> dict[str, Network]:
    """The teacher and its students by key: shipped ones for the bundled model, and those given.

    Args:
        model: as `load_pipeline` takes it.
        students: names or folders from the command line; "none" among them leaves all out.

    Raises:
        ValueError: if a student is unknown.
    """
    networks = {TEACHER: Network(TEACHER, "Teacher", None, TEACHER_STEPS)}
    if any(name.lower() == "none" for name in students):
        return networks
    shipped = bundled_students() if model == "emoji" else ()
    for name in dict.fromkeys((*students, *shipped)):
        found = find_student(name)
        if found is None:
            continue
        title = student_title(name)
        key = _free_key(title, networks)
        networks[key] = Network(key, f"Student {title}", found.name, found.info.num_inference_steps)
    return networks


def _free_key(title: str, taken: Mapping[str, Network]) -> str:
    """A key that is safe in addresses and file names, and not taken."""
    safe = (
        "".join(char if char.isascii() and char.isalnum() else "_" for char in title) or "student"
    )
    key, number = safe, 2
    while key in taken:
        key, number = f"{safe}_{number}", number + 1
    return key


class Choices:
    """Columns from what visitors send, checked against the networks that there are.

    Args:
        networks: from `networks_for`.
    """

    def __init__(self, networks: Mapping[str, Network]):
        self.networks = dict(networks)

    @property
    def students(self) -> list[Network]:
        """All but the teacher, in order."""
        return [network for network in self.networks.values() if network.student is not None]

    def column(
        self, network: Any, steps: Any, scheduler: Any = "rectified", guidance: Any = None
    ) -> Column:
        """One column.

        Args:
            network: a key.
            steps: a whole number from 1 to 100.
            scheduler: "rectified" or "stock".
            guidance: 1 (none) to 100; None for the network's own.

        Raises:
            ValueError: if a value is out of range.
        """
        if not isinstance(network, str) or network not in self.networks:
            known = ", ".join(self.networks)
            raise ValueError(f"network = {shorten(network)} is unknown; use one of {known}")
        if isinstance(steps, float) and steps.is_integer():  # numbers from a browser
            steps = int(steps)
        check_whole_number("steps", steps, 1, MOST_STEPS)
        chosen = self.networks[network]
        settings = Settings(
            chosen.student, steps, None if guidance is None else guidance, scheduler
        ).validate()
        if settings.guidance_scale is not None:
            # exactly what the key says, so that a link and the picture it stands for agree
            scale = float(f"{settings.guidance_scale:g}")
            settings = replace(settings, guidance_scale=scale)
        return Column(_key(network, settings), _title(chosen, settings), settings)

    def columns(self, rows: Any) -> list[Column]:
        """Columns from a list of objects with "network", "steps", "scheduler" and "guidance".

        Raises:
            ValueError: if there are none, too many or twice the same, or a value is wrong.
        """
        if isinstance(rows, str) or not isinstance(rows, Sequence):
            raise ValueError(f"columns = {shorten(rows)} must be a list of objects")
        if not 1 <= len(rows) <= MOST_COLUMNS:
            raise ValueError(f"columns has {len(rows)} entries; give 1 to {MOST_COLUMNS} of them")
        columns: list[Column] = []
        for row in rows:
            if (
                not isinstance(row, Mapping)
                or not row.keys() <= set(FIELDS)
                or "network" not in row
            ):
                raise ValueError(
                    f"column {shorten(row)} must be an object with network, and may have"
                    f" {', '.join(FIELDS[1:])}"
                )
            known = self.networks.get(row["network"]) if _is_text(row["network"]) else None
            steps = row.get("steps", known.steps if known else TEACHER_STEPS)
            scheduler = row.get("scheduler", "rectified")
            columns.append(self.column(row["network"], steps, scheduler, row.get("guidance")))
        keys = [column.key for column in columns]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"column {key} is there twice; change or remove one")
        return columns

    def parse(self, text: Any) -> list[Column]:
        """Columns from the text of a link: "teacher-28-rectified-auto,flowsteer-4-rectified-1".

        Raises:
            ValueError: as `columns`, and if the text is not of that form.
        """
        if not isinstance(text, str) or len(text) > 1000:
            raise ValueError(f"columns = {shorten(text)} must be text, as in a link of this app")
        return self.columns([_row(part) for part in text.split(",") if part])

    def default(self) -> list[Column]:
        """The five ways of `flowsteer compare`; without students, four."""
        first = next(iter(self.students), None)
        columns = []
        for column in COMPARE_COLUMNS:
            settings = column.settings
            key = TEACHER
            if settings.student is not None:
                if first is None:
                    continue
                key = first.key
                settings = replace(settings, num_inference_steps=first.steps)
            columns.append(
                self.column(
                    key, settings.num_inference_steps, settings.scheduler, settings.guidance_scale
                )
            )
        return columns

    def presets(self) -> dict[str, str]:
        """Name -> columns as in a link; those that make sense with the networks there are."""
        first = next(iter(self.students), None)
        presets = {
            "Five ways" if first else "Four ways": link_text(self.default()),
            "Teacher, fewer steps": "teacher-28-rectified-auto,teacher-16-rectified-auto,"
            "teacher-8-rectified-auto,teacher-4-rectified-auto,teacher-2-rectified-auto",
        }
        if first:
            few = [f"{n.key}-{n.steps}-rectified-1" for n in self.students[: MOST_COLUMNS - 1]]
            name = "All students" if len(few) > 1 else "Teacher and student"
            presets[name] = ",".join(["teacher-28-rectified-auto", *few])
            more = [f"{first.key}-{first.steps * k}-rectified-1" for k in (1, 2, 3)]
            presets["Student, more steps"] = ",".join(["teacher-28-rectified-auto", *more])
        return presets


def link_text(columns: Sequence[Column]) -> str:
    """Columns as in a link; `Choices.parse` reads it back."""
    return ",".join(column.key for column in columns)


def _key(network: str, settings: Settings) -> str:
    """Unique for a column's settings, safe in addresses and file names, and read by `_row`."""
    scale = AUTO if settings.guidance_scale is None else f"{settings.guidance_scale:g}"
    return f"{network}-{settings.num_inference_steps}-{settings.scheduler}-{scale}"


def _row(part: str) -> dict[str, Any]:
    """The values of a column in a link."""
    words = part.rsplit("-", 3)
    if len(words) != 4:
        raise ValueError(
            f"column {shorten(part)} must be NETWORK-STEPS-SCHEDULER-GUIDANCE, such as"
            " teacher-28-rectified-auto"
        )
    network, steps, scheduler, guidance = words
    return {
        "network": network,
        "steps": int(steps) if steps.isascii() and steps.isdigit() and len(steps) < 6 else steps,
        "scheduler": scheduler,
        "guidance": None if guidance == AUTO else _number(guidance),
    }


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _title(network: Network, settings: Settings) -> str:
    """Such as "Teacher, 4 steps, stock grid, guidance 3"."""
    steps = settings.num_inference_steps
    parts = [network.title, f"{steps} step" if steps == 1 else f"{steps} steps"]
    if settings.scheduler == "stock":
        parts.append("stock grid")
    scale = settings.guidance_scale
    if scale == 1.0 and network.guided:
        parts.append("no guidance")
    elif scale is not None and scale != 1.0:
        parts.append(f"guidance {scale:g}")
    return ", ".join(parts)
