"""A sandbox that forbids moving between folders is noticed before the body, and named.

Version 1 of Landlock forbids it always, later ones without the right REFER. A rename within one folder
goes on to work there.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import landlock
import pytest
from support.filesystems import Filesystem
from support.processes import NOBODY, ROOT, User, run_as
from support.publishing import ALL, IN_GROUP, MAKING_FILES, MAKING_FOLDERS, Attempt, attempt

pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")

INTERFACES: Final = [number for number in landlock.RIGHTS if number <= landlock.version()]

each_interface = pytest.mark.parametrize("interface", INTERFACES)
each_exists = pytest.mark.parametrize("exists", [False, True], ids=["new", "replaced"])
each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
on_local_filesystems = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)

IN_ONE_FOLDER: Final = ("file", "write_bytes", "write_text")
"""They need no move where there are unnamed files."""


def old(call: str, path: Path) -> None:
    if call in MAKING_FOLDERS:
        path.mkdir()
        (path / "old").touch()
    else:
        path.write_bytes(b"old")


def sandboxed(
    home: Path, call: str, user: User, interface: int, *, exists: bool, **options: Any
) -> Attempt:
    """Makes a call in a sandbox without REFER."""
    if exists:
        old(call, home / "destination")
        os.chown(home / "destination", user.uid, user.gid)

    def work() -> Attempt:
        landlock.restrict(home, interface, without=("REFER",))
        os.mkdir(home / "a")
        os.rename(home / "a", home / "b")
        os.rmdir(home / "b")
        return attempt(ALL[call], home / "destination", overwrite=exists, **options)

    return run_as(user, work)


def assert_refused(made: Attempt, home: Path, exists: bool) -> None:
    assert type(made.error) is atomik.UnsupportedFilesystemError, made.error
    assert made.error.errno == errno.EXDEV
    assert not made.body_ran
    assert made.error.filename == os.fspath(home / "destination")
    message = str(made.error.strerror)
    assert "sandbox" in message
    assert "LANDLOCK_ACCESS_FS_REFER" in message
    assert "overlay" not in message
    assert os.listdir(home) == (["destination"] if exists else [])


@each_interface
@each_exists
@each_user
@on_local_filesystems
@pytest.mark.parametrize("call", ALL)
def test_what_would_move_between_folders_is_refused_before_the_body(
    fs: Filesystem, call: str, user: User, exists: bool, interface: int
) -> None:
    home = fs.folder("home", owner=user.uid, group=user.gid)
    made = sandboxed(home, call, user, interface, exists=exists)
    if call in IN_ONE_FOLDER:
        assert made.error is None
        assert (home / "destination").read_bytes() == b"new"
    else:
        assert_refused(made, home, exists)


@each_interface
@pytest.mark.parametrize("call", ALL)
def test_a_backup_and_a_tmp_dir_are_refused_before_the_body(
    here: Path, call: str, interface: int
) -> None:
    for name, exists in (("backup", True), ("tmp_dir", False), ("tmp_dir", True)):
        (home := here / f"{name} {exists}").mkdir()
        value = "destination.old" if name == "backup" else home
        if name == "tmp_dir":
            (value := home / "tmp").mkdir()
        made = sandboxed(home, call, ROOT, interface, exists=exists, **{name: value})
        if name == "tmp_dir":
            (home / "tmp").rmdir()
        assert_refused(made, home, exists)


@each_interface
@each_exists
@pytest.mark.parametrize("call", IN_GROUP)
def test_a_group_refuses_its_members_before_their_bodies(
    here: Path, call: str, exists: bool, interface: int
) -> None:
    if exists:
        old(call, here / "destination")

    def work() -> Attempt:
        landlock.restrict(here, interface, without=("REFER",))
        with atomik.group() as group:
            return attempt(IN_GROUP[call], here / "destination", group=group, overwrite=exists)

    assert_refused(run_as(ROOT, work), here, exists)


@each_interface
@on_local_filesystems
def test_probe_tells_the_truth(fs: Filesystem, interface: int) -> None:
    def answers(without: tuple[str, ...]) -> tuple[bool, ...]:
        landlock.restrict(fs.here, interface, without)
        probe = atomik.probe(fs.here)
        return probe.noreplace, probe.exchange, probe.hard_links, probe.unnamed_files

    assert run_as(ROOT, partial(answers, ("REFER",))) == (False, False, True, True)
    if interface > 1:
        assert run_as(ROOT, partial(answers, ())) == (True, True, True, True)


@each_interface
def test_files_are_replaced_although_another_writer_is_at_it(here: Path, interface: int) -> None:
    destination = here / "destination"
    destination.write_bytes(b"old")

    def work() -> None:
        landlock.restrict(here, interface, without=("REFER",))
        atomik.write_bytes(destination, b"new", overwrite=True)

    # It holds the porch, so that the other has to use another name for a moment.
    with atomik.path(destination, overwrite=True) as staging:
        staging.write_bytes(b"newer")
        run_as(ROOT, work)
        assert destination.read_bytes() == b"new"
        assert len(os.listdir(here)) == 2
    assert destination.read_bytes() == b"newer"


@pytest.mark.skipif(landlock.version() < 2, reason="this kernel's Landlock has no REFER")
@each_exists
@pytest.mark.parametrize("interface", INTERFACES[1:])
@pytest.mark.parametrize("call", ALL)
def test_a_sandbox_that_allows_it_changes_nothing(
    here: Path, call: str, exists: bool, interface: int
) -> None:
    if exists:
        old(call, here / "destination")

    def work() -> None:
        landlock.restrict(here, interface)
        ALL[call](here / "destination", overwrite=exists)

    run_as(ROOT, work)
    assert os.listdir(here) == ["destination"]


MISSING: Final = ("MAKE_REG", "MAKE_DIR", "WRITE_FILE", "READ_DIR", "REMOVE_FILE", "REMOVE_DIR")


def wrong(call: str, home: Path, right: str, exists: bool) -> Iterator[str]:
    """Makes a call in a sandbox without one right, and says what is wrong with its error."""
    destination = home / "destination"
    home.mkdir()
    if exists:
        old(call, destination)

    def work() -> OSError | None:
        landlock.restrict(home, INTERFACES[-1], without=(right,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attempt(ALL[call], destination, overwrite=exists).error

    error = run_as(ROOT, work)
    if error is not None and not isinstance(error, PermissionError):
        yield f"{call} without {right}: {error!r}"
    if "writable" in str(error) and "sandbox" not in str(error):
        yield f"{call} without {right} blames the folder: {error}"
    if error is not None and exists and not destination.exists():
        yield f"{call} without {right} has lost the old version"


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("right", MISSING)
def test_no_other_missing_right_costs_the_old_version(here: Path, right: str) -> None:
    assert [
        found
        for call in (*MAKING_FILES, *MAKING_FOLDERS)
        for exists in (False, True)
        for found in wrong(call, here / f"{call} {exists}", right, exists)
    ] == []
