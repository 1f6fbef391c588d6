"""Trees made to do harm when they are removed: displaced versions, orphans, and staging rolled back.

Each holds one kind of malice. Whatever it is, what lies outside is as it was, and the commit succeeds.
"""

import contextlib
import os
import socket
import stat
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import slot_names
from support.filesystems import Filesystem
from support.processes import ROOT, User, run_as
from support.trees import identities

from security.people import VICTIM
from security.places import Home, home

NAME: Final = "site"
DEPTH: Final = 3000
CROWD: Final = 100_000
# ext4 takes 65,000 links to one inode: ext4(5).
LINKS_EACH: Final = 50_000

Grow = Callable[[Path, Home], None]
Discard = Callable[[Path, Callable[[Path], None]], None]

each_filesystem = pytest.mark.parametrize(
    "fs", ["ext4", "btrfs", "tmpfs", "overlay"], indirect=True
)


def links_out(tree: Path, home: Home) -> None:
    (tree / "file").symlink_to(home.file)
    (tree / "folder").symlink_to(home.folder)
    (tree / "parent").symlink_to("..")
    (tree / "root").symlink_to("/")
    (tree / "dangling").symlink_to(home.path / "missing")
    (tree / "loop").symlink_to("loop")
    (tree / "there").symlink_to("back")
    (tree / "back").symlink_to("there")
    (tree / "proc").symlink_to("/proc/self/cwd")


def hard_links(tree: Path, home: Home) -> None:
    (tree / "file").hardlink_to(home.file)
    (tree / "inner").mkdir()
    (tree / "inner" / "file").hardlink_to(home.folder / "file")


def every_byte(tree: Path, _: Home) -> None:
    root = os.fsencode(tree)
    usable = [byte for byte in range(1, 256) if byte != ord("/")]
    names = [bytes([byte]) for byte in usable if byte != ord(".")]
    names += [b"...", b"-rf", b"\xff\xfe", b"\xed\xa0\x80", bytes(usable)]
    os.makedirs(os.path.join(root, b"as file"))
    for name in names:
        os.makedirs(os.path.join(root, b"as folder", name, name))
        os.close(os.open(os.path.join(root, b"as file", name), os.O_CREAT))


def specials(tree: Path, _: Home) -> None:
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "block", stat.S_IFBLK | 0o666, os.makedev(7, 200))
    cwd = os.getcwd()
    os.chdir(tree)  # a socket's path has at most 107 bytes
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("socket")
    os.chdir(cwd)


def deep(tree: Path) -> None:
    name = "d" * 255
    fd = os.open(tree, os.O_DIRECTORY)
    for _ in range(DEPTH):
        os.mkdir(name, dir_fd=fd)
        os.symlink("/", "link", dir_fd=fd)
        inner = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def crowded(tree: Path) -> None:
    fd = os.open(tree, os.O_DIRECTORY)
    for number in range(CROWD):
        name = f"{number // LINKS_EACH}"
        if number % LINKS_EACH == 0:
            os.close(os.open(name, os.O_CREAT, dir_fd=fd))
        os.link(name, f"{name}.{number}", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)


def unreadable(tree: Path, home: Home) -> None:
    """Folders in folders that their owner may neither read, nor search, nor write."""
    for mode in (0o000, 0o100, 0o200, 0o300, 0o400, 0o500):
        outer = tree / f"{mode:o}"
        inner = outer / "inner"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        (inner / "link").symlink_to(home.folder)
        inner.chmod(mode)
        outer.chmod(mode)


GROWN: Final[Mapping[str, Grow]] = {
    grow.__name__.replace("_", " "): grow for grow in (links_out, hard_links, every_byte, specials)
}


def publish(destination: Path) -> None:
    with atomik.folder(destination, overwrite=True, durability="none") as staging:
        (staging / "version").write_text("new")


def as_displaced(destination: Path, grow: Callable[[Path], None]) -> None:
    destination.mkdir()
    grow(destination)
    publish(destination)


def as_orphan(destination: Path, grow: Callable[[Path], None]) -> None:
    _orphan(slot_names.porch(destination), destination, grow)


def as_orphan_in_a_room(destination: Path, grow: Callable[[Path], None]) -> None:
    room = slot_names.room(destination)
    room.mkdir(0o700)
    _orphan(room / "0123456789abcdef", destination, grow)


def _orphan(slot: Path, destination: Path, grow: Callable[[Path], None]) -> None:
    (slot / NAME).mkdir(parents=True)
    slot.chmod(0o700)
    grow(slot / NAME)
    publish(destination)


def as_staging(destination: Path, grow: Callable[[Path], None]) -> None:
    with contextlib.suppress(LookupError), atomik.folder(destination) as staging:
        grow(staging)
        raise LookupError
    publish(destination)


DISCARDS: Final[Mapping[str, Discard]] = {
    "displaced": as_displaced,
    "orphan": as_orphan,
    "orphan in a room": as_orphan_in_a_room,
    "rolled back": as_staging,
}


