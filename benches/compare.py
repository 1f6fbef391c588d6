"""Compares atomik with the bare system calls, with what people write by hand, and with other libraries: one run.

All contestants take turns within one run, at equal durability (contestants.py has the promise of each), and the files
that they publish are read back. Needs root and PYTHONPATH=tests/python; `make bench` gives it all environments. Prints
medians, and ratios to the median of the bare system calls, or of the contestant that a case names in their place.
One run supports no claim: repeat.py makes a series of runs.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import machine
from contestants import Home
from figures import Book, Row
from ground import FILESYSTEMS, GIB, Child, enter_private_mounts, environment, mounted, shown
from history import clones, commits, snapshots
from place import Place
from scale import QUICK, REAL
from sections import files, folders, groups, growth, memory, removals

WORKER: Final = Path(__file__).with_name("worker.py")
LIBRARIES: Final[dict[Home, tuple[str, ...]]] = {
    "here": ("atomik",),
    "peers": ("atomicwriter", "atomicwrites", "boltons", "durablewrite", "safer"),
    "first": ("atomik",),
}
SECTIONS: Final[dict[str, Callable[[Place], Iterator[Row]]]] = {
    section.__name__: section
    for section in (files, groups, folders, removals, memory, growth, snapshots, clones, commits)
}
SIZE: Final = 6 * GIB
"""Of each filesystem: two folders of 100,000 files, or some files of 256 MiB, and air."""
TITLE: Final = "=" * 3


def worker(home: Home, options: argparse.Namespace) -> Child:
    """Starts a worker in one of the environments."""
    if home == "peers":
        return Child([options.peers / "bin" / "python", WORKER], environment())
    if home == "first":
        return Child([sys.executable, WORKER], environment(PYTHONPATH=str(options.first)))
    return Child([sys.executable, WORKER], os.environ)


def versions(workers: dict[Home, Child]) -> tuple[str, list[str]]:
    """Returns which Python runs, and which versions of the libraries."""
    asked = {home: child.ask("versions", *LIBRARIES[home]) for home, child in workers.items()}
    packages = [version for answer in asked.values() for version in answer[1:]]
    if "first" in asked:
        packages[-1] = f"first {packages[-1]}"
    return asked["here"][0], packages


def now() -> str:
    """Returns the time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def measure(
    options: argparse.Namespace,
    bare: Child,
    workers: dict[Home, Child],
    control: machine.Control,
    about: dict[str, Any],
) -> Iterator[Row]:
    """Yields each row as soon as it is measured, and describes the filesystems in `about`."""
    for filesystem in options.filesystem or FILESYSTEMS:
        with mounted(filesystem, options.images, SIZE) as root:
            about["filesystems"][filesystem] = machine.mount(root)
            place = Place(
                filesystem,
                root,
                QUICK if options.quick else REAL,
                bare,
                workers,
                partial(worker, "here", options),
            )
            for section in options.section or SECTIONS:
                control.sample()
                yield from SECTIONS[section](place)
    control.sample()


def line(row: Row) -> str:
    """Returns one row in a table."""
    if row.unit == "B":
        return f"  {row.contestant:28} {row.median / (1 << 10):9,.0f} KiB"
    times = f"{shown(row.median):>12} {shown(row.lowest):>12}"
    return f"  {row.contestant:28} {row.rounds:2} {times} {row.ratio:8.2f}"


def parsed() -> argparse.Namespace:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny, in seconds: does it run?")
    parser.add_argument("--section", action="append", choices=list(SECTIONS), help="default: all")
    parser.add_argument("--filesystem", action="append", choices=FILESYSTEMS, help="default: all")
    parser.add_argument("--bare", type=Path, required=True, help="the program of bare.rs")
    parser.add_argument("--peers", type=Path, help="environment of the other libraries")
    parser.add_argument("--first", type=Path, help="folder that the first atomik is installed in")
    parser.add_argument("--csv", type=Path, help="write the figures here, and beside it what ran")
    parser.add_argument("--images", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args()


def main() -> int:
    """Measures, prints tables, and writes CSV if that is asked for."""
    options = parsed()
    # An end by `kill` or `timeout` unmounts, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    enter_private_mounts()
    about: dict[str, Any] = {"began": now(), **machine.facts(options.images), "filesystems": {}}
    about |= {"quick": options.quick, "part": bool(options.section or options.filesystem)}
    start = time.monotonic()
    with ExitStack() as living:
        bare = living.enter_context(Child([options.bare], environment()))
        there: list[Home] = ["here"]
        there += ["peers"] if options.peers else []
        there += ["first"] if options.first else []
        workers = {home: living.enter_context(worker(home, options)) for home in there}
        about["python"], about["packages"] = versions(workers)
        for key, value in about.items():
            print(f"{key:10} {', '.join(map(str, value)) if isinstance(value, list) else value}")
        book = Book(options.csv, about) if options.csv else None
        folder = tempfile.TemporaryDirectory(prefix="atomik-bench-", dir=options.images)
        control = machine.Control(bare, Path(living.enter_context(folder)))
        case = None
        for row in measure(options, bare, workers, control, about):
            if case != (case := (row.section, row.filesystem, row.durability, row.case)):
                print(f"\n{TITLE} {', '.join(case)}; ratio to: {row.reference}")
            print(line(row), flush=True)
            if book:
                book.add(row)
        about |= control.found()
    about |= {"ended": now(), "disturbed": machine.disturbed(about)}
    if book:
        book.describe(about)
    print(
        f"\n{time.monotonic() - start:.0f} s; load {about['load']}, controls {about['work']}, {about['flush']}"
    )
    for why in about["disturbed"]:
        print(f"disturbed: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
