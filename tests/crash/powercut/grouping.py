"""Publishes four versions in a row, each by one group of files, folders and a symlink, into two folders.

A group is not one instant: in a crash state each destination, by itself, is complete old (or absent) or complete new.
What a cut group has staged is in one slot, beside the first destination; the group of the next run removes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import atomik

from powercut import checks, versions
from powercut.interface import Returned
from powercut.publishing import attempt, is_chosen, judge
from powercut.versions import NEXT, NUMBERS, Version
from powercut.ways import FILE_WAYS, READ_ONLY, SYMLINK_WAYS, TREE_WAYS, Durability, Way

_PIECE: Final = 64 << 10


@dataclass(frozen=True)
class Member:
    """One of a group: where it goes, what its versions are like, and how the group gets one."""

    place: str
    way: Way
    """Whose versions it has. It publishes nothing here."""
    add: Callable[[atomik.Group, Path, Version, bool], None]


def _file(group: atomik.Group, place: Path, version: Version, overwrite: bool) -> None:
    (mode,) = version[""].modes
    content = version[""].content
    with group.file(place, "wb", overwrite, permissions=mode) as new:
        for start in range(0, len(content), _PIECE):
            new.write(content[start : start + _PIECE])


def _write_bytes(group: atomik.Group, place: Path, version: Version, overwrite: bool) -> None:
    (mode,) = version[""].modes
    group.write_bytes(place, version[""].content, overwrite=overwrite, permissions=mode)


def _write_text(group: atomik.Group, place: Path, version: Version, overwrite: bool) -> None:
    (mode,) = version[""].modes
    content = version[""].content.decode("ascii")
    group.write_text(place, content, overwrite=overwrite, encoding="ascii", permissions=mode)


def _path(group: atomik.Group, place: Path, version: Version, overwrite: bool) -> None:
    with group.path(place, overwrite=overwrite) as new:
        versions.build(version, new)


def _folder(group: atomik.Group, place: Path, version: Version, overwrite: bool) -> None:
    (mode,) = version[""].modes
    with group.folder(place, overwrite=overwrite, permissions=mode) as new:
        versions.build({**version, "": replace(version[""], modes=(), attributes={})}, new)


def _sized(place: str, length: int) -> Way:
    """Returns files whose mode is set and whose xattrs are kept; no two members have a block in common."""
    return replace(FILE_WAYS[0], seed=place, length=length)


MEMBERS: Final = (
    # The slot of the group is beside the first: here an unnamed file, so that there is no other slot.
    Member("left/text", _sized("text", 100), _write_text),
    Member("right/page", _sized("page", 4096), _write_bytes),
    Member("left/large", _sized("large", 100 << 10), _file),
    Member("right/tree", TREE_WAYS[0], _folder),
    # Its mode and that of what it displaces are set after the publish.
    Member("left/read-only", READ_ONLY, _folder),
    Member("right/link", SYMLINK_WAYS[1], _path),
)
_PARENTS: Final = ("left", "right")


@dataclass
class Grouping:
    """Publishes four versions of all members: over one set of destinations, or each as a new set of its own."""

    replaced: bool
    durability: Durability
    """"none" is judged as "ordered", and must fail: the engine's own test."""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"group-{'replace' if self.replaced else 'new'}-{self.durability}"

    def prepare(self, here: Path) -> None:
        for parent in _PARENTS:
            (here / parent).mkdir()
        if self.replaced:
            for member in MEMBERS:
                versions.build(member.way.version(0, replaced=True), self._place(here, member, 0))

    def run(self, here: Path, returned: Returned) -> None:
        for number in NUMBERS:
            self._publish(here, number, number, self.durability, overwrite=self.replaced)
            returned(str(number))

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        newest = max(map(int, returned), default=0)
        durable = newest if self.durability == "full" else 0
        problems: list[str] = []
        for member in MEMBERS:
            verdict = judge(
                member.way,
                partial(self._place, here, member),
                replaced=self.replaced,
                newest=newest,
                durable=durable,
            )
            problems += verdict.problems
        return problems or self._check_beside(here, newest)

    def _check_beside(self, here: Path, newest: int) -> list[str]:
        """Wants at most one orphan a destination, and none after the groups that had left them have run again."""
        groups = {
            self._place(here, member, number).name: number
            for member in MEMBERS
            for number in range(versions.COUNT + 1)
        }
        folders = [here / parent for parent in _PARENTS]
        problems = [problem for at in folders for problem in checks.litter(at, groups)]
        if problems:
            return problems
        waiting = {groups[name] for at in folders for name in checks.orphans(at)}
        if not waiting and is_chosen(folders[0], newest):
            waiting = {max(newest, 1)}
        for number in sorted(waiting):
            problems += self._next_writer(here, number)
        left = [name for at in folders for names in checks.orphans(at).values() for name in names]
        return problems + ([f"next writer: left {' '.join(left)}"] if left else [])

    def _next_writer(self, here: Path, number: int) -> list[str]:
        """Publishes to the destinations of group `number` once more, as the program would when it runs again."""
        problems = attempt(lambda: self._publish(here, number, NEXT, "none", overwrite=True))
        if problems:
            return problems
        return [
            f"next writer: {problem}"
            for member in MEMBERS
            for problem in checks.judge(
                self._place(here, member, number),
                {NEXT: member.way.version(NEXT, replaced=self.replaced)},
            ).problems
        ]

    def _publish(
        self, here: Path, where: int, number: int, durability: Durability, *, overwrite: bool
    ) -> None:
        with atomik.group(durability=durability) as group:
            for member in MEMBERS:
                version = member.way.version(number, replaced=False)
                member.add(group, self._place(here, member, where), version, overwrite)

    def _place(self, here: Path, member: Member, number: int) -> Path:
        return here / (member.place if self.replaced else f"{member.place}-{number}")
