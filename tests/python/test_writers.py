"""Two hundred writers to one destination, threads and processes mixed."""

import os
import random
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import atomik
import pytest
from support import slot_names
from support.crowd import THREADS, WRITERS, Crowd, Say, Wait, crowd
from support.filesystems import Filesystem
from support.processes import NOBODY, run_as

pytestmark = pytest.mark.thread_unsafe(reason="forks processes that start threads of their own")

Halfway: TypeAlias = Callable[[], None]
Publish: TypeAlias = Callable[[Path, int, bool, Halfway], None]

# Small, since a small btrfs gives space back only with its next transaction.
PIECE: Final = 200
FILES: Final = ("first", "inner/second", "inner/third", "last")


def content(writer: int) -> bytes:
    return b"%06d\n" % writer * PIECE


def fill(folder: Path, writer: int, halfway: Halfway) -> None:
    (folder / "inner").mkdir()
    for name in FILES[:2]:
        (folder / name).write_bytes(content(writer))
    halfway()
    # Whoever has taken the staging of a living writer for an orphan has removed this.
    assert (folder / FILES[0]).read_bytes() == content(writer)
    for name in FILES[2:]:
        (folder / name).write_bytes(content(writer))


def file(destination: Path, writer: int, overwrite: bool, halfway: Halfway) -> None:
    with atomik.file(destination, "wb", overwrite, durability="none") as staging:
        staging.write(content(writer))
        halfway()
        staging.write(content(writer))


def folder(destination: Path, writer: int, overwrite: bool, halfway: Halfway) -> None:
    with atomik.folder(destination, overwrite, durability="none") as staging:
        fill(staging, writer, halfway)


def path_to_file(destination: Path, writer: int, overwrite: bool, halfway: Halfway) -> None:
    with atomik.path(destination, overwrite=overwrite, durability="none") as staging:
        staging.write_bytes(content(writer))
        halfway()
        with staging.open("ab") as rest:
            assert rest.tell() == len(content(writer))
            rest.write(content(writer))


def path_to_folder(destination: Path, writer: int, overwrite: bool, halfway: Halfway) -> None:
    with atomik.path(destination, overwrite=overwrite, durability="none") as staging:
        staging.mkdir()
        fill(staging, writer, halfway)


MAKING_FILES: Final[Mapping[str, Publish]] = {"file": file, "path to a file": path_to_file}
MAKING_FOLDERS: Final[Mapping[str, Publish]] = {
    "folder": folder,
    "path to a folder": path_to_folder,
}
CALLS: Final[Mapping[str, Publish]] = {**MAKING_FILES, **MAKING_FOLDERS}

everywhere = pytest.mark.parametrize(
    ("fs", "call"),
    [
        *((fs, call) for fs in ("ext4", "tmpfs", "btrfs", "xfs", "overlay") for call in CALLS),
        *(("bindfs", call) for call in MAKING_FILES),
    ],
    indirect=["fs"],
)


class Removed(Exception):  # noqa: N818 - it says what has happened
    """The version that was being read has been replaced and removed."""


