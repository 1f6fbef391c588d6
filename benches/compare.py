"""Compares atomik with the bare system calls, with what people write by hand, and with other libraries.

Everybody takes turns within one run, at equal durability (contestants.py says who promises what), and what was
published is read back. Run as root with PYTHONPATH=tests/python; `make bench` does, with all environments. Prints
medians, and ratios to the median of the bare system calls, or of what a case names in their place.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from contestants import Home
from figures import Book, Row
from ground import FILESYSTEMS, GIB, Child, enter_private_mounts, environment, mounted, shown
from scale import QUICK, REAL
from sections import SECTIONS, Place

WORKER: Final = Path(__file__).with_name("worker.py")
LIBRARIES: Final[dict[Home, tuple[str, ...]]] = {
    "here": ("atomik",),
    "peers": ("atomicwriter", "atomicwrites", "boltons", "durablewrite", "safer"),
    "first": ("atomik",),
}
TOOLS: Final = (("mkfs.ext4", "-V"), ("mkfs.xfs", "-V"), ("mkfs.btrfs", "--version"))
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


def first_line(*command: str) -> str:
    """Says what a program prints first, wherever."""
    ran = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return ran.stdout.splitlines()[0].strip()


def field(path: str, name: str) -> str:
    """Reads a field of a file in /proc."""
    lines = Path(path).read_text("utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "?")


def machine(options: argparse.Namespace, workers: dict[Home, Child]) -> dict[str, Any]:
    """Describes what the figures belong to."""
    asked = {home: child.ask("versions", *LIBRARIES[home]) for home, child in workers.items()}
    python = asked["here"][0]
    packages = [version for answer in asked.values() for version in answer[1:]]
    if "first" in asked:
        packages[-1] = f"first {packages[-1]}"
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": f"{int(field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "images": first_line("findmnt", "-no", "FSTYPE", "-T", str(options.images)),
        "tools": [first_line(*tool) for tool in TOOLS],
        "python": python,
        "packages": packages,
        "quick": options.quick,
        "load": os.getloadavg(),
    }


def measure(
    options: argparse.Namespace, bare: Child, workers: dict[Home, Child]
) -> Iterator[tuple[Row, float]]:
    """Yields what was asked for as soon as it is known, and when that was."""
    start = time.monotonic()
    for filesystem in options.filesystem or FILESYSTEMS:
        with mounted(filesystem, options.images, SIZE) as root:
            place = Place(
                filesystem,
                root,
                QUICK if options.quick else REAL,
                bare,
                workers,
                partial(worker, "here", options),
            )
            for section in options.section or SECTIONS:
                for row in SECTIONS[section](place):
                    yield row, time.monotonic() - start


def line(row: Row) -> str:
    """Says one row in a table."""
    if row.unit == "B":
        return f"  {row.contestant:28} {row.median / (1 << 10):9,.0f} KiB"
    times = f"{shown(row.median):>12} {shown(row.lowest):>12}"
    return f"  {row.contestant:28} {row.rounds:2} {times} {row.ratio:8.2f}"


def parsed() -> argparse.Namespace:
    """Reads what is asked for."""
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
    with ExitStack() as living:
        bare = living.enter_context(Child([options.bare], environment()))
        there: list[Home] = ["here"]
        there += ["peers"] if options.peers else []
        there += ["first"] if options.first else []
        workers = {home: living.enter_context(worker(home, options)) for home in there}
        about = machine(options, workers)
        for key, value in about.items():
            print(f"{key:10} {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")  # fmt: skip
        book = Book(options.csv, about) if options.csv else None
        case = None
        took = 0.0
        for row, took in measure(options, bare, workers):  # noqa: B007 - the last is wanted
            if case != (case := (row.section, row.filesystem, row.durability, row.case)):
                print(f"\n{TITLE} {', '.join(case)}; ratio to: {row.reference}")
            print(line(row), flush=True)
            if book:
                book.add(row)
    print(f"\n{took:.0f} s; load {about['load'][0]:.1f} before, {os.getloadavg()[0]:.1f} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
