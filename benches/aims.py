"""The aims of the library: ratios to a floor or to a rival, and whether the runs of a series meet them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from figures import Row
from place import (
    BARE,
    BARE_LINKED,
    BARE_ONE,
    BARE_SYNCFS,
    BARE_WALK,
    FLUSHES,
    OPENED,
    PLAIN,
    UNSYNCED,
)
from series import Run, between

ALL: Final = ("ext4", "xfs", "btrfs", "tmpfs")
DISKS: Final = ALL[:3]
RECIPE: Final = "open, os.replace"
SAME: Final = ("os.replace, 2 fsync", "durablewrite", "atomicwrites")
"""The contestants that sync file and folder, as "full" does."""
MANAGERS: Final = ("safer", "first atomik")
NOT_SYNCED: Final = ("durablewrite", *MANAGERS)

Where = tuple[str, str, str]
"""Section, durability and case."""
Case = Mapping[str, Row]
"""The rows of one case on one filesystem in one run, by their contestants."""


@dataclass(frozen=True)
class Aim:
    """A line of the table: the time of one contestant, as a multiple of the time of the fastest of its rivals."""

    work: str
    against: str
    where: Where
    ours: str
    others: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    """The highest ratio that meets the aim, by filesystem."""
    filesystems: tuple[str, ...] = ALL
    faster: bool = False
    """The ratio is turned round: the rivals take so many times as long, and the aim is met from the limit on."""

    def ratio(self, case: Case) -> float | None:
        """Divides two medians of one run; none if the run lacks one of them."""
        others = [case[name].median for name in self.others if name in case]
        if self.ours not in case or not others:
            return None
        ratio = case[self.ours].median / min(others)
        return 1 / ratio if self.faster else ratio

    def wanted(self) -> str:
        """Returns the limits, in words."""
        sign = "≥" if self.faster else "≤"
        by_limit: dict[float, list[str]] = {}
        for filesystem, limit in self.limits.items():
            by_limit.setdefault(limit, []).append(filesystem)
        everywhere = len(by_limit) == 1 and set(self.limits) == set(self.filesystems)
        names = [
            ("" if everywhere else ", ".join(of) + " ", limit) for limit, of in by_limit.items()
        ]
        return "; ".join(f"{of}{sign} {limit:g}" for of, limit in names)

    def cell(self, filesystem: str, runs: Sequence[Run]) -> str:
        """Returns the lowest and the highest ratio of the runs, and whether all of them meet the aim."""
        found = [self.ratio(case) for run in runs if (case := rows_of(run, filesystem, self.where))]
        ratios = [ratio for ratio in found if ratio is not None]
        if filesystem not in self.filesystems or not ratios:
            return ""
        said = between(ratios, "{:.1f}".format if self.faster else "{:.2f}".format)
        if (limit := self.limits.get(filesystem)) is None:
            return said
        met = min(ratios) >= limit if self.faster else max(ratios) <= limit
        return f"{said} {'met' if met else 'missed'}"


def rows_of(run: Run, filesystem: str, where: Where) -> Case:
    """Gathers the rows of a case."""
    place = (where[0], filesystem, *where[1:])
    return {
        row.contestant: row
        for row in run.rows
        if (row.section, row.filesystem, row.durability, row.case) == place
    }


def on(filesystems: Sequence[str], limit: float) -> dict[str, float]:
    """Sets one limit for several filesystems."""
    return dict.fromkeys(filesystems, limit)


NONE: Final = ("files", "none", "4 KiB")
FULL: Final = ("files", "full", "4 KiB")
PIECES: Final = ("files", "none", "256 MiB in pieces")
TEN_NEW: Final = ("folders", "none", "10 files new")
TEN_OLD: Final = ("folders", "none", "10 files replaced")
GROUP_NEW: Final = ("groups", "full", "1,000 files new")
GROUP_OLD: Final = ("groups", "full", "1,000 files replaced")
TREE_NEW: Final = ("folders", "full", "2,000 files in 20 new")
TREE_OLD: Final = ("folders", "full", "2,000 files in 20 replaced")
SNAPSHOT: Final = ("snapshots", "none", "opened and closed")
CLONE: Final = ("clones", "none", "20,000 files in 200, copied and removed")
CLONED: Final = ("clones", "none", "one file, 1 GiB, copied and removed")
COMMIT: Final = ("commits", "none", "over 100,000 files in 1,000")
GROWTH: Final = ("growth", "full", "atomik.folder, each file")
TREE_GONE: Final = ("removals", "none", "2,000 files in 20")
FOREST_GONE: Final = ("removals", "none", "100,000 files in 1,000")
FLAT_GONE: Final = ("removals", "none", "100,000 files flat")

WRITE: Final = "atomik.write_bytes"
FILE: Final = "atomik.file"
FOLDER: Final = "atomik.folder"
GROUP: Final = "atomik.group"
DISPLACED: Final = "atomik, displaced"
FIRST: Final = ("first atomik",)
RM: Final = ("rm -rf",)
RMTREE: Final = ("shutil.rmtree",)
WRITE_FULL: Final = "`write_bytes` 4 KiB, `full`"
FILE_FULL: Final = "`file` 4 KiB, `full`"
WRITE_NONE: Final = "`write_bytes` 4 KiB, `none`"
FILE_NONE: Final = "`file` 4 KiB, `none`"
BY_HAND: Final = "`open`, `write`, `os.replace`"
UNSAFE: Final = f"{BY_HAND}, nothing synced"
FLOOR: Final = "the floor: the fastest bare calls"
TWICE: Final = "bare calls with two `fsync`"
PEER: Final = "the fastest peer, same promise"

ONE_FLUSH: Final = {"ext4": 0.65, "xfs": 0.65, "btrfs": 1.1}
"""Of two flushes, one is left on ext4 and xfs."""

AIMS: Final = (
    # The default, beside what most people write.
    Aim(WRITE_FULL, UNSAFE, FULL, WRITE, (UNSYNCED,), filesystems=DISKS),
    Aim(FILE_FULL, UNSAFE, FULL, FILE, (UNSYNCED,), filesystems=DISKS),
    # The default, beside the disk and its equals.
    Aim(WRITE_FULL, "one bare `fdatasync`", FULL, WRITE, (FLUSHES["fdatasync"],), filesystems=DISKS),
    Aim(WRITE_FULL, FLOOR, FULL, WRITE, (BARE, BARE_ONE), filesystems=DISKS),
    Aim(FILE_FULL, FLOOR, FULL, FILE, (BARE, BARE_ONE), filesystems=DISKS),
    Aim(WRITE_FULL, TWICE, FULL, WRITE, (BARE,), ONE_FLUSH, DISKS),
    Aim(FILE_FULL, TWICE, FULL, FILE, (BARE,), ONE_FLUSH, DISKS),
    Aim(WRITE_FULL, PEER, FULL, WRITE, SAME, on(DISKS, 0.6), DISKS),
    Aim(FILE_FULL, PEER, FULL, FILE, SAME, on(DISKS, 0.6), DISKS),
    # Without a sync.
    Aim(WRITE_NONE, BY_HAND, NONE, WRITE, (RECIPE,), {"ext4": 1.05, "tmpfs": 1.3}),
    Aim(FILE_NONE, BY_HAND, NONE, FILE, (RECIPE,), {"ext4": 1.3, "tmpfs": 1.6}),
    Aim(WRITE_NONE, "the bare calls", NONE, WRITE, (BARE,)),
    Aim(WRITE_NONE, "the fastest peer", NONE, WRITE, NOT_SYNCED, on(ALL, 1)),
    Aim("the fastest other context manager", FILE_NONE, NONE, FILE, MANAGERS, on(ALL, 1.3), faster=True),
    Aim("`folder` of 10 new files, `none`", "`os.rename`", TEN_NEW, FOLDER, ("os.rename",)),
    Aim("`folder` of 10 new files, `none`", "the first release", TEN_NEW, FOLDER, FIRST, on(ALL, 1)),
    Aim("`folder` of 10 replaced, `none`", "`os.rename`, removal", TEN_OLD, FOLDER, ("os.rename",)),
    Aim("`folder` of 10 replaced, `none`", "the first release", TEN_OLD, FOLDER, FIRST, on(ALL, 1)),
    # Many at once. The floor of a group: all written, one `syncfs`, all published, one `fsync` of the folder.
    Aim("`group` of 1,000 new files", FLOOR, GROUP_NEW, GROUP, (BARE_SYNCFS, BARE_LINKED), on(DISKS, 1.25), DISKS),
    Aim("`group` of 1,000 replaced files", FLOOR, GROUP_OLD, GROUP, (BARE_SYNCFS,), on(DISKS, 1.5), DISKS),
    Aim("1,000 new files one by one", "`group`", GROUP_NEW, GROUP, (BARE,), on(DISKS, 15), DISKS, faster=True),
    Aim("… the fastest peer", "`group`", GROUP_NEW, GROUP, SAME, on(DISKS, 15), DISKS, faster=True),
    Aim("1,000 files replaced one by one", "`group`", GROUP_OLD, GROUP, (BARE,), on(DISKS, 15), DISKS, faster=True),
    Aim("`folder` of 2,000 new files, `full`", "bare `syncfs` and rename",
        TREE_NEW, FOLDER, (BARE_SYNCFS,), on(DISKS, 1.3), DISKS),
    Aim("`folder` of 2,000 replaced, `full`", "bare `syncfs`, exchange, removal",
        TREE_OLD, FOLDER, (BARE_SYNCFS,), on(DISKS, 1.3), DISKS),
    Aim("2,000 new files, `fsync` of each", "`folder`",
        TREE_NEW, FOLDER, (BARE_WALK,), on(DISKS, 15), DISKS, faster=True),
    # What readers and history cost.
    Aim("`snapshot` opened and closed", "bare `open`, `flock`, `close`", SNAPSHOT, "atomik.snapshot", (OPENED,)),
    Aim("`update=True` of 20,000 files, rolled back", "`cp -a`, `rm -rf`", CLONE, "update", ("cp -a",), on(ALL, 1)),
    Aim("`update=True` of one GiB, rolled back", "`cp -a`, `rm -rf`", CLONED, "update", ("cp -a",), on(ALL, 1)),
    Aim('a commit over 100,000 files, `"inline"`', '`"background"`', COMMIT, "background", ("inline",), faster=True),
    # What grows, and what is removed.
    Aim("a file's share of a commit of 100,000", "of 1,000",
        GROWTH, "100,000 files in 1,000", ("1,000 files in 10",), on(ALL, 1)),
    Aim("removing 2,000 files in 20 folders", "`rm -rf`", TREE_GONE, DISPLACED, RM, on(ALL, 0.7)),
    Aim("removing 2,000 files in 20 folders", "`shutil.rmtree`", TREE_GONE, DISPLACED, RMTREE, on(ALL, 0.5)),
    Aim("removing 100,000 files in 1,000 folders", "`rm -rf`", FOREST_GONE, DISPLACED, RM, on(ALL, 0.7)),
    Aim("removing 100,000 files in 1,000 folders", "`shutil.rmtree`", FOREST_GONE, DISPLACED, RMTREE, on(ALL, 0.5)),
    Aim("removing 100,000 files in one folder", "`rm -rf`", FLAT_GONE, DISPLACED, RM),
    Aim("256 MiB in pieces of 1 MiB, `file`", "the bare calls, in place", PIECES, FILE, (PLAIN,), on(ALL, 1.03)),
)  # fmt: skip
