"""The figures of one run: a table of medians, written as they come, and beside it a description of the machine."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, Final

from ground import Samples


@dataclass(frozen=True)
class Row:
    """What one contestant took in one case: seconds, unless `unit` says otherwise."""

    section: str
    filesystem: str
    durability: str
    case: str
    contestant: str
    rounds: int
    median: float
    lowest: float
    ratio: float
    """To the median of the reference."""
    reference: str
    unit: str
    samples: str
    """All of them, in the order in which they were taken."""


COLUMNS: Final = [field.name for field in fields(Row)]


def rows(
    place: tuple[str, str, str, str], samples: Samples, reference: str, unit: str = "s"
) -> Iterator[Row]:
    """Yields a row for each contestant; `place` is section, filesystem, durability and case."""
    against = median(samples[reference])
    for contestant, values in samples.items():
        middle, every = median(values), " ".join(f"{value:.4g}" for value in values)
        ratio = middle / against if against else float("nan")
        yield Row(
            *place, contestant, len(values), middle, min(values), ratio, reference, unit, every
        )


def row(line: Mapping[str, str]) -> Row:
    """Makes a row of a line of a CSV file."""
    return Row(**{field.name: field.type(line[field.name]) for field in fields(Row)})  # type: ignore[operator]


class Book:
    """A CSV file that is complete up to the last row, whenever the run is cut; beside it, a JSON of what ran."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.describe(about)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def add(self, row: Row) -> None:
        """Writes a row, and lets go of the file."""
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([getattr(row, name) for name in COLUMNS])

    def describe(self, about: Mapping[str, Any]) -> None:
        """Writes what ran, again when more of it is known."""
        beside(self._path).write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def beside(path: Path) -> Path:
    """Returns where the machine of a CSV file is described."""
    return path.with_suffix(".json")


def read(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Reads what a `Book` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        found = [row(line) for line in csv.DictReader(file)]
    return found, json.loads(beside(path).read_text("utf-8"))
