"""Prints the table of docs/speed.md, Markdown, from the figures of compare.py: what we want, and what was measured.

python benches/aims.py FIGURES.csv
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from figures import Row, read

FILESYSTEMS: Final = ("ext4", "xfs", "btrfs", "tmpfs")
DISKS: Final = FILESYSTEMS[:3]
BARE: Final = "bare system calls"
PLAIN: Final = "bare, in place, not atomic"
SAME: Final = ("os.replace, 2 fsync", "durablewrite", "atomicwrites")
"""Who syncs file and folder, as "full" does."""


@dataclass(frozen=True)
class Case:
    """The rows of one case on one filesystem, by their contestants."""

    rows: dict[str, Row]

    def ratio(self, contestant: str, against: str) -> float:
        """Compares two medians."""
        return self.rows[contestant].median / self.rows[against].median

    def fastest(self, contestants: Sequence[str]) -> str:
        """Says who took least."""
        return min((name for name in contestants if name in self.rows), key=self.median)

    def median(self, contestant: str) -> float:
        """Looks one up."""
        return self.rows[contestant].median


@dataclass(frozen=True)
class Aim:
    """A line of the table."""

    work: str
    against: str
    wanted: str
    where: tuple[str, str, str]
    """Section, durability and case."""
    ratio: Callable[[Case], float]
    filesystems: tuple[str, ...] = FILESYSTEMS
    times_faster: bool = False


def to(contestant: str, *against: str) -> Callable[[Case], float]:
    """Compares with the fastest of some."""
    return lambda case: case.ratio(contestant, case.fastest(against))


def inverse(contestant: str, *against: str) -> Callable[[Case], float]:
    """Says how many times as long the fastest of some takes."""
    return lambda case: case.ratio(case.fastest(against), contestant)


NONE: Final = ("files", "none", "4 KiB")
FULL: Final = ("files", "full", "4 KiB")
MANAGERS: Final = ("safer", "first atomik")
UNSYNCED: Final = ("durablewrite", *MANAGERS)
AIMS: Final = (
    Aim(
        "`write_bytes` 4 KiB, `none`",
        "the bare calls",
        "≤ 1.3 tmpfs, ≤ 1.1 ext4",
        NONE,
        to("atomik.write_bytes", BARE),
    ),
    Aim(
        "`write_bytes` 4 KiB, `none`",
        "the fastest peer",
        "< 1",
        NONE,
        to("atomik.write_bytes", *UNSYNCED),
    ),
    Aim(
        "`file` 4 KiB, `none`",
        "`open`, `os.replace`",
        "≤ 1.4 tmpfs, ≤ 1.1 ext4",
        NONE,
        to("atomik.file", "open, os.replace"),
    ),
    Aim(
        "the fastest other context manager",
        "`file` 4 KiB, `none`",
        "≥ 1.3",
        NONE,
        inverse("atomik.file", *MANAGERS),
    ),
    Aim(
        "`write_bytes` 4 KiB, `full`",
        "the bare calls, 2 `fsync`",
        "≤ 0.65; btrfs ≤ 1.1",
        FULL,
        to("atomik.write_bytes", BARE),
        DISKS,
    ),
    Aim(
        "`file` 4 KiB, `full`",
        "the bare calls, 2 `fsync`",
        "≤ 0.65; btrfs ≤ 1.1",
        FULL,
        to("atomik.file", BARE),
        DISKS,
    ),
    Aim(
        "`write_bytes` 4 KiB, `full`",
        "the fastest peer, same promise",
        "≤ 0.6",
        FULL,
        to("atomik.write_bytes", *SAME),
        DISKS,
    ),
    Aim(
        "`file` 4 KiB, `full`",
        "the fastest peer, same promise",
        "≤ 0.6",
        FULL,
        to("atomik.file", *SAME),
        DISKS,
    ),
    Aim(
        "1,000 new files one by one, bare calls, 2 `fsync`",
        "`group`",
        "≥ 15",
        ("groups", "full", "1,000 files new"),
        inverse("atomik.group", BARE),
        DISKS,
        times_faster=True,
    ),
    Aim(
        "… the fastest peer",
        "`group`",
        "≥ 15",
        ("groups", "full", "1,000 files new"),
        inverse("atomik.group", *SAME),
        DISKS,
        times_faster=True,
    ),
    Aim(
        "1,000 files replaced one by one, bare calls",
        "`group`",
        "≥ 15",
        ("groups", "full", "1,000 files replaced"),
        inverse("atomik.group", BARE),
        DISKS,
        times_faster=True,
    ),
    Aim(
        "`folder` of 2,000 files, `full`",
        "bare `syncfs` and rename",
        "≤ 1.3",
        ("folders", "full", "2,000 files in 20 new"),
        to("atomik.folder", "bare, one syncfs"),
        DISKS,
    ),
    Aim(
        "… replaced",
        "bare `syncfs`, exchange, removal",
        "≤ 1.3",
        ("folders", "full", "2,000 files in 20 replaced"),
        to("atomik.folder", "bare, one syncfs"),
        DISKS,
    ),
    Aim(
        "2,000 files, `fsync` of each",
        "`folder`",
        "≥ 15",
        ("folders", "full", "2,000 files in 20 new"),
        inverse("atomik.folder", "bare, fsync of each"),
        DISKS,
        times_faster=True,
    ),
    Aim(
        "removing 2,000 files in 20 folders",
        "`rm -rf`",
        "≤ 0.7",
        ("removals", "none", "2,000 files in 20"),
        to("atomik, displaced", "rm -rf"),
    ),
    Aim(
        "",
        "`shutil.rmtree`",
        "≤ 0.5",
        ("removals", "none", "2,000 files in 20"),
        to("atomik, displaced", "shutil.rmtree"),
    ),
    Aim(
        "removing 100,000 files in 1,000 folders",
        "`rm -rf`",
        "≤ 0.7",
        ("removals", "none", "100,000 files in 1,000"),
        to("atomik, displaced", "rm -rf"),
    ),
    Aim(
        "",
        "`shutil.rmtree`",
        "≤ 0.5",
        ("removals", "none", "100,000 files in 1,000"),
        to("atomik, displaced", "shutil.rmtree"),
    ),
    Aim(
        "removing 100,000 files in one folder",
        "`rm -rf`",
        "",
        ("removals", "none", "100,000 files flat"),
        to("atomik, displaced", "rm -rf"),
    ),
    Aim(
        "256 MiB in pieces of 1 MiB, `file`",
        "the bare calls, in place",
        "≤ 1.03",
        ("files", "none", "256 MiB in pieces"),
        to("atomik.file", PLAIN),
    ),
)


def cases(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], Case]:
    """Gathers what belongs together."""
    found: dict[tuple[str, str, str, str], Case] = {}
    for row in rows:
        where = (row.filesystem, row.section, row.durability, row.case)
        found.setdefault(where, Case({})).rows[row.contestant] = row
    return found


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the lines."""
    found = cases(rows)
    yield f"| work | against | aim | {' | '.join(FILESYSTEMS)} |"
    yield "| --- " * 3 + "| ---: " * len(FILESYSTEMS) + "|"
    for aim in AIMS:
        cells = []
        for filesystem in FILESYSTEMS:
            case = found.get((filesystem, *aim.where)) if filesystem in aim.filesystems else None
            cells.append(f"{aim.ratio(case):.{1 if aim.times_faster else 2}f}" if case else "")
        yield f"| {aim.work} | {aim.against} | {aim.wanted} | {' | '.join(cells)} |"
    grown = [case.rows["atomik.folder"] for where, case in found.items() if where[1] == "memory"]
    cells = [f"{row.median / (1 << 20):.1f} MiB" for row in grown]
    yield f"| memory of a commit of 100,000 files | before it | ≤ 16 MiB | {' | '.join(cells)} |"


def main() -> None:
    """Prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    print(*table(read(parser.parse_args().figures)[0]), sep="\n")


if __name__ == "__main__":
    main()
