"""Table 5: which solver the teacher's rollout should use."""

from __future__ import annotations

from flowsteer.evaluation.solvers import SolverRow, calls_to_reach, solver_markdown
from flowsteer.reproduce.tables import Records

CELL = "5-solvers"
AIM = 0.01
"""Relative error of the endpoint at which solvers are held against each other."""


def solver_rows(records: Records) -> list[SolverRow]:
    """The rows of a finished cell."""
    return [
        SolverRow(
            row["solver"],
            row["substeps"],
            row["calls"],
            tuple(row["edges"]),
            tuple(tuple(errors) for errors in row["errors"]),
        )
        for row in records[CELL]["results"]["rows"]
    ]


def _least_error(rows: list[SolverRow], solver: str) -> float:
    """The smallest mean error of the endpoint that a solver has in any row."""
    return min((row.edge_errors[-1] for row in rows if row.solver == solver), default=0.0)


def solver_section(records: Records) -> list[str]:
    """Table 5, and what an error of 1% costs with each solver, or the least that two can have."""
    rows, config = solver_rows(records), records[CELL]["config"]
    aim = max(AIM, *(_least_error(rows, solver) for solver in ("euler", "multistep")))
    calls = {
        solver: calls_to_reach(rows, solver, aim)
        for solver in dict.fromkeys(row.solver for row in rows)
    }
    told = [
        f"{solver} {'is not measured so far' if count is None else f'{count:.1f}'}"
        for solver, count in calls.items()
    ]
    lines = [
        f"Relative L2 of the guided teacher's states to those of {config['reference_substeps']}"
        f" Heun steps a window, on {config['num_prompts']} dev prompts.",
        "",
        solver_markdown(rows),
        "",
        f"- Teacher calls for an endpoint error of {aim:.3g}, between rows by a power law:"
        f" {', '.join(told)}.",
    ]
    if aim > AIM:
        lines.append(
            f"- An error of {AIM:.3g} was aimed for; not both of euler and multistep get there."
        )
    euler, multistep = calls.get("euler"), calls.get("multistep")
    if euler is not None and multistep is not None:
        reached = "holds" if multistep <= euler / 2 else "does not hold"
        lines.append(
            f"- Half of Euler's calls with the multistep solver: {multistep / euler:.2f} of them,"
            f" {reached}."
        )
    return lines
