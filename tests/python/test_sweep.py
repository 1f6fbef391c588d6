"""`atomik.sweep` removes what killed processes have left, reports it, and touches nothing else.

Orphans are real: processes end in the middle of a body (os._exit, which runs no destructor).
"""

import copy
import errno
import fcntl
import fnmatch
import os
import pickle
import re
import signal
import socket
import stat
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import kernel, slot_names
from support.crowd import Say, Wait, crowd
from support.filesystems import Filesystem
from support.processes import NOBODY, ROOT, User, run_as
from support.trees import identities, tree

with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)


def _folder(destination: Path, **options: Any) -> AbstractContextManager[Path]:
    return atomik.folder(destination, overwrite=True, durability="none", **options)


def _fork(job: Callable[[], object]) -> int:
    """Runs a job in a process of its own, which ends with it and without any destructor."""
    with warnings.catch_warnings():
        # The child of a process with threads does nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            job()
            status = 0
        finally:
            os._exit(status)
    return pid


def _orphan(destination: Path, **options: Any) -> None:
    """Lets a process end in the body, with two files staged."""

    def body() -> None:
        with _folder(destination, **options) as staging:
            (staging / "one").write_bytes(bytes(10_000))
            (staging / "inner").mkdir()
            (staging / "inner" / "two").write_bytes(b"2")
            os._exit(0)

    _, status = os.waitpid(_fork(body), 0)
    assert os.waitstatus_to_exitcode(status) == 0