@contextmanager
def one_version(destination: Path) -> Generator[tuple[int, bool], None, None]:
    """Opens what is there now; yields its descriptor and whether it is a folder."""
    try:
        fd = os.open(destination, os.O_RDONLY)
    except FileNotFoundError as error:
        raise Removed from error
    try:
        yield fd, os.path.isdir(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def read_file(path: str, dir_fd: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    except FileNotFoundError as error:
        raise Removed from error
    with open(fd, "rb") as file:
        return file.read()


def read_writer(destination: Path) -> int:
    """Returns who has written the version, which must be complete and one writer's alone."""
    with one_version(destination) as (fd, is_folder):
        if is_folder:
            pieces = [read_file(name, fd) for name in FILES]
        else:
            with open(fd, "rb", closefd=False) as file:
                whole = file.read()
            pieces = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
    writer = int(pieces[0][:7])
    assert [piece == content(writer) for piece in pieces] == [True] * len(pieces)
    return writer


@everywhere
def test_the_next_writer_removes_the_lock_of_a_killed_one(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    lock = slot_names.lock(destination)
    if call != "file":  # a new file needs no slot, and looks for nothing
        lock.touch(0o600)
    for writer in range(2):
        CALLS[call](destination, writer, True, lambda: None)
        assert os.listdir(fs.here) == ["destination"]
        lock.touch(0o600)
    lock.unlink()


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_publish_lock_that_another_user_leaves_is_an_error_in_the_end(fs: Filesystem) -> None:
    parent = fs.folder("parent", owner=NOBODY.uid, group=NOBODY.gid)
    destination = parent / "destination"

    def publish() -> None:
        folder(destination, 1, True, lambda: None)

    run_as(NOBODY, publish)
    slot_names.lock(destination).touch(0o600)
    with pytest.raises(atomik.DestinationBusyError, match="another user's"):
        run_as(NOBODY, publish)
    assert read_writer(destination) == 1
    slot_names.lock(destination).unlink()


def all_open_at_once(publish: Publish, destination: Path, overwrite: bool) -> Counter[str]:
    """Lets all writers be in their bodies together, then publish together; counts the outcomes."""

    def job(writer: int, say: Say, wait: Wait) -> None:
        def halfway() -> None:
            say("open")
            wait()

        try:
            publish(destination, writer, overwrite, halfway)
        except atomik.FileAlreadyExistsError:
            say("refused")
        else:
            say("published")

    with crowd(job) as writers:
        while len(writers.said()) < WRITERS and writers.listen():
            pass
        assert Counter(writers.said()) == {"open": WRITERS}
        return Counter(writers.finish()) - Counter(open=WRITERS)


@everywhere
def test_all_of_two_hundred_writers_replace(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    assert all_open_at_once(CALLS[call], destination, True) == {"published": WRITERS}
    assert 0 <= read_writer(destination) < WRITERS
    assert os.listdir(fs.here) == ["destination"]


@everywhere
def test_one_of_two_hundred_writers_creates(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    outcomes = all_open_at_once(CALLS[call], destination, False)
    assert outcomes == {"published": 1, "refused": WRITERS - 1}
    assert 0 <= read_writer(destination) < WRITERS
    assert os.listdir(fs.here) == ["destination"]


def again_and_again(publish: Publish, destination: Path, rounds: int) -> Callable[..., None]:
    def job(writer: int, say: Say, wait: Wait) -> None:
        wait()
        for _ in range(rounds):
            publish(destination, writer, True, lambda: None)
            say("published")

    return job


@everywhere
def test_a_reader_never_sees_a_mix(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    publish = CALLS[call]
    publish(destination, WRITERS, True, lambda: None)
    read = 0
    with crowd(again_and_again(publish, destination, 2)) as writers:
        writers.open_gate()
        while writers.listen(block=False):
            try:
                read_writer(destination)
            except Removed:
                # A file is replaced by rename: its name always leads somewhere. FUSE asks twice, for the
                # name and then for what it has found, and that may have been replaced in between.
                assert call in MAKING_FOLDERS or fs.name == "bindfs"
            else:
                read += 1
        assert Counter(writers.finish()) == {"published": 2 * WRITERS}
    assert read > 0
    assert os.listdir(fs.here) == ["destination"]


@pytest.fixture
def rng() -> random.Random:
    """Chances, of a seed that a failing test shows; `ATOMIK_SEED` repeats them."""
    seed = os.environ.get("ATOMIK_SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"ATOMIK_SEED={seed}")
    return random.Random(seed)


def kill_some(writers: Crowd, rng: random.Random) -> None:
    """Kills half of the processes, each after some number of commits of all."""
    victims = rng.sample(writers.pids, len(writers.pids) // 2)
    due = sorted(rng.randrange(2 * WRITERS) for _ in victims)
    writers.open_gate()
    while victims and writers.listen():
        while victims and len(writers.said()) >= due[0]:
            writers.kill(victims.pop())
            due.pop(0)


@everywhere
@pytest.mark.leaves_orphans
def test_the_next_writer_removes_what_killed_writers_leave(
    fs: Filesystem, call: str, rng: random.Random
) -> None:
    destination = fs.here / "destination"
    publish = CALLS[call]
    with crowd(again_and_again(publish, destination, 3)) as writers:
        kill_some(writers, rng)
        assert set(writers.finish()) == {"published"}
    assert 0 <= read_writer(destination) < WRITERS
    print("left by the killed:", sorted(fs.leftovers()))
    publish(destination, WRITERS, True, lambda: None)
    assert read_writer(destination) == WRITERS
    assert os.listdir(fs.here) == ["destination"]


@everywhere
@pytest.mark.leaves_orphans
def test_the_next_writer_removes_what_writers_killed_in_their_bodies_leave(
    fs: Filesystem, call: str, rng: random.Random
) -> None:
    """All are in their bodies; some end well, the others are killed."""
    destination = fs.here / "destination"
    publish = CALLS[call]

    def job(writer: int, say: Say, wait: Wait) -> None:
        def halfway() -> None:
            say("open")
            wait()

        publish(destination, writer, True, halfway)
        say("published")

    with crowd(job) as writers:
        while len(writers.said()) < WRITERS and writers.listen():
            pass
        killed = rng.sample(writers.pids, 4)
        for pid in killed:
            writers.kill(pid)
        outcomes = Counter(writers.finish())
    assert outcomes == {"open": WRITERS, "published": WRITERS - len(killed) * THREADS}
    print("left by the killed:", sorted(fs.leftovers()))
    publish(destination, WRITERS, True, lambda: None)
    assert read_writer(destination) == WRITERS
    assert os.listdir(fs.here) == ["destination"]
