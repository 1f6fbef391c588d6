"""Writes the figures of docs/speed.md from a series of runs: each ratio from the lowest to the highest of the runs.

    python benches/page.py SERIES.csv [docs/speed.md]     prints the section, or writes it into the page
    python benches/page.py FIGURES.csv --development      prints the tables of one run, which are not to be quoted

Refuses a series that is too short (series.py says what it takes).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import series
from aims import AIMS, ALL, DISKS, FOLDER, FULL, GROUP_NEW, TREE_NEW, rows_of
from figures import read
from ground import shown
from place import FLUSHES
from series import Refused, Run, between

MEMORY: Final = ("memory", "full", "100,000 files in 1,000")
MOST_MEMORY: Final = 16.0
"""MiB."""

FLUSHED: Final = (
    ("4 KiB overwritten, `fdatasync`", FULL, FLUSHES["fdatasync"]),
    ("4 KiB overwritten, `fsync`", FULL, FLUSHES["fsync"]),
    ("4 KiB overwritten, `syncfs`", FULL, FLUSHES["syncfs"]),
    ("1,000 new files of 4 KiB, `syncfs`", GROUP_NEW, FLUSHES["syncfs"]),
    ("2,000 new files of 4 KiB, `syncfs`", TREE_NEW, FLUSHES["syncfs"]),
)
"""Calls by themselves: what is timed, where, and by which name."""


def heading(*columns: str, filesystems: Sequence[str]) -> Iterator[str]:
    """Yields the head of a table."""
    yield f"| {' | '.join((*columns, *filesystems))} |"
    yield "| --- " * len(columns) + "| ---: " * len(filesystems) + "|"


def flushes(runs: Sequence[Run]) -> Iterator[str]:
    """Yields the table of what the disk's own calls take."""
    yield from heading("a bare call by itself", filesystems=DISKS)
    for what, where, name in FLUSHED:
        cells = []
        for filesystem in DISKS:
            cases = [rows_of(run, filesystem, where) for run in runs]
            times = [case[name].median for case in cases if name in case]
            cells.append(between(times, lambda time: shown(time).strip()) if times else "")
        yield f"| {what} | {' | '.join(cells)} |"


def table(runs: Sequence[Run]) -> Iterator[str]:
    """Yields the table of aims; one run of a part has only some of them."""
    yield from heading("work", "against", "aim", filesystems=ALL)
    for aim in AIMS:
        cells = [aim.cell(filesystem, runs) for filesystem in ALL]
        if any(cells):
            yield f"| {aim.work} | {aim.against} | {aim.wanted()} | {' | '.join(cells)} |"
    cells = [memory(filesystem, runs) for filesystem in ALL]
    if any(cells):
        yield f"| memory of a commit of 100,000 files | before it | ≤ {MOST_MEMORY:g} MiB | {' | '.join(cells)} |"


def memory(filesystem: str, runs: Sequence[Run]) -> str:
    """Returns how much more memory a commit takes at most."""
    cases = [rows_of(run, filesystem, MEMORY) for run in runs]
    grown = [case[FOLDER].median / (1 << 20) for case in cases if case]
    if not grown:
        return ""
    return (
        f"{between(grown, '{:.1f} MiB'.format)} {'met' if max(grown) <= MOST_MEMORY else 'missed'}"
    )


# --- The page ---

BEGIN: Final = "<!-- figures: written by `make bench` -->"
END: Final = "<!-- end of figures -->"
NO_SERIES: Final = "No series has been made of this version yet: no table, no picture. `make bench` writes them here."
PICTURES: Final = (
    ("file-full", "Replacing a file, content and folder synced"),
    ("file-none", "Replacing a file, nothing synced"),
    ("group", "Publishing many files, all synced"),
    ("folder", "Publishing a folder, all synced"),
    ("removal", "Removing a folder"),
)


def section(runs: Sequence[Run]) -> Iterator[str]:
    """Yields what stands between the two marks of the page; of no runs, that there is no series."""
    if not runs:
        yield NO_SERIES
        return
    about = runs[-1].about
    yield (
        f"{len(runs)} runs from {runs[0].about['began']} to {about['ended']}, commit {about['commit']}, on "
        f"{about['processor']}, {about['cores']} cores, {about['memory']}, {about['kernel']}, {about['python']}. The "
        f"filesystems are images on {about['images'].split()[0]} ({about['disk']}), mounted with:"
    )
    yield ""
    yield from (f"- {name}: `{how}`" for name, how in about["filesystems"].items())
    yield ""
    yield from flushes(runs)
    yield ""
    yield "Each cell is the lowest and the highest ratio of the runs; an aim is met if all runs have met it."
    yield ""
    yield from table(runs)
    for name, title in PICTURES:
        yield ""
        yield f"![{title}](speed/{name}.svg)"
    yield ""
    yield "All rounds of all runs are in [series.csv](speed/series.csv), what ran in [series.json](speed/series.json)."


def written(page: str, runs: Sequence[Run]) -> str:
    """Returns the page with the section of these runs."""
    before, rest = page.split(BEGIN + "\n")
    after = rest.split(END)[1]
    return "\n".join((before + BEGIN, *section(runs), END)) + after


def main() -> int:
    """Prints or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("page", type=Path, nargs="?", help="write the section into this page")
    parser.add_argument("--development", action="store_true", help="one run, of any kind")
    options = parser.parse_args()
    if options.development:
        rows, about = read(options.figures)
        print("One run, for development: not to be quoted.")
        one = [Run(about, tuple(rows))]
        print(*flushes(one), "", *table(one), sep="\n")
        return 0
    try:
        runs = series.complete(options.figures)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    if options.page:
        options.page.write_text(written(options.page.read_text("utf-8"), runs), "utf-8")
    else:
        print(*section(runs), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