@contextmanager
def _waiting(opening: Callable[[], AbstractContextManager[Path]]) -> Generator[int, None, None]:
    """Runs a process that waits in a body; it is killed there, at the end if not before."""
    reading, writing = os.pipe()

    def wait() -> None:
        with opening():
            os.write(writing, b"x")
            signal.pause()

    pid = _fork(wait)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid
    finally:
        os.close(reading)
        os.close(writing)
        _kill(pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except ProcessLookupError:
        # It was killed in the test.
        return


def _names_of(destination: Path) -> tuple[Path, Path, Path]:
    """Returns where porch, room and lock are."""
    return slot_names.porch(destination), slot_names.room(destination), slot_names.lock(destination)


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def _allocated(folder: Path) -> int:
    """Returns what du(1) says of all below a folder."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512


def test_an_orphan_is_reported_and_removed(fs: Filesystem) -> None:
    _orphan(fs.here / "site")
    slot = slot_names.porch(fs.here / "site")
    os.sync()
    size = _allocated(slot)
    assert size >= 10_000
    _age(slot, 5000)
    (found,) = atomik.sweep(fs.here)
    assert isinstance(found, atomik.Orphan)
    assert type(found.path) is type(Path())
    assert (found.path, found.bytes, found.files, found.removed) == (slot, size, 2, True)
    assert 5000 <= found.age < 6000
    assert os.listdir(fs.here) == []
    assert atomik.sweep(fs.here) == []


def test_a_dry_run_reports_the_same_and_touches_nothing(fs: Filesystem) -> None:
    _orphan(fs.here / "site")
    before = identities(fs.here)
    (seen,) = atomik.sweep(fs.here, dry_run=True)
    assert identities(fs.here) == before
    assert not seen.removed
    (found,) = atomik.sweep(fs.here)
    assert (found.path, found.bytes, found.files) == (seen.path, seen.bytes, seen.files)
    assert found.removed
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert twin == found
        assert repr(twin) == repr(found)


@with_exchange
def test_every_orphan_of_every_destination_goes(fs: Filesystem) -> None:
    names = ["a", "b.txt", "ü\udcff\n", "n" * 255, ".hidden", "1.2.3"]
    for name in names:
        for count in range(3):
            with _folder(fs.here / name):
                _orphan(fs.here / name)
                assert len(fs.leftovers()) >= 1, count
            _orphan(fs.here / name)
            # Each of these has removed the one before it.
    assert len(atomik.sweep(fs.here)) == len(names)
    assert fs.leftovers() == []
    assert sorted(os.listdir(fs.here)) == sorted(names)


def test_staging_in_a_folder_of_its_own_is_swept_there(fs: Filesystem) -> None:
    elsewhere = fs.folder("elsewhere")
    _orphan(fs.here / "site", tmp_dir=elsewhere)
    assert atomik.sweep(fs.here) == []
    (found,) = atomik.sweep(elsewhere)
    assert found.path == slot_names.porch(elsewhere / "site")
    assert os.listdir(elsewhere) == []


def test_orphans_of_files_and_of_the_lock_go_too(fs: Filesystem) -> None:
    porch, room, lock = _names_of(fs.here / "site")
    porch.write_bytes(bytes(5000))
    room.mkdir(0o700)
    (room / "0123456789abcdef").write_bytes(b"file")
    lock.touch()
    found = {orphan.path: orphan for orphan in atomik.sweep(fs.here)}
    assert found.keys() == {porch, room / "0123456789abcdef", lock}
    assert all(orphan.removed and orphan.files == 1 for orphan in found.values())
    assert os.listdir(fs.here) == []


def test_what_lives_is_left(fs: Filesystem) -> None:
    with _folder(fs.here / "site") as staging:
        (staging / "file").touch()
        _orphan(fs.here / "other")
        (found,) = atomik.sweep(fs.here)
        assert found.path == slot_names.porch(fs.here / "other")
        assert (staging / "file").exists()
    assert (fs.here / "site" / "file").exists()


def test_a_lock_that_is_held_is_left(fs: Filesystem) -> None:
    porch, room, lock = _names_of(fs.here / "site")
    for path in (lock, porch, room / "0123456789abcdef"):
        path.parent.mkdir(0o700, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert atomik.sweep(fs.here) == []
            assert path.exists()
        assert [orphan.path for orphan in atomik.sweep(fs.here)] == [path]
        assert os.listdir(fs.here) == []


def test_a_writer_that_ends_beside_another_leaves_nothing_of_its_own(fs: Filesystem) -> None:
    destination = fs.here / "site"
    porch, room, _ = _names_of(destination)
    # The writer in the porch ends first, then the one in the room.
    for early, late, left in ((0, 1, room), (1, 0, porch)):
        guards = [_folder(destination), _folder(destination)]
        staged = [guard.__enter__() for guard in guards]
        assert (staged[0].parent, staged[1].parent.parent) == (porch, room)
        _end(guards[early])
        assert set(fs.here.iterdir()) - {destination} == {left}
        assert not staged[early].parent.exists()
        assert staged[late].is_dir()
        assert atomik.sweep(fs.here) == []
        assert staged[late].is_dir()
        _end(guards[late])
        assert set(fs.here.iterdir()) <= {destination}


def _end(guard: AbstractContextManager[Path]) -> None:
    """Ends a body with an error, so that it needs no exchange."""
    guard.__exit__(LookupError, LookupError(), None)


@pytest.mark.parametrize("orphan", ["in the porch", "in the room"])
@pytest.mark.parametrize("remover", ["sweep", "writer"])
def test_an_orphan_beside_a_living_slot_is_removed_and_the_living_one_stays(
    fs: Filesystem, orphan: str, remover: str
) -> None:
    destination = fs.here / "site"
    porch, room, _ = _names_of(destination)
    with ExitStack() as undo:
        if orphan == "in the porch":
            killed = undo.enter_context(_waiting(lambda: _folder(destination)))
            staging = undo.enter_context(_folder(destination))
            assert staging.parent.parent == room
            dead = porch
        else:
            staging = undo.enter_context(_folder(destination))
            killed = undo.enter_context(_waiting(lambda: _folder(destination)))
            assert staging.parent == porch
            (dead,) = room.iterdir()
        (staging / "file").touch()
        (dead / "site" / "file").touch()
        _kill(killed)
        if remover == "sweep":
            (found,) = atomik.sweep(fs.here)
            assert (found.path, found.files, found.removed) == (dead, 1, True)
        else:
            with _rolled_back(destination):
                pass
        assert not dead.exists()
        assert (staging / "file").exists()
        assert set(fs.here.iterdir()) == {porch if orphan == "in the room" else room}
        assert atomik.sweep(fs.here) == []
        assert (staging / "file").exists()
    assert os.listdir(fs.here) == ["site"]


@contextmanager
def _rolled_back(destination: Path) -> Generator[Path, None, None]:
    guard = _folder(destination)
    staging = guard.__enter__()
    try:
        yield staging
    finally:
        _end(guard)


def test_a_sweep_sees_every_orphan_of_a_room_by_its_path(fs: Filesystem) -> None:
    destination = fs.here / "site"
    porch, room, _ = _names_of(destination)
    with ExitStack() as undo:
        programs = [undo.enter_context(_waiting(lambda: _folder(destination))) for _ in range(4)]
        inside = set(room.iterdir())
        assert len(inside) == 3
        assert all(re.fullmatch(r"[0-9a-f]{16}", path.name) for path in inside)
        assert stat.S_IMODE(room.stat().st_mode) == 0o700
        assert atomik.sweep(fs.here) == []
        for program in programs:
            _kill(program)
        for dry_run in (True, False):
            found = atomik.sweep(fs.here, dry_run=dry_run)
            assert {orphan.path for orphan in found} == {porch, *inside}
            assert {orphan.removed for orphan in found} == {not dry_run}
    assert os.listdir(fs.here) == []


def test_a_room_with_nobody_in_it_is_an_orphan(fs: Filesystem) -> None:
    _, room, _ = _names_of(fs.here / "site")
    room.mkdir(0o700)
    (seen,) = atomik.sweep(fs.here, dry_run=True)
    assert (seen.path, seen.files, seen.removed) == (room, 0, False)
    (found,) = atomik.sweep(fs.here)
    assert (found.path, found.removed) == (room, True)
    assert os.listdir(fs.here) == []


def test_where_others_can_rename_a_room_has_a_mode_of_its_own(fs: Filesystem) -> None:
    home = fs.folder("home", 0o777)
    with _folder(home / "site"), _rolled_back(home / "site"):
        for slot in (slot_names.porch(home / "site"), slot_names.room(home / "site")):
            assert stat.S_IMODE(slot.stat().st_mode) == 0o1700
    assert os.listdir(home) == ["site"]


def test_a_glob_for_the_destinations_suffix_does_not_find_our_names(fs: Filesystem) -> None:
    destination = fs.here / "table.parquet"
    with _folder(destination) as one, _rolled_back(destination) as two:
        names = {path.name for path in fs.here.iterdir()}
        assert names == {one.parent.name, two.parent.parent.name}
        assert all(name.endswith("~") for name in names)
        assert not fnmatch.filter(names, "*.parquet")
        assert not fnmatch.filter(os.listdir(one.parent) + os.listdir(two.parent.parent), "*~")
    assert os.listdir(fs.here) == ["table.parquet"]


@with_exchange
def test_a_version_that_is_read_is_left_until_its_reader_has_gone(fs: Filesystem) -> None:
    (fs.folder("site") / "old").touch()
    with _waiting(lambda: atomik.snapshot(fs.here / "site")):
        with _folder(fs.here / "site"):
            pass
        for dry_run in (True, False):
            assert atomik.sweep(fs.here, dry_run=dry_run) == []
        assert (slot_names.porch(fs.here / "site") / "site" / "old").exists()
    (found,) = atomik.sweep(fs.here)
    expected = (slot_names.porch(fs.here / "site"), 1, True)
    assert (found.path, found.files, found.removed) == expected
    assert os.listdir(fs.here) == ["site"]


@with_exchange
@pytest.mark.parametrize("remover", ["sweep", "last reader", "writer"])
def test_a_version_that_is_read_in_a_room_goes_with_its_last_reader(
    fs: Filesystem, remover: str
) -> None:
    (fs.folder("site") / "old").touch()
    porch, room, _ = _names_of(fs.here / "site")
    with ExitStack() as undo, _folder(fs.here / "site"):
        readers = [atomik.snapshot(fs.here / "site") for _ in range(2)]
        paths = [undo.enter_context(reader) for reader in readers]
        with _folder(fs.here / "site"):
            assert porch.exists()
        (slot,) = room.iterdir()
        assert (slot / "site" / "old").exists()
        for dry_run in (True, False):
            assert atomik.sweep(fs.here, dry_run=dry_run) == []
        readers[0].__exit__(None, None, None)
        assert (paths[1] / "old").exists()
        assert (slot / "site" / "old").exists()
        if remover == "last reader":
            readers[1].__exit__(None, None, None)
        else:
            # Without a look at what it leaves, as if it were killed.
            os.close(int(paths[1].name))
            if remover == "sweep":
                (found,) = atomik.sweep(fs.here)
                assert (found.path, found.files, found.removed) == (slot, 1, True)
            else:
                with _rolled_back(fs.here / "site"):
                    pass
        assert not room.exists()
        assert porch.exists()
    assert os.listdir(fs.here) == ["site"]


@pytest.mark.parametrize(("owner", "sweeper"), [(ROOT, NOBODY), (NOBODY, ROOT)], ids=User.label)
def test_another_users_orphan_is_left(fs: Filesystem, owner: User, sweeper: User) -> None:
    home = fs.folder("home", 0o777)
    run_as(owner, lambda: _orphan(home / "site"))
    assert run_as(sweeper, lambda: atomik.sweep(home) == [])
    assert list(home.iterdir()) == [slot_names.porch(home / "site")]
    assert run_as(owner, lambda: [orphan.removed for orphan in atomik.sweep(home)]) == [True]
    assert os.listdir(home) == []


@pytest.mark.parametrize("name", [slot_names.porch, slot_names.room])
def test_a_folder_that_is_no_slot_is_left_where_others_can_rename(
    fs: Filesystem, name: Callable[[Path], Path]
) -> None:
    # Somebody else may have given a private folder the name of a slot, to have it emptied.
    home = fs.folder("home", 0o777)
    slot = name(home / "site")
    slot.mkdir(mode=0o700)
    (slot / "precious").touch()
    (slot / "0123456789abcdef").mkdir(mode=0o700)
    (slot / "0123456789abcdef" / "site").touch()
    before = tree(home)
    assert atomik.sweep(home) == []
    assert tree(home) == before
    slot.rename(home / "precious")


def test_another_users_room_is_left(fs: Filesystem) -> None:
    room = slot_names.room(fs.here / "site", NOBODY.uid)
    slot = room / "0123456789abcdef"
    (slot / "site").mkdir(parents=True)
    before = tree(fs.here)
    assert atomik.sweep(fs.here, older_than=0) == []
    with _rolled_back(fs.here / "site"):
        pass
    assert tree(fs.here) == before
    room.rename(fs.here / "room")


_LOOK_ALIKES: Final = [
    ".atomik-", ".atomik-0", ".atomik-0.", ".atomik-.x~", ".atomik-x.y~", ".atomik--1.x~", ".atomik-1x.y~",
    ".atomik-0x1.y~", ".atomik- 0.x~", ".atomik-0 .x~", ".atomik-lock", ".atomik-lock.", ".atomik-locks.x~",
    ".atomik-0-0123.x~", ".atomik-0-0123456789abcdeg.x~", ".atomik-0-0123456789ABCDEF.x~", ".atomik-backup",
    ".atomik-0-0123456789abcdef0.x~", ".atomik-0-.x~", ".atomik-0-0123456789abcdef-1.x~", ".atomik-0.x~~.",
    ".atomik-u.x~", ".atomik-u-1.x~", ".atomik-u+1.x~", ".atomik-u0x.y~", ".atomik-u4294967296.x~", ".atomik-U0.x~",
    ".atomik-0.x", ".atomik-u0.x", ".atomik-lock.x", ".atomik-1.x~", ".atomik-00.x~", ".atomik-0.~", ".atomik-0~",
    "atomik-0.x~", "x.atomik-0.x~", ".Atomik-0.x~", ".atomik_0.x~", ".atomik-\u0661.x~", ".atomik-u\u0660.x~",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_names_that_only_look_like_ours_are_left(here: Path, kind: str) -> None:
    home = here / "home"
    home.mkdir()
    for name in _LOOK_ALIKES:
        if kind == "file":
            (home / name).write_text("precious")
        else:
            (home / name).mkdir()
            (home / name / "precious").touch()
    before = tree(home)
    assert atomik.sweep(home, recursive=True, older_than=0) == []
    assert tree(home) == before
    for name in _LOOK_ALIKES:
        (home / name).rename(here / name.replace("atomik", "kept"))


def test_things_of_another_kind_under_a_slots_name_are_left(fs: Filesystem) -> None:
    home, precious = fs.folder("home"), fs.folder("precious")
    (precious / "file").touch()
    for name in (slot_names.porch, slot_names.room, slot_names.lock):
        name(home / "a").symlink_to(precious)
        name(home / "b").symlink_to(precious / "file")
        name(home / "c").symlink_to("nowhere")
        os.mkfifo(name(home / "d"))
        os.mknod(name(home / "e"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        parent = os.open(home, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{parent}/{name(home / 'f').name}")
        os.close(parent)
    before = tree(fs.here)
    assert atomik.sweep(fs.here, recursive=True, older_than=0) == []
    assert tree(fs.here) == before
    for path in home.iterdir():
        path.unlink()


def test_folders_below_are_swept_only_if_asked(fs: Filesystem) -> None:
    places = [fs.here, fs.here / "a", fs.here / "a" / "b", fs.here / "c"]
    for place in places:
        place.mkdir(exist_ok=True)
        _orphan(place / "site")
    assert [orphan.path for orphan in atomik.sweep(fs.here)] == [slot_names.porch(fs.here / "site")]
    found = [orphan.path for orphan in atomik.sweep(fs.here, recursive=True)]
    assert sorted(found) == sorted(slot_names.porch(place / "site") for place in places[1:])
    assert fs.leftovers() == []


def test_symlinks_are_not_followed_and_mounts_not_crossed(fs: Filesystem) -> None:
    home, outside, mounted = fs.folder("home"), fs.folder("outside"), fs.folder("mounted")
    for folder in (outside, mounted):
        _orphan(folder / "site")
    (home / "link").symlink_to(outside)
    (home / "mount").mkdir()
    fs.bind(mounted, home / "mount")
    assert atomik.sweep(home, recursive=True) == []
    assert len(fs.leftovers()) >= 2
    # The folder that is named is swept, whatever leads to it.
    assert len(atomik.sweep(home / "link")) == 1
    assert len(atomik.sweep(home / "mount")) == 1
    assert fs.leftovers() == []


def test_an_orphan_holds_no_way_out(fs: Filesystem) -> None:
    precious = fs.folder("precious")
    (precious / "file").write_text("precious")
    _orphan(fs.here / "site")
    staged = slot_names.porch(fs.here / "site") / "site"
    (staged / "link").symlink_to(precious)
    (staged / "hard").hardlink_to(precious / "file")
    before = tree(precious)
    (found,) = atomik.sweep(fs.here)
    assert (found.removed, found.files) == (True, 4)
    assert tree(precious) == before


def test_what_an_ordinary_user_cannot_enter_is_passed_over(fs: Filesystem) -> None:
    home = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)
    (home / "a-secret").mkdir(mode=0o700)
    (home / "open").mkdir()
    os.chown(home / "open", NOBODY.uid, NOBODY.gid)
    run_as(NOBODY, lambda: _orphan(home / "open" / "site"))
    found = run_as(
        NOBODY, lambda: [str(orphan.path) for orphan in atomik.sweep(home, recursive=True)]
    )
    assert found == [str(slot_names.porch(home / "open" / "site"))]


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
def test_what_resists_is_reported_as_not_removed(fs: Filesystem) -> None:
    _orphan(fs.here / "site")
    resisting = slot_names.porch(fs.here / "site") / "site" / "one"
    fs.make_immutable(resisting)
    (found,) = atomik.sweep(fs.here)
    assert not found.removed
    assert resisting.exists()
    kernel.set_immutable(resisting, immutable=False)
    (found,) = atomik.sweep(fs.here)
    assert found.removed
    assert os.listdir(fs.here) == []


@pytest.mark.parametrize("kind", ["porch", "room", "lock", "file", "file in a room"])
def test_of_an_orphan_of_another_lock_domain_only_its_age_tells(fs: Filesystem, kind: str) -> None:
    # And so it is where folders cannot be locked: there each writer is as if in a domain of its own.
    home = fs.folder("home")
    word = {"lock": "lock", "room": f"u{os.geteuid()}", "file in a room": f"u{os.geteuid()}"}
    top = slot_names.foreign(home / "site", word.get(kind, "0"))
    orphan = top / "0123456789abcdef" if top.name.startswith(".atomik-u") else top
    if kind in ("porch", "room"):
        top.mkdir(mode=0o700)
        (orphan / "site").mkdir(parents=True)
    else:
        orphan.parent.mkdir(exist_ok=True, mode=0o700)
        orphan.touch()
    before = tree(home)
    for older_than in (None, 3600, 1e9):
        assert atomik.sweep(home, older_than=older_than) == []
        with _rolled_back(home / "site"):
            pass
        assert tree(home) == before
    _age(orphan, 7200)
    assert atomik.sweep(home, older_than=3 * 3600) == []
    (seen,) = atomik.sweep(home, older_than=3600, dry_run=True)
    assert tree(home) == before
    (found,) = atomik.sweep(home, older_than=3600)
    assert (seen.path, seen.removed, found.path, found.removed) == (orphan, False, orphan, True)
    assert os.listdir(home) == []


def test_an_old_orphan_of_another_lock_domain_that_is_locked_here_is_left(fs: Filesystem) -> None:
    slot = slot_names.foreign(fs.here / "site")
    slot.mkdir(mode=0o700)
    _age(slot, 7200)
    reader = os.open(slot, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX)
    assert atomik.sweep(fs.here, older_than=3600) == []
    os.close(reader)
    assert len(atomik.sweep(fs.here, older_than=3600)) == 1


def test_age_does_not_matter_where_locks_tell(fs: Filesystem) -> None:
    _orphan(fs.here / "site")
    assert len(atomik.sweep(fs.here, older_than=1e9)) == 1


@pytest.mark.parametrize("age", [-1, -0.001, float("nan"), float("inf"), 1e300])
def test_an_age_that_is_none_is_a_value_error(here: Path, age: float) -> None:
    with pytest.raises(ValueError):
        atomik.sweep(here, older_than=age)


@with_exchange
@pytest.mark.parametrize("previous", [True, False], ids=["over a backup", "the first backup"])
@pytest.mark.parametrize("where", ["porch", "room"])
def test_a_displaced_version_that_is_to_be_a_backup_becomes_it(
    fs: Filesystem, previous: bool, where: str
) -> None:
    # What is left when a writer is killed between the exchange and the renaming of the backup.
    (fs.folder("site") / "new").touch()
    if previous:
        (fs.folder("site.bak") / "older").touch()
    slot = slot_names.porch(fs.here / "site")
    if where == "room":
        fs.folder(slot_names.room(fs.here / "site").name, 0o700)
        slot = slot_names.room(fs.here / "site") / "0123456789abcdef"
    slot.mkdir(0o700)
    (slot / "site").mkdir()
    (slot / "site" / "old").touch()
    _mark(slot, staged=fs.here / "site", replaced=fs.here / "site.bak" if previous else None)
    before = tree(fs.here)
    assert len(atomik.sweep(fs.here, dry_run=True)) == 1
    assert tree(fs.here) == before
    (found,) = atomik.sweep(fs.here)
    assert found.removed
    assert tree(fs.here).keys() == {"site", "site/new", "site.bak", "site.bak/old"}


def _mark(slot: Path, *, staged: Path, replaced: Path | None) -> None:
    """Makes the mark of a writer that is about to make a backup."""
    inodes = [path.stat().st_ino if path else 0 for path in (staged, replaced)]
    (slot / ".atomik-backup").symlink_to(f"{inodes[0]}:{inodes[1]}:site/site.bak")


@with_exchange
@pytest.mark.parametrize("previous", [True, False], ids=["over a backup", "the first backup"])
def test_a_backup_that_is_newer_is_not_replaced_by_an_orphan(
    fs: Filesystem, previous: bool
) -> None:
    (fs.folder("site") / "new").touch()
    slot = fs.folder(slot_names.porch(fs.here / "site").name, 0o700)
    (slot / "site").mkdir()
    replaced = fs.folder("older")
    _mark(slot, staged=fs.here / "site", replaced=replaced if previous else None)
    # Meanwhile somebody else has made a backup.
    (fs.folder("site.bak") / "newer").touch()
    (found,) = atomik.sweep(fs.here)
    assert found.removed
    expected = {"older", "site", "site/new", "site.bak", "site.bak/newer"}
    assert tree(fs.here).keys() == expected


@with_exchange
def test_a_staged_version_is_never_taken_for_a_displaced_one(fs: Filesystem) -> None:
    # What is left when a writer is killed between the mark and the exchange.
    (fs.folder("site") / "old").touch()
    (fs.folder("site.bak") / "older").touch()
    slot = fs.folder(slot_names.porch(fs.here / "site").name, 0o700)
    (slot / "site").mkdir()
    _mark(slot, staged=slot / "site", replaced=fs.here / "site.bak")
    (found,) = atomik.sweep(fs.here)
    assert found.removed
    assert tree(fs.here).keys() == {"site", "site/old", "site.bak", "site.bak/older"}


@pytest.mark.parametrize(
    ("name", "number"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR)], ids=str
)
def test_what_is_no_folder_is_an_error(here: Path, name: str, number: int) -> None:
    (here / "file").touch()
    with pytest.raises(OSError) as raised:
        atomik.sweep(here / name)
    assert raised.value.errno == number
    assert raised.value.filename == os.fspath(here / name)


def test_a_folder_that_cannot_be_read_is_an_error(fs: Filesystem) -> None:
    secret = fs.folder("secret", 0o700)
    with pytest.raises(PermissionError) as raised:
        run_as(NOBODY, lambda: len(atomik.sweep(secret)))
    assert raised.value.filename == os.fspath(secret)


def test_paths_of_any_type_are_taken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    spellings: list[Any] = [".", b".", Path(), str(here), os.fsencode(here), here]
    for spelling in spellings:
        _orphan(here / "site")
        (found,) = atomik.sweep(spelling)
        assert found.path == Path(os.fsdecode(spelling)) / slot_names.porch(here / "site").name
        assert found.removed
    assert os.listdir(here) == []


def test_an_orphan_shows_what_it_is(here: Path) -> None:
    _orphan(here / "site")
    (found,) = atomik.sweep(here)
    expected = (
        rf"Orphan\(path=\"{re.escape(str(slot_names.porch(here / 'site')))}\", bytes={found.bytes}, files=2, "
        r"age=\d+\.\d, removed=True\)"
    )
    assert re.fullmatch(expected, repr(found))
    assert found == found
    assert found != atomik.sweep(here)


def test_thousands_of_orphans_go_in_one_sweep(here: Path) -> None:
    for number in range(3000):
        slot = slot_names.porch(here / f"{number}")
        (slot / f"{number}").mkdir(parents=True, mode=0o700)
    assert len(atomik.sweep(here)) == 3000
    assert os.listdir(here) == []


@with_exchange
def test_writers_and_sweeps_do_not_disturb_each_other(fs: Filesystem) -> None:
    fs.folder("site")

    def job(number: int, say: Say, _: Wait) -> None:
        for turn in range(15):
            if number % 4 == 3:
                atomik.sweep(fs.here)
                continue
            with atomik.folder(fs.here / "site", overwrite=True, durability="none") as staging:
                for name in "abc":
                    (staging / name).write_text(f"{number} {turn}")
        say("done")

    with crowd(job, processes=4, threads=2) as writers:
        said = writers.finish()
    assert said == ["done"] * 8
    assert len({(fs.here / "site" / name).read_text() for name in "abc"}) == 1
    assert os.listdir(fs.here) == ["site"]
