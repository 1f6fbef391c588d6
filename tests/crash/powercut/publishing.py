"""Publishes four versions in a row, so that cuts fall into, between and after commits.

Everything happens in one folder, `parent`. A crash state shows one complete version at the destination and, beside it,
at most one orphan; with a backup, also the version before that one, or until the commit has returned the one before
that. That the next writer removes the orphan is tried wherever one lies; where none does, the next writer is tried in a
share of the states, for all of them would double the time.
"""

import os
import stat
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from powercut import checks, versions
from powercut.checks import Verdict
from powercut.interface import Returned
from powercut.staging import without_unnamed_files
from powercut.versions import MISSING, NEXT, NUMBERS, Version
from powercut.ways import Durability, How, Way

Staging: TypeAlias = Literal["unnamed", "named", "elsewhere"]

_SHARE: Final = 8
"""In one of so many crash states without an orphan another writer is tried, too."""


BACKUP: Final = "before"


@dataclass
class Publishing:
    """Publishes four versions: over one destination, or each as a new destination of its own."""

    way: Way
    replaced: bool
    durability: Durability
    """"none" is judged as "ordered", and must fail: the engine's own test."""
    staging: Staging = "unnamed"
    backup: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        kind = "replace" if self.replaced else "new"
        where = () if self.staging == "unnamed" else (self.staging,)
        also = ("backup",) if self.backup else ()
        self.name = "-".join((self.way.name, kind, self.durability, self.way.size, *where, *also))

    def prepare(self, here: Path) -> None:
        (here / "parent").mkdir()
        (here / "staging").mkdir()
        if self.replaced:
            versions.build(self.way.version(0, replaced=True), self._place(here, 0))

    def run(self, here: Path, returned: Returned) -> None:
        threads = running_threads()
        for number in NUMBERS:
            self._publish(here, number, self.durability, overwrite=self.replaced)
            returned(str(number))
            wait_for_threads_but(threads)

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        newest = max(map(int, returned), default=0)
        durable = newest if self.durability == "full" else 0
        problems = self._check_content(here, newest, durable)
        return problems or self._check_beside(here, newest)

    def _check_content(self, here: Path, newest: int, durable: int) -> list[str]:
        verdict = judge(
            self.way,
            lambda number: self._place(here, number),
            replaced=self.replaced,
            newest=newest,
            durable=durable,
        )
        if self.backup and verdict.version is not None:
            return verdict.problems + self._check_backup(here, verdict.version, durable)
        return verdict.problems

    def _check_backup(self, here: Path, live: int, durable: int) -> list[str]:
        """The displaced version takes the backup's name just after the publish, so the one before may still have it."""
        numbers = range(versions.COUNT + 1)
        known = {-1: MISSING} | {number: self._expected(number, durable) for number in numbers}
        at_least = max(durable - 1, live - 2, -1)
        return checks.judge(here / "parent" / BACKUP, known, at_least, live - 1).problems

    def _expected(self, number: int, durable: int) -> Version:
        return expected(self.way, number, durable, replaced=self.replaced)

    def _check_beside(self, here: Path, newest: int) -> list[str]:
        known = {self._place(here, number).name for number in range(versions.COUNT + 1)}
        known |= {BACKUP} if self.backup else set()
        folders = (here / "parent", here / "staging")
        problems = [problem for at in folders for problem in checks.litter(at, known)]
        if problems:
            return problems
        waiting = {name for at in folders for name in checks.orphans(at)}
        if not waiting and is_chosen(here / "parent", newest):
            waiting = {self._place(here, max(newest, 1)).name}
        for name in sorted(waiting):
            problems += self._next_writer(here, name)
        left = [name for at in folders for names in checks.orphans(at).values() for name in names]
        return problems + ([f"next writer: left {' '.join(left)}"] if left else [])

    def _next_writer(self, here: Path, name: str) -> list[str]:
        """Publishes once more in the crash state, as the program would when it runs again."""
        place = here / "parent" / name
        base = self._present(here, place)
        problems = attempt(lambda: self._publish(here, NEXT, "none", overwrite=True, name=name))
        if problems:
            return problems
        published = {NEXT: self.way.next_version(base, replaced=self.replaced)}
        found = checks.judge(place, published).problems
        if self.backup:
            displaced = {base: self._expected(base, durable=0)}
            found += checks.judge(here / "parent" / BACKUP, displaced).problems
        return [f"next writer: {problem}" for problem in found]

    def _present(self, here: Path, place: Path) -> int:
        """Returns which version stands at `place` in a crash state that has been checked; 0, too, where none does."""
        known = {
            number: self._expected(number, durable=0)
            for number in range(versions.COUNT + 1)
            if self._place(here, number) == place
        }
        return checks.judge(place, known).version or 0

    def _publish(
        self,
        here: Path,
        number: int,
        durability: Durability,
        *,
        overwrite: bool,
        name: str | None = None,
    ) -> None:
        place = self._place(here, number) if name is None else here / "parent" / name
        how: How = {"overwrite": overwrite, "durability": durability}
        if self.backup:
            how["backup"] = BACKUP
        match self.staging:
            case "unnamed":
                self.way.publish(place, number, how)
            case "elsewhere":
                self.way.publish(place, number, {**how, "tmp_dir": here / "staging"})
            case "named":
                without_unnamed_files(lambda: self.way.publish(place, number, how))

    def _place(self, here: Path, number: int) -> Path:
        return here / "parent" / ("live" if self.replaced else f"new-{number}")


