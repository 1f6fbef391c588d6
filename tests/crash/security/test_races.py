"""A second process that swaps things between the library's check of them and its use.

The attacker's step is repeated as fast as it can be while the victim publishes, for as long as
ATOMIK_RACE_SECONDS says (five); the `slow` variants take a minute each. A win is something that the
attacker could not have by itself: anything of the victim's outside of the shared folder changed, its
private content read, a version under its name that is not complete. Making a publish fail is none.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Final

import atomik
import pytest
from support import kernel, slot_names
from support.filesystems import Filesystem
from support.processes import ROOT, run_as
from support.publishing import NEW

from security.people import (
    ATTACKER,
    OPEN,
    STICKY,
    VICTIM,
    Attack,
    Step,
    attacking,
    each_folder,
    each_length,
    publish_for,
)
from security.places import Home, home, shared

NAME: Final = "site"
SECRET: Final = b"secret"
# The last one has the name of a file in the victim's home.
FILES: Final = ("one", "two", "file")

pytestmark = [
    pytest.mark.leaves_orphans,  # an attacker can take a slot away from its owner
    pytest.mark.parametrize("fs", ["tmpfs"], indirect=True),
]


def write_folder(destination: Path) -> None:
    with atomik.folder(
        destination, overwrite=True, durability="none", permissions=0o700
    ) as staging:
        for name in FILES:
            (staging / name).write_bytes(SECRET)


def write_file(destination: Path) -> None:
    atomik.write_bytes(destination, SECRET, overwrite=True, durability="none", permissions=0o600)


WRITES: Final[Mapping[str, Callable[[Path], None]]] = {"file": write_file, "folder": write_folder}
each_write = pytest.mark.parametrize("write", WRITES)


def found(destination: Path) -> str:
    """Says what a publish has left under the name; opened once, since it may be swapped meanwhile."""
    try:
        with opened(destination) as fd:
            status = os.fstat(fd)
            if status.st_uid != VICTIM.uid:
                return "replaced by the attacker"
            contents = [os.read(fd, 100)] if S_ISREG(status.st_mode) else read_all(fd)
    except OSError:
        return "taken away by the attacker"
    return "whole" if set(contents) == {SECRET} else "broken"


@contextmanager
def opened(name: str | Path, folder: int | None = None) -> Generator[int, None, None]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def read_all(folder: int) -> list[bytes]:
    """Reads all files of a folder; those that are missing are empty."""
    contents: list[bytes] = []
    for name in FILES:
        try:
            with opened(name, folder) as fd:
                contents.append(os.read(fd, 100))
        except FileNotFoundError:
            contents.append(b"")
    return contents


def publish_and_look(write: str, destination: Path) -> str:
    WRITES[write](destination)
    return found(destination)


def assert_nothing_won(attack: Attack, ends: Counter[str], private: Home) -> None:
    assert attack.wins == 0
    assert ends["broken"] == 0
    private.assert_untouched()


def decoys(parent: Path, private: Home) -> tuple[Path, ...]:
    """Makes what an attacker has at hand to put in the place of something."""
    to_folder, to_file = parent / "to folder", parent / "to file"
    own_folder, own_file = parent / "own folder", parent / "own file"
    for link, target in ((to_folder, private.path), (to_file, private.file)):
        with suppress(FileExistsError):
            link.symlink_to(target)
    with suppress(FileExistsError):
        own_folder.mkdir(mode=0o777)
    with suppress(OSError):
        (own_folder / NAME).mkdir(mode=0o777, exist_ok=True)
    with suppress(OSError):
        own_file.touch(mode=0o666)
    return to_folder, to_file, own_folder, own_file


def swap(parent: Path, private: Home, names: list[str], _: Attack) -> Step:
    """Exchanges each name with each decoy, looks whether it has the secret, and exchanges again."""
    pairs = [(parent / name, decoy) for name in names for decoy in decoys(parent, private)]
    turn = 0

    def step() -> bool:
        nonlocal turn
        name, decoy = pairs[turn % len(pairs)]
        turn += 1
        if turn % 1000 == 0:
            decoys(parent, private)
        kernel.renameat2(name, decoy, kernel.EXCHANGE)
        won = has_the_secret(decoy) or has_the_secret(name)
        kernel.renameat2(name, decoy, kernel.EXCHANGE)
        return won

    return step


def has_the_secret(path: Path) -> bool:
    inside: list[Path] = []
    with suppress(OSError):
        inside = list(path.iterdir())
    for place in (
        path,
        path / "one",
        path / NAME / "one",
        *inside,
        *(slot / NAME / "one" for slot in inside),
    ):
        with suppress(OSError):
            if place.read_bytes() == SECRET:
                return True
    return False


each_place = pytest.mark.parametrize("place", ["porch", "room"])


def prepare_place(parent: Path, place: str) -> list[str]:
    """Takes the porch from the victim if it is to be in the room; returns which names to attack."""
    porch, room = slot_names.porch(parent / NAME), slot_names.room(parent / NAME, VICTIM.uid)
    if place == "porch":
        return [porch.name, room.name]
    # The attacker's, and not one that its attacks remove.
    run_as(ATTACKER, partial((porch / "taken").mkdir, parents=True))
    return [room.name]


@each_length
@each_folder
@each_place
@each_write
def test_a_slot_that_is_swapped_gains_nothing(
    fs: Filesystem, write: str, place: str, mode: int, seconds: float
) -> None:
    private, parent = home(fs), shared(fs, mode)
    names = prepare_place(parent, place)
    publish = partial(publish_and_look, write, parent / NAME)
    with attacking(partial(swap, parent, private, names)) as attack:
        ends = publish_for(attack, VICTIM, seconds, publish, umask=0)
    assert_nothing_won(attack, ends, private)


@each_length
@each_write
def test_a_destination_that_is_swapped_gains_nothing(
    fs: Filesystem, write: str, seconds: float
) -> None:
    private, parent = home(fs), shared(fs, OPEN)
    with attacking(partial(swap, parent, private, [NAME])) as attack:
        ends = publish_for(attack, VICTIM, seconds, partial(publish_and_look, write, parent / NAME))
    assert_nothing_won(attack, ends, private)


@each_length
def test_a_lock_that_is_swapped_gains_nothing(fs: Filesystem, seconds: float) -> None:
    private, parent = home(fs), shared(fs, OPEN)
    lock, to_file = slot_names.lock(parent / NAME), parent / "to file"

    def plant_and_remove(_: Attack) -> Step:
        def step() -> None:
            with suppress(OSError):
                lock.symlink_to(private.file)
            with suppress(OSError):
                lock.unlink()
            with suppress(OSError):
                to_file.symlink_to(private.file)
            kernel.renameat2(to_file, lock, kernel.EXCHANGE)

        return step

    publish = partial(publish_and_look, "folder", parent / NAME)
    with attacking(plant_and_remove) as attack:
        ends = publish_for(attack, VICTIM, seconds, publish)
    assert_nothing_won(attack, ends, private)


@each_length
@each_place
@each_write
def test_a_writer_whose_names_are_removed_comes_to_an_end(
    fs: Filesystem, write: str, place: str, seconds: float
) -> None:
    private, parent = home(fs), shared(fs, OPEN)
    names = [parent / name for name in prepare_place(parent, place)]
    names.append(slot_names.lock(parent / NAME))

    def remove(_: Attack) -> Step:
        def step() -> None:
            for name in names:
                with suppress(OSError):
                    name.rmdir()
                with suppress(OSError):
                    name.unlink()

        return step

    with attacking(remove) as attack:
        ends = publish_for(attack, VICTIM, seconds, partial(publish_and_look, write, parent / NAME))
    assert_nothing_won(attack, ends, private)


@each_length
@each_write
def test_a_path_that_is_swapped_leads_to_one_place_or_the_other(
    fs: Filesystem, write: str, seconds: float
) -> None:
    # As with open(2), who can change a path's components decides where it leads. What must not be is
    # that it leads to one place when something is checked or staged, and to another when it is used.
    parent = shared(fs, OPEN)
    first, second = (fs.folder(name, 0o755, VICTIM.uid, VICTIM.gid) for name in ("first", "second"))
    way, other = parent / "way", parent / "other"

    def prepare() -> None:
        way.symlink_to(first)
        other.symlink_to(second)

    def publish() -> str:
        WRITES[write](way / NAME)
        left = {place: os.listdir(place) for place in (first, second)}
        places = [place for place, names in left.items() if names == [NAME]]
        others = [names for names in left.values() if names not in ([], [NAME])]
        if others or len(places) != 1 or found(places[0] / NAME) != "whole":
            return "broken"
        if write == "folder":
            shutil.rmtree(places[0] / NAME)
        else:
            (places[0] / NAME).unlink()
        return places[0].name

    run_as(ATTACKER, prepare)
    with attacking(lambda _: partial(kernel.renameat2, way, other, kernel.EXCHANGE)) as attack:
        ends = publish_for(attack, VICTIM, seconds, publish)
    assert ends["broken"] == 0
    assert set(ends) == {"first", "second"}, "the attacker was too slow"


@each_length
def test_folders_swapped_for_links_while_they_are_removed_lead_nowhere(
    fs: Filesystem, seconds: float
) -> None:
    """The attacker owns part of the old version, stands in it, and goes on when it is removed."""
    private, parent = home(fs, ROOT), shared(fs, STICKY)
    destination = parent / NAME
    away = fs.folder("away", 0o755, ATTACKER.uid, ATTACKER.gid)

    def step_in_and_swap(_: Attack) -> Step:
        def step() -> None:
            os.chdir(destination / "theirs")
            with suppress(OSError):
                os.symlink(private.path, "link")
            # Until the folder that it stands in has gone.
            while os.listdir("."):
                for name in ("folder", "deep"):
                    kernel.renameat2(Path(name), Path("link"), kernel.EXCHANGE)
                    kernel.renameat2(Path(name), Path("link"), kernel.EXCHANGE)
                    with suppress(OSError):
                        os.rename(f"{name}/inner", away / "inner")
                        os.rename(away / "inner", f"{name}/inner")

        return step

    def publish() -> None:
        with atomik.folder(destination, overwrite=True, durability="none") as staging:
            theirs = staging / "theirs"
            (theirs / "folder" / "inner").mkdir(parents=True)
            (theirs / "deep" / "/".join(["inner"] * 40)).mkdir(parents=True)
            for number in range(20):
                (theirs / "folder" / "inner" / f"{number}").write_bytes(NEW)
                (theirs / "folder" / f"{number}").mkdir()
            for path in (theirs, *theirs.rglob("*")):
                os.chown(path, ATTACKER.uid, ATTACKER.gid)

    with attacking(step_in_and_swap) as attack:
        publish_for(attack, ROOT, seconds, publish)
    private.assert_untouched()