def discard_as(user: User, discard: str, destination: Path, grow: Callable[[Path], None]) -> None:
    """Has a tree removed, and then the new version be the only thing that is left."""
    run_as(user, partial(DISCARDS[discard], destination, grow))
    assert os.listdir(destination.parent) == [NAME]
    assert os.listdir(destination) == ["version"]


@each_filesystem
@pytest.mark.parametrize("discard", DISCARDS)
@pytest.mark.parametrize("malice", GROWN)
def test_a_hostile_tree_goes_and_nothing_else(fs: Filesystem, malice: str, discard: str) -> None:
    private, parent = home(fs, ROOT), fs.folder("parent")
    discard_as(ROOT, discard, parent / NAME, lambda tree: GROWN[malice](tree, private))
    private.assert_untouched()


@each_filesystem
@pytest.mark.parametrize("discard", ["orphan", "orphan in a room", "rolled back"])
@pytest.mark.leaves_orphans  # whose search would be as deep
def test_a_tree_beyond_every_path_goes(fs: Filesystem, discard: str) -> None:
    discard_as(ROOT, discard, fs.folder("parent") / NAME, deep)


@pytest.mark.parametrize(
    ("fs", "discard"), [("ext4", "displaced"), ("tmpfs", "orphan")], indirect=["fs"]
)
def test_a_hundred_thousand_entries_go(fs: Filesystem, discard: str) -> None:
    discard_as(ROOT, discard, fs.folder("parent") / NAME, crowded)


@each_filesystem
@pytest.mark.parametrize("discard", ["orphan", "orphan in a room", "rolled back"])
def test_folders_that_their_owner_cannot_enter_go(fs: Filesystem, discard: str) -> None:
    private, parent = home(fs), fs.folder("parent", 0o755, VICTIM.uid, VICTIM.gid)
    discard_as(VICTIM, discard, parent / NAME, lambda tree: unreadable(tree, private))
    private.assert_untouched()


_SLOTS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "porch": slot_names.porch,
    "room": lambda destination: slot_names.room(destination) / "0123456789abcdef",
}
WHERE: Final[Mapping[str, str]] = {
    "inside": f"{NAME}/inner/mount",
    "on the version": NAME,
    "on the slot": "",
}


@each_filesystem
@pytest.mark.parametrize("where", [*WHERE, "on the room"])
@pytest.mark.parametrize("slot", _SLOTS)
@pytest.mark.leaves_orphans  # a mount point cannot be removed
def test_a_mount_in_an_orphan_is_not_crossed(fs: Filesystem, slot: str, where: str) -> None:
    private, parent = home(fs, ROOT), fs.folder("parent")
    room = slot_names.room(parent / NAME)
    target = room if where == "on the room" else _SLOTS[slot](parent / NAME) / WHERE[where]
    target.mkdir(parents=True)
    fs.bind(private.path, target)
    with warnings.catch_warnings():
        # Of an orphan that the mount keeps; one that is mounted itself is none.
        warnings.simplefilter("ignore", atomik.CleanupWarning)
        publish(parent / NAME)
    private.assert_untouched()
    assert os.listdir(parent / NAME) == ["version"]


@each_filesystem
@pytest.mark.parametrize("where", ["inside", "on the version"])
@pytest.mark.leaves_orphans  # a mount point cannot be removed
def test_a_mount_in_staging_is_not_crossed_by_the_rollback(fs: Filesystem, where: str) -> None:
    private, parent = home(fs, ROOT), fs.folder("parent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", atomik.CleanupWarning)
        with contextlib.suppress(LookupError), atomik.folder(parent / NAME):
            target = slot_names.porch(parent / NAME) / WHERE[where]
            target.mkdir(parents=True, exist_ok=True)
            fs.bind(private.path, target)
            raise LookupError
    private.assert_untouched()


@pytest.mark.parametrize("fs", ["ext4", "btrfs", "tmpfs"], indirect=True)
@pytest.mark.parametrize("slot", _SLOTS)
@pytest.mark.leaves_orphans  # what is immutable stays
def test_an_orphan_that_resists_stays_and_nobody_waits_for_it(fs: Filesystem, slot: str) -> None:
    parent = fs.folder("parent")
    orphan = _SLOTS[slot](parent / NAME) / NAME
    orphan.mkdir(parents=True)
    orphan.parent.chmod(0o700)
    (orphan / "file").touch()
    (orphan / "removable").touch()
    fs.make_immutable(orphan / "file")
    before = identities(orphan)["file"]
    for _ in range(2):
        with pytest.warns(atomik.CleanupWarning, match=str(orphan.parent)):
            publish(parent / NAME)
    left = orphan.parent if slot == "porch" else orphan.parent.parent
    assert sorted(os.listdir(parent)) == [left.name, NAME]
    assert identities(orphan) == {"file": before}
