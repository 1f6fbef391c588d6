"""Makes a series of runs of compare.py, hours long, and goes on with one that was cut.

    python benches/repeat.py RUNS SERIES [--runs N] [--pause MINUTES] -- ARGUMENTS OF compare.py

Each run is appended to `RUNS/COMMIT/series.csv`. A run on a busy machine is marked there, and does not count
(series.py). Between two runs it waits. Before a run it waits until the load is low, but no longer than the pause.
When the series is complete, both of its files are copied to the folder SERIES.
"""

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import atomik
import figures
import machine
import series
from figures import beside
from series import APART, RUNS, Run

COMPARE: Final = Path(__file__).with_name("compare.py")
LOOK: Final = 20
"""Seconds between two looks at the load."""


def append(path: Path, run: Run) -> None:
    """Adds a run: its rows first, for a row whose run is not described does not count."""
    runs = [*series.read(path), run]
    table = io.StringIO(newline="")
    csv.writer(table).writerows(series.lines(runs))
    text = json.dumps([run.about for run in runs], indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomik.write_text(path, table.getvalue(), overwrite=True, newline="")
    atomik.write_text(beside(path), text, overwrite=True)


def wait_for_pause(runs: list[Run], pause: timedelta) -> None:
    """Waits until so much time has passed since the last run."""
    if runs:
        left = datetime.fromisoformat(runs[-1].about["ended"]) + pause - datetime.now(UTC)
        if left > timedelta(0):
            print(f"the next run begins in {series.minutes(left)}", flush=True)
            time.sleep(left.total_seconds())


def wait_for_quiet(longest: timedelta) -> None:
    """Waits until the load is low, but not for ever: a run on a busy machine is made, and marked."""
    end, limit = (
        time.monotonic() + longest.total_seconds(),
        machine.LOAD_BEFORE * (os.cpu_count() or 1),
    )
    while os.getloadavg()[0] > limit and time.monotonic() < end:
        print(f"load {os.getloadavg()[0]:.2f}, to be at most {limit:.2f}", flush=True)
        time.sleep(LOOK)


def parsed() -> argparse.Namespace:
    """Reads what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="runs are kept here")
    parser.add_argument("series", type=Path, help="a complete series is copied to this folder")
    parser.add_argument(
        "--runs", type=int, help="make so many now; default: until the series is complete"
    )
    parser.add_argument(
        "--pause", type=float, default=60, help="minutes between two runs; default: 60"
    )
    parser.add_argument("compare", nargs="+", help="arguments of compare.py")
    options = parser.parse_args()
    if options.runs != 1 and timedelta(minutes=options.pause) < APART:
        parser.error(
            f"runs less than {series.minutes(APART)} apart do not count: a longer --pause, or --runs 1"
        )
    return options


def main() -> int:
    """Makes runs until nothing is missing, or as many as were asked for."""
    options = parsed()
    commit, pause = machine.commit(), timedelta(minutes=options.pause)
    if commit.endswith("+"):
        print(
            "commit first: a series is of one version, and what is measured differs from its last commit.",
            file=sys.stderr,
        )
        return 1
    path, last = options.folder / commit / "series.csv", options.folder / commit / "run.csv"
    # A machine that is never quiet ends this, too.
    for _ in range(options.runs or 3 * RUNS):
        if not series.missing(series.read(path)):
            break
        wait_for_pause(series.read(path), pause)
        wait_for_quiet(pause)
        subprocess.run([sys.executable, COMPARE, *options.compare, "--csv", last], check=True)
        rows, about = figures.read(last)
        if about["commit"] != commit:
            print(
                f"{commit} was built, and {about['commit']} is there now: this run is left out.",
                file=sys.stderr,
            )
            return 1
        append(path, Run(about, tuple(rows)))
        print(*series.missing(series.read(path)), sep="\n", flush=True)
    if lacking := series.missing(series.read(path)):
        print(
            f"{path} is no series yet; `make bench` goes on with it.",
            *lacking,
            sep="\n",
            file=sys.stderr,
        )
        return 1
    for file in (path, beside(path)):
        shutil.copy(file, options.series)
    return 0


if __name__ == "__main__":
    sys.exit(main())
