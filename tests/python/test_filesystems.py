"""The tests' own ground: filesystems that are what they say, and users that are not root."""

import errno
import os
from pathlib import Path

import kernel
import pytest
from filesystems import Filesystem
from processes import NOBODY, ROOT, run_as


def test_each_test_starts_in_an_empty_folder(fs: Filesystem) -> None:
    assert list(fs.path.iterdir()) == []
    (fs.path / "litter").touch()


def test_each_filesystem_is_the_kernels_own(fs: Filesystem) -> None:
    kinds = {
        os.fsdecode(fields[4]): os.fsdecode(fields[fields.index(b"-") + 1])
        for fields in map(bytes.split, Path("/proc/self/mountinfo").read_bytes().splitlines())
    }
    expected = "fuse" if fs.name == "bindfs" else fs.name
    assert kinds[os.fspath(fs.path.parent)] == expected


def test_the_flags_are_those_that_were_measured(fs: Filesystem) -> None:
    expected = {
        "bindfs": 0,
        "overlay": kernel.NOREPLACE | kernel.EXCHANGE,
    }
    assert fs.flags == expected.get(fs.name, kernel.NOREPLACE | kernel.EXCHANGE | kernel.WHITEOUT)
    assert fs.unnamed == (fs.name != "bindfs")


def test_an_ordinary_user_cannot_write_roots_folder(fs: Filesystem) -> None:
    with pytest.raises(PermissionError):
        run_as(NOBODY, (fs.path / "mine").touch)


def test_an_ordinary_user_owns_what_it_makes(fs: Filesystem) -> None:
    home = fs.folder("home", owner=NOBODY.uid, group=NOBODY.gid)
    run_as(NOBODY, (home / "mine").touch, umask=0o027)
    status = (home / "mine").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (65534, 65534, 0o640)


def test_an_exception_in_the_child_is_the_parents(fs: Filesystem) -> None:
    missing = fs.path / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        run_as(ROOT, missing.read_bytes)
    assert caught.value.filename == os.fspath(missing)


def test_an_immutable_file_stays_until_the_test_ends(fs: Filesystem) -> None:
    path = fs.path / "file"
    path.touch()
    fs.make_immutable(path)
    with pytest.raises(PermissionError):
        path.unlink()


@pytest.mark.parametrize("fs", ["overlay"], indirect=True)
def test_a_lower_folder_does_not_move(fs: Filesystem) -> None:
    parent = fs.take_lower()
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        kernel.renameat2(parent / "folder", parent / "moved", 0)


def test_a_bind_mount_is_gone_after_the_test(fs: Filesystem) -> None:
    source, target = fs.folder("source"), fs.folder("target")
    (source / "inside").touch()
    fs.bind(source, target, read_only=True)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (target / "new").touch()
