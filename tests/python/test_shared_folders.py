"""One folder through two mounts that see nothing of each other's locks: two machines that share it.

Each commit is whole or refused, nobody touches what another mount's writer stages, and what a killed writer
has left is removed by the next writer on its own side, or by its age.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.crowd import Crowd, Say, Wait, crowd
from support.filesystems import Filesystem, Missing, Mounts, leftovers
from support.outcomes import (
    CALLS,
    Call,
    Outcome,
    StagingLost,
    Vanished,
    attempt,
    check_complete,
    describe,
    read_writer,
    say_attempt,
    unexpected,
)

pytestmark = pytest.mark.thread_unsafe(reason="forks processes and kills some of them")

_SECONDS: Final = 1.5
_KEYS: Final = ("one", "two", "common")
_WHOLE: Final = (
    Outcome.PUBLISHED,
    Outcome.EXISTS,
    Outcome.CONFLICT,
    Outcome.UNSUPPORTED,
    # A folder that was not there when the body began is there now, and cannot be replaced.
    Outcome.UNSUPPORTED_LATE,
)
_READ: Final = "read"
_SWEPT: Final = "swept"

each_call = pytest.mark.parametrize("call", CALLS)


@dataclass(frozen=True)
class Sides:
    """The same folder through two mounts, and as it is without either."""

    paths: tuple[Path, Path]
    real: Path

    def leftovers(self) -> list[str]:
        return leftovers(self.real)


@pytest.fixture(params=["bindfs", "sshfs"])
def sides(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Sides]:
    with ExitStack() as undo:
        try:
            one, other = mounts.two_mounts(request.param, undo)
        except Missing as reason:
            pytest.skip(str(reason))
        sides = Sides((one.here, other.here), one.backing(one.here))
        yield sides
        assert sides.leftovers() == []


@pytest.fixture
def rng() -> random.Random:
    """Chances, of a seed that a failing test shows; `ATOMIK_SEED` repeats them."""
    seed = os.environ.get("ATOMIK_SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"ATOMIK_SEED={seed}")
    return random.Random(seed)


def _read(say: Say, destination: Path, call: Call) -> None:
    try:
        read_writer(destination, appended=call.appends)
    except Vanished:
        return
    say(_READ)


def _sweep(say: Say, folder: Path, turn: int) -> None:
    """Sweeps in one of the ways that remove nothing from the living."""
    try:
        atomik.sweep(folder, recursive=turn % 3 == 1, older_than=3600 if turn % 3 == 2 else None)
    except OSError as error:
        say(f"sweep: {describe(error)}")
    else:
        say(_SWEPT)


@contextmanager
def _both_sides(sides: Sides, call: Call) -> Generator[Crowd, None, None]:
    """Runs three writers, and one that reads and sweeps, on each side for some time.

    Where folders are written both sides race for one key after the other, since they cannot be replaced.
    """
    end = time.monotonic() + _SECONDS

    def job(number: int, say: Say, _: Wait) -> None:
        side = sides.paths[number % 2]
        turn = 0
        while time.monotonic() < end:
            # A new folder every few milliseconds, the same on both sides.
            fresh = f"key{int((end - time.monotonic()) * 50)}"
            destination = side / (fresh if call.makes_folders else _KEYS[turn % len(_KEYS)])
            if number < 6:
                say_attempt(say, call, destination, number)
            else:
                _read(say, destination, call)
                _sweep(say, side, turn)
            turn += 1

    with crowd(job, processes=8, threads=1) as writers:
        yield writers


def _check_all(sides: Sides, call: Call, said: list[str]) -> None:
    # A server calls a removed file that somebody still reads `.fuse_hidden…`.
    destinations = [path for path in sides.real.iterdir() if not path.name.startswith(".")]
    assert (destinations != []) == (Outcome.PUBLISHED in said)
    # Without RENAME_NOREPLACE a folder that must be new is refused.
    assert Outcome.PUBLISHED in said or call is CALLS["new folder"]
    for path in destinations:
        check_complete(path, call)


each_call_without_a_copy = pytest.mark.parametrize(
    "call", [name for name in CALLS if not CALLS[name].appends]
)
"""What another mount has replaced, FUSE may still read with the old size: the copy is cut or padded with zeros."""


@each_call_without_a_copy
def test_commits_of_both_sides_are_whole_or_refused(sides: Sides, call: str) -> None:
    with _both_sides(sides, CALLS[call]) as writers:
        said = writers.finish()
    print(Counter(said), "left:", sides.leftovers())
    _check_all(sides, CALLS[call], said)
    assert unexpected(said, *_WHOLE) - Counter({_READ: len(said), _SWEPT: len(said)}) == {}
    assert sides.leftovers() == []


@each_call_without_a_copy
@pytest.mark.leaves_orphans
def test_killed_writers_of_both_sides_leave_nothing_for_good(
    sides: Sides, call: str, rng: random.Random
) -> None:
    with _both_sides(sides, CALLS[call]) as writers:
        for pid in rng.sample(writers.pids[:6], 4):
            time.sleep(rng.random() * _SECONDS / 6)
            writers.kill(pid)
        said = writers.finish()
    print(Counter(said), "left by the killed:", sides.leftovers())
    _check_all(sides, CALLS[call], said)
    assert unexpected(said, *_WHOLE) - Counter({_READ: len(said), _SWEPT: len(said)}) == {}
    if not CALLS[call].makes_folders:
        for side in sides.paths:
            for key in _KEYS:
                attempt(CALLS[call], side / key, 99)
                check_complete(sides.real / key, CALLS[call])
        if not CALLS[call].backup:  # refused early: it has had no reason to clean up
            assert sides.leftovers() == []
    for side in sides.paths:
        atomik.sweep(side, older_than=0)
    assert sides.leftovers() == []
    _check_all(sides, CALLS[call], said)


@dataclass
class _Writer:
    """A process in a body on one side, which goes on, or is killed, when the test says so."""

    writers: Crowd

    def finish(self) -> list[str]:
        return [word for word in self.writers.finish() if word != "in the body"]

    def kill(self) -> None:
        self.writers.kill(self.writers.pids[0])
        assert self.finish() == []


@contextmanager
def _in_a_body(call: str, destination: Path, writer: int = 7) -> Generator[_Writer, None, None]:
    def job(_: int, say: Say, wait: Wait) -> None:
        def halfway() -> None:
            say("in the body")
            wait()

        say_attempt(say, CALLS[call], destination, writer, halfway)

    with crowd(job, processes=1, threads=1) as writers:
        while "in the body" not in writers.said():
            assert writers.listen(), writers.said()
        yield _Writer(writers)


_STAGING: Final = ("file", "path to a file", "folder", "path to a folder", "updated folder")


@pytest.mark.parametrize("call", _STAGING)
def test_a_living_body_keeps_its_staging_whatever_the_other_side_does(
    sides: Sides, call: str
) -> None:
    here, there = sides.paths
    with _in_a_body(call, there / "destination") as writer:
        atomik.sweep(here)
        atomik.sweep(here, recursive=True, older_than=3600)
        before = sides.leftovers()
        assert before != []
        assert attempt(CALLS[call], here / "destination", 1) is Outcome.PUBLISHED
        atomik.sweep(here)
        assert sides.leftovers() == before
        assert unexpected(writer.finish(), *_WHOLE) == {}
    check_complete(sides.real / "destination", CALLS[call])


@pytest.mark.parametrize("call", _STAGING)
@pytest.mark.leaves_orphans
def test_an_orphan_of_the_other_side_goes_by_its_age_alone(sides: Sides, call: str) -> None:
    here, there = sides.paths
    with _in_a_body(call, there / "destination") as writer:
        writer.kill()
    orphan = sides.leftovers()
    assert orphan != []
    assert attempt(CALLS[call], here / "destination", 1) is Outcome.PUBLISHED
    assert atomik.sweep(here) == []
    assert atomik.sweep(here, older_than=3600) == []
    assert sides.leftovers() == orphan
    assert all(found.removed for found in atomik.sweep(here, older_than=0))
    assert os.listdir(sides.real) == ["destination"]


@pytest.mark.parametrize("call", ["file", "path to a file", "folder", "path to a folder"])
@pytest.mark.leaves_orphans
def test_an_orphan_of_ones_own_side_goes_with_the_next_writer(sides: Sides, call: str) -> None:
    here, there = sides.paths
    with (
        _in_a_body(call, here / "destination") as mine,
        _in_a_body(call, there / "destination") as theirs,
    ):
        mine.kill()
        assert attempt(CALLS[call], here / "destination", 1) is Outcome.PUBLISHED
        # What is left is the other's, who lives.
        assert unexpected(theirs.finish(), *_WHOLE) == {}
    assert os.listdir(sides.real) == ["destination"]


@pytest.mark.parametrize("fs", ["ext4", "bindfs", "sshfs"], indirect=True)
def test_a_bind_mount_is_of_the_same_lock_domain(fs: Filesystem) -> None:
    one, two = fs.folder("one"), fs.folder("two")
    fs.bind(one, two)
    with (
        atomik.path(one / "destination", overwrite=True) as porch,
        atomik.path(two / "destination", overwrite=True) as room,
    ):
        # The second writer has found the porch taken.
        assert porch.parent.parent == one
        assert room.parent.parent.parent == two
        porch.write_text("one")
        room.write_text("two")
    assert (two / "destination").read_text() == "one"


@pytest.mark.parametrize("fs", ["tmpfs", "ext4", "bindfs"], indirect=True)
@pytest.mark.parametrize("call", ["path to a file", "folder", "write_bytes"])
def test_a_sweep_never_fails_over_what_vanishes(fs: Filesystem, call: str) -> None:
    _race_writers_with_sweeps((fs.here, fs.here), CALLS[call])


@pytest.mark.parametrize("call", ["path to a file", "folder", "write_bytes"])
def test_a_sweep_never_fails_over_what_vanishes_on_the_other_side(sides: Sides, call: str) -> None:
    _race_writers_with_sweeps(sides.paths, CALLS[call])
    for side in sides.paths:
        atomik.sweep(side, older_than=0)


def _race_writers_with_sweeps(folders: tuple[Path, Path], call: Call) -> None:
    """Sweeps in every way while writers, and a stranger's folders, come and go."""
    end = time.monotonic() + 2

    def job(number: int, say: Say, _: Wait) -> None:
        folder = folders[number % 2]
        turn = 0
        while time.monotonic() < end:
            if number < 3:
                destination = folder / f"{number}-{turn}" if call.makes_folders else folder / "key"
                say_attempt(say, call, destination, number)
            elif number == 3:
                stranger = folder / f"stranger{turn % 5}"
                (stranger / "below").mkdir(parents=True)
                (stranger / "below").rmdir()
                stranger.rmdir()
            else:
                _sweep(say, folder, turn)
            turn += 1

    with crowd(job, processes=6, threads=1) as writers:
        said = writers.finish()
    assert unexpected(said, *_WHOLE) - Counter({_SWEPT: len(said)}) == {}


def test_what_is_lost_is_told(here: Path) -> None:
    """The tests' own eyes: a body whose staging is changed says so."""

    def halfway() -> None:
        for path in here.rglob("first"):
            path.write_bytes(b"other")

    with pytest.raises(StagingLost):
        attempt(CALLS["folder"], here / "destination", 1, halfway)
