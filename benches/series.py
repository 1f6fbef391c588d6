"""A series of runs: which of them count, and what is missing before figures may be drawn or quoted.

A series is a CSV file of the rows of all runs, each with the time at which its run began, and beside it a JSON file
that describes the runs. One run on one disk says little about another: a series has at least `RUNS` runs that count, of
the same code on the same machine, each at least `APART` after the one before it, the last at least `SPAN` after the
first.
A run does not count if the machine was busy (machine.py says how that is seen).
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from figures import COLUMNS, Row, beside, row

RUNS: Final = 5
SPAN: Final = timedelta(hours=3)
APART: Final = timedelta(minutes=30)
SAME: Final = (
    "commit", "processor", "cores", "memory", "kernel", "images", "disk", "filesystems", "tools", "python", "packages",
)  # fmt: skip
"""What the runs of a series have in common."""


class Refused(Exception):  # noqa: N818 - no error of the program
    """The runs are too few, or too near to each other; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """One run, and what its figures belong to."""

    about: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def began(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.about["began"])


def read(path: Path) -> list[Run]:
    """Reads a series in the order in which its runs began; none if there is no such file.

    Rows of a run that the JSON file does not describe are left out: appending them was cut.
    """
    if not path.exists():
        return []
    rows: dict[str, list[Row]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            rows.setdefault(line["run"], []).append(row(line))
    described = json.loads(beside(path).read_text("utf-8")) if beside(path).exists() else []
    runs = [Run(about, tuple(rows[about["began"]])) for about in described]
    return sorted(runs, key=lambda run: run.began)


def lines(runs: Iterable[Run]) -> Iterator[Sequence[object]]:
    """Yields the lines of the CSV file."""
    yield ["run", *COLUMNS]
    for run in runs:
        for line in run.rows:
            yield [run.about["began"], *(getattr(line, name) for name in COLUMNS)]


def judged(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """Yields each run with the reason for which it does not count, which is empty if it does."""
    counted: Run | None = None
    for run in runs:
        other = [name for name in SAME if run.about[name] != runs[-1].about[name]]
        if run.about["quick"] or run.about["part"]:
            why = "it is a try for development"
        elif run.about["disturbed"]:
            why = "; ".join(run.about["disturbed"])
        elif other:
            why = f"another {', '.join(other)} than in the last run"
        elif counted and run.began - counted.began < APART:
            why = f"it began less than {minutes(APART)} after the one before it"
        else:
            why, counted = "", run
        yield run, why


def minutes(span: timedelta) -> str:
    """Returns a span of time."""
    whole = int(span.total_seconds() // 60)
    return f"{whole // 60} h {whole % 60:02} min" if whole >= 60 else f"{whole} min"  # noqa: PLR2004


def missing(runs: Sequence[Run]) -> list[str]:
    """Returns what a series lacks; nothing if it is complete."""
    counted = [run for run, why in judged(runs) if not why]
    found = []
    if len(counted) < RUNS:
        found.append(f"{RUNS} runs must count, and {len(counted)} of {len(runs)} do")
    elif (span := counted[-1].began - counted[0].began) < SPAN:
        found.append(f"the runs must span {minutes(SPAN)}, and span {minutes(span)}")
    if found:
        left_out = ((run, why) for run, why in judged(runs) if why)
        found += [f"the run of {run.about['began']} does not count: {why}" for run, why in left_out]
    return found


def complete(path: Path) -> list[Run]:
    """Reads the runs that count; raises `Refused` if they are no series."""
    runs = read(path)
    if lacking := missing(runs):
        lines = [f"{path} is no series yet; `make bench` goes on with it.", *lacking]
        raise Refused("\n".join(lines))
    return [run for run, why in judged(runs) if not why]


def between(values: Sequence[float], say: Callable[[float], str]) -> str:
    """Returns the lowest and the highest of some values."""
    ends = list(dict.fromkeys((say(min(values)), say(max(values)))))
    return " to ".join(ends)
