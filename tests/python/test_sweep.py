"""`atomik.sweep` removes what killed processes have left, reports it, and touches nothing else.

Orphans are real: processes end in the middle of a body (os._exit, which runs no destructor).
"""

import errno
import fcntl
import os
import re
import signal
import socket
import stat
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import atomik
import kernel
import pytest
from crowds import Say, Wait, crowd
from filesystems import Filesystem
from processes import NOBODY, ROOT, User, run_as
from trees import identities, tree

with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)

_RANDOM: Final = ".atomik-r0123456789abcdef.site"


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


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def _allocated(folder: Path) -> int:
    """Returns what du(1) says of all below a folder."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512


def test_an_orphan_is_reported_and_removed(fs: Filesystem) -> None:
    _orphan(fs.path / "site")
    slot = fs.path / ".atomik-0.site"
    os.sync()
    size = _allocated(slot)
    assert size >= 10_000
    _age(slot, 5000)
    (found,) = atomik.sweep(fs.path)
    assert isinstance(found, atomik.Orphan)
    assert type(found.path) is type(Path())
    assert (found.path, found.bytes, found.files, found.removed) == (slot, size, 2, True)
    assert 5000 <= found.age < 6000
    assert os.listdir(fs.path) == []
    assert atomik.sweep(fs.path) == []


def test_a_dry_run_reports_the_same_and_touches_nothing(fs: Filesystem) -> None:
    _orphan(fs.path / "site")
    before = identities(fs.path)
    (seen,) = atomik.sweep(fs.path, dry_run=True)
    assert identities(fs.path) == before
    assert not seen.removed
    (found,) = atomik.sweep(fs.path)
    assert (found.path, found.bytes, found.files) == (seen.path, seen.bytes, seen.files)
    assert found.removed


@with_exchange
def test_every_orphan_of_every_destination_goes(fs: Filesystem) -> None:
    names = ["a", "b.txt", "ü\udcff\n", "n" * 255, ".hidden", "1.2.3"]
    for name in names:
        for count in range(3):
            with _folder(fs.path / name):
                _orphan(fs.path / name)
                assert len(fs.leftovers()) >= 1, count
            _orphan(fs.path / name)
            # Each of these has removed the one before it.
    assert len(atomik.sweep(fs.path)) == len(names)
    assert fs.leftovers() == []
    assert sorted(os.listdir(fs.path)) == sorted(names)


def test_staging_in_a_folder_of_its_own_is_swept_there(fs: Filesystem) -> None:
    elsewhere = fs.folder("elsewhere")
    _orphan(fs.path / "site", tmp_dir=elsewhere)
    assert atomik.sweep(fs.path) == []
    (found,) = atomik.sweep(elsewhere)
    assert found.path == elsewhere / ".atomik-0.site"
    assert os.listdir(elsewhere) == []


def test_orphans_of_files_and_of_the_lock_go_too(fs: Filesystem) -> None:
    (fs.path / ".atomik-0.file").write_bytes(bytes(5000))
    (fs.path / ".atomik-lock.site").touch()
    found = {orphan.path.name: orphan for orphan in atomik.sweep(fs.path)}
    assert sorted(found) == [".atomik-0.file", ".atomik-lock.site"]
    assert all(orphan.removed and orphan.files == 1 for orphan in found.values())
    assert os.listdir(fs.path) == []


def test_what_lives_is_left(fs: Filesystem) -> None:
    with _folder(fs.path / "site") as staging:
        (staging / "file").touch()
        _orphan(fs.path / "other")
        (found,) = atomik.sweep(fs.path)
        assert found.path.name == ".atomik-0.other"
        assert (staging / "file").exists()
    assert (fs.path / "site" / "file").exists()


def test_a_lock_that_is_held_is_left(fs: Filesystem) -> None:
    for name in (".atomik-lock.site", ".atomik-0.file"):
        with (fs.path / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert atomik.sweep(fs.path) == []
            assert (fs.path / name).exists()
        assert [orphan.path.name for orphan in atomik.sweep(fs.path)] == [name]


def test_what_leads_to_a_living_slot_stays_and_goes_with_it(fs: Filesystem) -> None:
    # Two writers; the first ends, the second is still there: the first's slot leads to it.
    first, second = _folder(fs.path / "site"), _folder(fs.path / "site")
    first.__enter__()
    staging = second.__enter__()
    first.__exit__(None, None, None)
    names = [".atomik-0.site", ".atomik-1.site", "site"]
    if fs.flags & kernel.EXCHANGE:
        assert sorted(os.listdir(fs.path)) == names
    assert atomik.sweep(fs.path) == []
    assert sorted(os.listdir(fs.path)) == names
    assert staging.is_dir()
    second.__exit__(LookupError, LookupError(), None)
    assert os.listdir(fs.path) == ["site"]


def test_an_orphan_below_a_living_slot_is_emptied_and_still_leads_there(fs: Filesystem) -> None:
    with _waiting(lambda: _folder(fs.path / "site")) as pid:
        with _folder(fs.path / "site") as staging:
            assert staging.parent.name == ".atomik-1.site"
            (fs.path / ".atomik-0.site" / "site" / "file").touch()
            _kill(pid)
            (found,) = atomik.sweep(fs.path)
            assert (found.path.name, found.files, found.removed) == (".atomik-0.site", 1, True)
            assert os.listdir(fs.path / ".atomik-0.site") == []
            assert atomik.sweep(fs.path) == []
            assert staging.is_dir()
    assert os.listdir(fs.path) == ["site"]


@with_exchange
def test_a_version_that_is_read_is_left_until_its_reader_has_gone(fs: Filesystem) -> None:
    (fs.folder("site") / "old").touch()
    with _waiting(lambda: atomik.snapshot(fs.path / "site")):
        with _folder(fs.path / "site"):
            pass
        for dry_run in (True, False):
            assert atomik.sweep(fs.path, dry_run=dry_run) == []
        assert (fs.path / ".atomik-0.site" / "site" / "old").exists()
    (found,) = atomik.sweep(fs.path)
    assert (found.path.name, found.files, found.removed) == (".atomik-0.site", 1, True)
    assert os.listdir(fs.path) == ["site"]


@pytest.mark.parametrize(("owner", "sweeper"), [(ROOT, NOBODY), (NOBODY, ROOT)], ids=User.label)
def test_another_users_orphan_is_left(fs: Filesystem, owner: User, sweeper: User) -> None:
    home = fs.folder("home", 0o777)
    run_as(owner, lambda: _orphan(home / "site"))
    assert run_as(sweeper, lambda: atomik.sweep(home) == [])
    assert os.listdir(home) == [".atomik-0.site"]
    assert run_as(owner, lambda: [orphan.removed for orphan in atomik.sweep(home)]) == [True]
    assert os.listdir(home) == []


def test_a_folder_that_is_no_slot_is_left_where_others_can_rename(fs: Filesystem) -> None:
    # Somebody else may have given a private folder the name of a slot, to have it emptied.
    home = fs.folder("home", 0o777)
    (home / ".atomik-0.site").mkdir(mode=0o700)
    (home / ".atomik-0.site" / "precious").touch()
    before = tree(home)
    assert atomik.sweep(home) == []
    assert tree(home) == before
    (home / ".atomik-0.site").rename(home / "precious")


_LOOK_ALIKES: Final = [
    ".atomik-", ".atomik-0", ".atomik-0.", ".atomik-.x", ".atomik-x.y", ".atomik--1.x", ".atomik-1x.y",
    ".atomik-0x1.y", ".atomik- 1.x", ".atomik-1 .x", ".atomik-lock", ".atomik-lock.", ".atomik-locks.x",
    ".atomik-r0123.x", ".atomik-r0123456789abcdeg.x", ".atomik-99999999999.x", ".atomik-backup",
    "atomik-0.x", "x.atomik-0.x", ".Atomik-0.x", ".atomik_0.x", ".atomik-\u0661.x",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_names_that_only_look_like_ours_are_left(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
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
        (home / name).rename(tmp_path / name.replace("atomik", "kept"))


def test_things_of_another_kind_under_a_slots_name_are_left(fs: Filesystem) -> None:
    home, precious = fs.folder("home"), fs.folder("precious")
    (precious / "file").touch()
    (home / ".atomik-0.a").symlink_to(precious)
    (home / ".atomik-0.b").symlink_to(precious / "file")
    (home / ".atomik-0.c").symlink_to("nowhere")
    os.mkfifo(home / ".atomik-0.d")
    os.mknod(home / ".atomik-0.e", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    parent = os.open(home, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{parent}/.atomik-0.f")
    os.close(parent)
    before = tree(fs.path)
    assert atomik.sweep(fs.path, recursive=True, older_than=0) == []
    assert tree(fs.path) == before
    for path in home.iterdir():
        path.unlink()


def test_folders_below_are_swept_only_if_asked(fs: Filesystem) -> None:
    places = [fs.path, fs.path / "a", fs.path / "a" / "b", fs.path / "c"]
    for place in places:
        place.mkdir(exist_ok=True)
        _orphan(place / "site")
    assert [orphan.path for orphan in atomik.sweep(fs.path)] == [fs.path / ".atomik-0.site"]
    found = [orphan.path for orphan in atomik.sweep(fs.path, recursive=True)]
    assert sorted(found) == sorted(place / ".atomik-0.site" for place in places[1:])
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
    _orphan(fs.path / "site")
    staged = fs.path / ".atomik-0.site" / "site"
    (staged / "link").symlink_to(precious)
    (staged / "hard").hardlink_to(precious / "file")
    before = tree(precious)
    (found,) = atomik.sweep(fs.path)
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
    assert found == [str(home / "open" / ".atomik-0.site")]


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
def test_what_resists_is_reported_as_not_removed(fs: Filesystem) -> None:
    _orphan(fs.path / "site")
    resisting = fs.path / ".atomik-0.site" / "site" / "one"
    fs.make_immutable(resisting)
    (found,) = atomik.sweep(fs.path)
    assert not found.removed
    assert resisting.exists()
    kernel.set_immutable(resisting, immutable=False)
    (found,) = atomik.sweep(fs.path)
    assert found.removed
    assert os.listdir(fs.path) == []


def test_where_folders_have_no_locks_only_age_tells(tmp_path: Path) -> None:
    slot = tmp_path / _RANDOM
    slot.mkdir(mode=0o700)
    (slot / "site").mkdir()
    for older_than in (None, 3600, 1e9):
        assert atomik.sweep(tmp_path, older_than=older_than) == []
    _age(slot, 7200)
    assert atomik.sweep(tmp_path, older_than=3 * 3600) == []
    (seen,) = atomik.sweep(tmp_path, older_than=3600, dry_run=True)
    assert slot.exists()
    (found,) = atomik.sweep(tmp_path, older_than=3600)
    assert (seen.path, seen.removed, found.path, found.removed) == (slot, False, slot, True)
    assert os.listdir(tmp_path) == []


def test_age_does_not_matter_where_locks_tell(fs: Filesystem) -> None:
    _orphan(fs.path / "site")
    assert len(atomik.sweep(fs.path, older_than=1e9)) == 1


@pytest.mark.parametrize("age", [-1, -0.001, float("nan"), float("inf"), 1e300])
def test_an_age_that_is_none_is_a_value_error(tmp_path: Path, age: float) -> None:
    with pytest.raises(ValueError):
        atomik.sweep(tmp_path, older_than=age)


@with_exchange
@pytest.mark.parametrize("previous", [True, False], ids=["over a backup", "the first backup"])
def test_a_displaced_version_that_is_to_be_a_backup_becomes_it(
    fs: Filesystem, previous: bool
) -> None:
    # What is left when a writer is killed between the exchange and the renaming of the backup.
    (fs.folder("site") / "new").touch()
    if previous:
        (fs.folder("site.bak") / "older").touch()
    slot = fs.folder(".atomik-0.site", 0o700)
    (slot / "site").mkdir()
    (slot / "site" / "old").touch()
    (slot / ".atomik-backup").symlink_to(f"{(slot / 'site').stat().st_ino}:site.bak")
    before = tree(fs.path)
    assert len(atomik.sweep(fs.path, dry_run=True)) == 1
    assert tree(fs.path) == before
    (found,) = atomik.sweep(fs.path)
    assert found.removed
    assert tree(fs.path).keys() == {"site", "site/new", "site.bak", "site.bak/old"}


@pytest.mark.parametrize(
    ("name", "number"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR)], ids=str
)
def test_what_is_no_folder_is_an_error(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as raised:
        atomik.sweep(tmp_path / name)
    assert raised.value.errno == number
    assert raised.value.filename == os.fspath(tmp_path / name)


def test_a_folder_that_cannot_be_read_is_an_error(fs: Filesystem) -> None:
    secret = fs.folder("secret", 0o700)
    with pytest.raises(PermissionError) as raised:
        run_as(NOBODY, lambda: len(atomik.sweep(secret)))
    assert raised.value.filename == os.fspath(secret)


def test_paths_of_any_type_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spellings: list[Any] = [".", b".", Path(), str(tmp_path), os.fsencode(tmp_path), tmp_path]
    for spelling in spellings:
        _orphan(tmp_path / "site")
        (found,) = atomik.sweep(spelling)
        assert found.path == Path(os.fsdecode(spelling)) / ".atomik-0.site"
        assert found.removed
    assert os.listdir(tmp_path) == []


def test_an_orphan_shows_what_it_is(tmp_path: Path) -> None:
    _orphan(tmp_path / "site")
    (found,) = atomik.sweep(tmp_path)
    expected = (
        rf"Orphan\(path=\"{tmp_path}/\.atomik-0\.site\", bytes={found.bytes}, files=2, "
        r"age=\d+\.\d, removed=True\)"
    )
    assert re.fullmatch(expected, repr(found))
    assert found == found
    assert found != atomik.sweep(tmp_path)


def test_thousands_of_orphans_go_in_one_sweep(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f".atomik-0.{number}" / f"{number}").mkdir(parents=True, mode=0o700)
    assert len(atomik.sweep(tmp_path)) == 3000
    assert os.listdir(tmp_path) == []


@with_exchange
def test_writers_and_sweeps_do_not_disturb_each_other(fs: Filesystem) -> None:
    fs.folder("site")

    def job(number: int, say: Say, _: Wait) -> None:
        for turn in range(15):
            if number % 4 == 3:
                atomik.sweep(fs.path)
                continue
            with atomik.folder(fs.path / "site", overwrite=True, durability="none") as staging:
                for name in "abc":
                    (staging / name).write_text(f"{number} {turn}")
        say("done")

    with crowd(job, processes=4, threads=2) as writers:
        said = writers.finish()
    assert said == ["done"] * 8
    assert len({(fs.path / "site" / name).read_text() for name in "abc"}) == 1
    assert os.listdir(fs.path) == ["site"]
