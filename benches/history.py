"""Times what readers and history cost, each against what it replaces, in turns, as medians.

Run as root with PYTHONPATH=tests/python: the filesystems are sparse images in `--images`, mounted
where nobody else sees them. Only ratios mean something on a machine that has other things to do.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final, Literal

import atomik
from ground import (
    GIB,
    MKFS,
    Samples,
    elapsed,
    enter_private_mounts,
    in_turns,
    mounted,
    run,
    settle,
    shown,
)

SMALL_FILE: Final = 1 << 10
OPENINGS: Final = 200
"""How many snapshots make one sample: one alone is shorter than what a clock can tell apart."""

_Cleanup = Literal["inline", "background"]


@dataclass(frozen=True)
class Row:
    """One median, in seconds, and how it compares with the first of its case."""

    filesystem: str
    case: str
    way: str
    rounds: int
    median: float
    lowest: float
    ratio: float


def rows(filesystem: str, case: str, samples: Samples, against: dict[str, str]) -> Iterator[Row]:
    """Yields the medians of a case; `against` names what each is compared with."""
    for way, values in samples.items():
        ratio = median(values) / median(samples[against.get(way, way)])
        yield Row(filesystem, case, way, len(values), median(values), min(values), ratio)


# --- Snapshots ---


def bare(path: Path) -> None:
    """Opens, locks and closes a folder: the least that a snapshot must do."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.close(fd)


def with_statement(path: Path) -> None:
    """Opens and closes a snapshot as a body does."""
    with atomik.snapshot(path):
        pass


def guard(path: Path) -> None:
    """Opens and closes a snapshot by the guard's own verb."""
    snapshot = atomik.snapshot(path)
    snapshot.__enter__()
    snapshot.close()


def snapshots(filesystem: str, root: Path, rounds: int) -> Iterator[Row]:
    """Times snapshots against the bare system calls, per opening."""
    path = root / "site"
    path.mkdir()
    (path / "index.html").touch()

    def sample(name: str, do: Callable[[Path], None]) -> Samples:
        def repeat() -> None:
            for _ in range(OPENINGS):
                do(path)

        return {name: [elapsed(repeat) / OPENINGS]}

    ways = {"open+flock+close": bare, "with snapshot": with_statement, "guard, close()": guard}
    samples = in_turns({name: partial(sample, name, do) for name, do in ways.items()}, rounds)
    yield from rows(filesystem, "snapshot", samples, dict.fromkeys(ways, "open+flock+close"))
    shutil.rmtree(path)


# --- Clones ---


def fill(path: Path, files: int, folders: int) -> None:
    """Fills a folder with small files, below as many folders as are asked for."""
    content = os.urandom(SMALL_FILE)
    for number in range(folders):
        (path / f"folder-{number:03}").mkdir(parents=True)
    for number in range(files):
        below = path / f"folder-{number % folders:03}" if folders else path
        (below / f"file-{number:06}").write_bytes(content)