def judge(
    way: Way, place: Callable[[int], Path], *, replaced: bool, newest: int, durable: int
) -> Verdict:
    """Judges what is at the places of the versions: one for all, or (`replaced` is false) one each.

    `newest` is the last version whose commit had returned, `durable` the last that must be there.
    """
    if replaced:
        known = {
            number: expected(way, number, durable, replaced=True)
            for number in range(versions.COUNT + 1)
        }
        return checks.judge(place(1), known, durable, newest + 1)
    problems: list[str] = []
    for number in NUMBERS:
        known = {0: MISSING, number: expected(way, number, durable, replaced=False)}
        at_least = number if number <= durable else 0
        verdict = checks.judge(place(number), known, at_least)
        problems += verdict.problems
        if verdict.version and number > newest + 1:
            problems.append(f"future: {number} is there, {newest} was the newest")
    return Verdict(None, problems)


def expected(way: Way, number: int, durable: int, *, replaced: bool) -> Version:
    """Returns a version as it may be in a crash state where `durable` is the last that must be there."""
    version = way.version(number, replaced=replaced)
    return version if number <= durable else _unsettled(version)


def attempt(publish: Callable[[], None]) -> list[str]:
    """Publishes as the next writer does; says how that failed, or what it warned of."""
    threads = running_threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            publish()
        except OSError as error:
            return [f"next writer: {error!r}"]
    wait_for_threads_but(threads)
    return [f"next writer: warned {warning.message}" for warning in caught]


def running_threads() -> set[str]:
    """Names the process's threads, those that Python does not know of included."""
    return set(os.listdir("/proc/self/task"))


def wait_for_threads_but(threads: set[str]) -> None:
    """Waits until what runs beside these has ended: a filesystem on which one works cannot be unmounted."""
    while running_threads() - threads:
        time.sleep(0.001)


def _unsettled(version: Version) -> Version:
    """Returns a version as it may be until its commit has returned.

    A folder that its owner may not write cannot be moved to another parent (rename(2), EACCES), so it gets such a mode
    just after the publish.
    """
    root = version[""]
    if root.kind != stat.S_IFDIR:
        return version
    return {
        **version,
        "": replace(root, modes=(*root.modes, *(mode | 0o700 for mode in root.modes))),
    }


def is_chosen(folder: Path, newest: int) -> bool:
    """Chooses a share of the crash states by what they show, so that one state is always judged alike."""
    shown = (
        newest,
        folder.stat().st_ctime_ns,
        sorted((at.name, at.lstat().st_ino) for at in folder.iterdir()),
    )
    return zlib.crc32(repr(shown).encode()) % _SHARE == 0
