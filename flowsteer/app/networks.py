"""What a visitor can choose from: networks by key, and columns made of them.

A visitor names a network by its key in a fixed table, never by a path or a hub id, so nothing that
is typed can make the app read a file or ask the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowsteer.comparing import COMPARE_COLUMNS, Column
from flowsteer.flow.grids import GRIDS, format_grid
from flowsteer.flow.windows import TimeWindows
from flowsteer.loading import TEACHER_STEPS
from flowsteer.settings import Settings
from flowsteer.students import bundled_students, find_student, student_title
from flowsteer.validation import check_whole_number, shorten

TEACHER = "teacher"
MOST_COLUMNS = 6
MOST_STEPS = 100
AUTO = "auto"
MISMATCH = "_mismatch"
"""Ends a column's scheduler in a link where the student's window edges may be missed."""
FIELDS = ("network", "steps", "scheduler", "guidance", "allow_grid_mismatch")


@dataclass(frozen=True)
class Network:
    """A teacher or student as visitors see it.

    Args:
        key: letters, digits, dots and hyphens; unique.
        title: for people.
        student: name or folder; None for the teacher.
        steps: to start from.
        edges: of the windows that a student was taught on; empty for the teacher.
    """

    key: str
    title: str
    student: str | None
    steps: int
    edges: tuple[float, ...] = ()

    @property
    def guided(self) -> bool:
        """Whether it is guided unless told otherwise: teachers are."""
        return self.student is None

    def fits(self, steps: int, scheduler: str, shift: float) -> bool:
        """Whether such a grid has all of its window edges."""
        grid = GRIDS[scheduler](steps, shift).tolist()
        return not self.edges or TimeWindows(self.edges).contained_in(grid)


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
        info = found.info
        networks[key] = Network(
            key, f"Student {title}", found.name, info.num_inference_steps, info.edges
        )
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

    Attributes:
        shift: of the model's scheduler, by which a student's steps are checked; None until the
            model is loaded, and where the shift depends on the picture's size.
    """

    def __init__(self, networks: Mapping[str, Network]):
        self.networks = dict(networks)
        self.shift: float | None = None

    @property
    def students(self) -> list[Network]:
        """All but the teacher, in order."""
        return [network for network in self.networks.values() if network.student is not None]

    def column(
        self,
        network: Any,
        steps: Any,
        scheduler: Any = "rectified",
        guidance: Any = None,
        allow_grid_mismatch: Any = False,
    ) -> Column:
        """One column.

        Args:
            network: a key.
            steps: a whole number from 1 to 100.
            scheduler: "rectified" or "stock".
            guidance: 1 (none) to 100; None for the network's own.
            allow_grid_mismatch: whether the grid may lack window edges of the student's.

        Raises:
            ValueError: if a value is out of range, or the grid lacks an edge.
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
        if not isinstance(allow_grid_mismatch, bool):
            raise ValueError(f"allow_grid_mismatch = {shorten(allow_grid_mismatch)} must be a bool")
        fits = chosen.student is None
        if self.shift is not None:
            fits = chosen.fits(steps, settings.scheduler, self.shift)
            if not fits and not allow_grid_mismatch:
                raise ValueError(self._advice(chosen, steps, settings.scheduler))
        settings = replace(settings, allow_grid_mismatch=allow_grid_mismatch and not fits)
        return Column(_key(network, settings), _title(chosen, settings), settings)

    def _advice(self, network: Network, steps: int, scheduler: str) -> str:
        """What to do about a grid that lacks edges."""
        shift = self.shift or 1.0
        fitting = [str(n) for n in range(1, 101) if network.fits(n, "rectified", shift)][:3]
        use = f"use {', '.join(fitting)}, ... rectified steps, or " if fitting else ""
        return (
            f"{network.title} was taught between the edges {format_grid(network.edges)}, of which a"
            f" {scheduler} grid of {steps} steps lacks some: {use}choose the scheduler"
            f" “{scheduler}, mismatch” (allow_grid_mismatch) to see what it draws all the same"
        )

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
            allowed = row.get("allow_grid_mismatch", False)
            columns.append(
                self.column(row["network"], steps, scheduler, row.get("guidance"), allowed)
            )
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
    scheduler = settings.scheduler + (MISMATCH if settings.allow_grid_mismatch else "")
    return f"{network}-{settings.num_inference_steps}-{scheduler}-{scale}"


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
        "scheduler": scheduler.removesuffix(MISMATCH),
        "allow_grid_mismatch": scheduler.endswith(MISMATCH),
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
    if settings.allow_grid_mismatch:
        parts.append("grid mismatch")
    scale = settings.guidance_scale
    if scale == 1.0 and network.guided:
        parts.append("no guidance")
    elif scale is not None and scale != 1.0:
        parts.append(f"guidance {scale:g}")
    return ", ".join(parts)