def fill_large(path: Path, gib: int) -> None:
    """Makes a folder of one large file."""
    piece = os.urandom(8 << 20)
    with (path / "large").open("wb") as file:
        for _ in range(gib * GIB // len(piece)):
            file.write(piece)


def clone_and_roll_back(path: Path) -> Samples:
    """Times an update that is given up: its beginning, which is the clone, and all of it."""
    settle(path)
    start = time.perf_counter()
    with (update := atomik.folder(path, update=True, durability="none")):
        cloned = time.perf_counter()
        update.rollback()
    return {"update: enter": [cloned - start], "update: all": [time.perf_counter() - start]}


def copy_and_remove(path: Path) -> Samples:
    """Times `cp -a`, and with it the removal of the copy."""
    settle(path)
    copy = path.with_name("copy")
    copied = elapsed(lambda: run("cp", "-a", "--reflink=auto", path, copy))
    removed = elapsed(lambda: run("rm", "-rf", copy))
    return {"cp -a": [copied], "cp -a; rm -rf": [copied + removed]}


def clones(filesystem: str, root: Path, rounds: int, gib: int) -> Iterator[Row]:
    """Times the clone that an update starts from against `cp -a --reflink=auto`, page cache warm."""
    against = {"update: enter": "cp -a", "update: all": "cp -a; rm -rf"}
    cases: dict[str, Callable[[Path], None]] = {
        "20,000 files in 200": partial(fill, files=20_000, folders=200),
        "20,000 files flat": partial(fill, files=20_000, folders=0),
        f"one file, {gib} GiB": partial(fill_large, gib=gib),
    }
    for case, make in cases.items():
        path = root / "original"
        path.mkdir()
        make(path)
        ways = {"cp": partial(copy_and_remove, path), "update": partial(clone_and_roll_back, path)}
        samples = in_turns(ways, rounds)
        yield from rows(filesystem, case, samples, against)
        shutil.rmtree(path)


# --- Commits ---


def replace(path: Path, files: int, cleanup: _Cleanup) -> float:
    """Replaces a folder of so many files by an empty one, and times nothing but the commit."""
    with atomik.folder(path, overwrite=True, durability="none") as old:
        fill(old, files, files // 100)
    settle(path)
    with (new := atomik.folder(path, overwrite=True, durability="none", cleanup=cleanup)):
        took = elapsed(new.commit)
    while any(name.startswith(".atomik-") for name in os.listdir(path.parent)):  # noqa: PTH208
        time.sleep(0.01)
    return took


def commits(filesystem: str, root: Path, rounds: int) -> Iterator[Row]:
    """Times commits that leave the removal of the old tree to a thread against those that do it."""
    for files in (10, 1_000, 100_000):
        path = root / "replaced"

        def sample(cleanup: _Cleanup, path: Path = path, files: int = files) -> Samples:
            return {cleanup: [replace(path, files, cleanup)]}

        ways = {"inline": partial(sample, "inline"), "background": partial(sample, "background")}
        # Small trees cost nothing, and are noisy.
        samples = in_turns(ways, rounds if files > 1_000 else 4 * rounds)  # noqa: PLR2004
        yield from rows(
            filesystem, f"commit over {files:,}", samples, dict.fromkeys(ways, "inline")
        )
        shutil.rmtree(path)


def measure(options: argparse.Namespace, numbers: Iterator[int]) -> Iterator[Row]:
    """Yields what was asked for, as soon as it is known."""
    measures = {
        "snapshots": partial(snapshots, rounds=40 * options.rounds),
        "clones": partial(clones, rounds=options.rounds, gib=options.gib),
        "commits": partial(commits, rounds=options.rounds),
    }
    for filesystem in options.filesystems:
        # Two copies and some air; a sparse image takes what is written.
        size = (4 + 3 * options.gib) * GIB
        with mounted(filesystem, options.images, size) as root:
            for what in options.what:
                folder = root / str(next(numbers))
                folder.mkdir()
                yield from measures[what](filesystem, folder)


def main() -> int:
    """Measures, prints a table, and writes JSON if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    everything = ["snapshots", "clones", "commits"]
    parser.add_argument("what", nargs="*", default=everything, help="snapshots, clones, commits")
    parser.add_argument("--filesystems", nargs="+", choices=list(MKFS), default=list(MKFS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gib", type=int, default=4, help="size of the one large file")
    parser.add_argument("--images", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if unknown := set(options.what) - set(everything):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    enter_private_mounts()
    before = os.getloadavg()
    print(f"{'':6} {'case':24} {'way':18} {'rounds':>6} {'median':>12} {'lowest':>12} {'ratio':>7}")
    found: list[Row] = []
    for row in measure(options, count()):
        found.append(row)
        times = f"{shown(row.median):>12} {shown(row.lowest):>12} {row.ratio:7.3f}"
        print(f"{row.filesystem:6} {row.case:24} {row.way:18} {row.rounds:6} {times}", flush=True)
    load = [before[0], os.getloadavg()[0]]
    print(f"load before {load[0]:.1f}, after {load[1]:.1f}; {os.cpu_count()} cores")
    if options.json is not None:
        result = {"load": load, "cores": os.cpu_count(), "rows": [asdict(row) for row in found]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
