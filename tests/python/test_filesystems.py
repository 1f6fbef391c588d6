"""The tests' own ground: filesystems that are what they say, and users that are not root."""

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from support import fuse_servers, kernel
from support.filesystems import Filesystem, Missing, Mounts
from support.mounting import MountFailed
from support.processes import NOBODY, ROOT, run_as


def test_each_test_starts_in_an_empty_folder(fs: Filesystem) -> None:
    assert list(fs.here.iterdir()) == []
    (fs.here / "litter").touch()


def test_each_filesystem_is_the_kernels_own(fs: Filesystem) -> None:
    kinds = {
        os.fsdecode(fields[4]): os.fsdecode(fields[fields.index(b"-") + 1])
        for fields in map(bytes.split, Path("/proc/self/mountinfo").read_bytes().splitlines())
    }
    expected = "fuse" if fs.name == "bindfs" else fs.name
    assert kinds[os.fspath(fs.here.parent)] == expected


def test_the_flags_are_those_that_were_measured(fs: Filesystem) -> None:
    expected = {
        "bindfs": 0,
        "overlay": kernel.NOREPLACE | kernel.EXCHANGE,
    }
    assert fs.flags == expected.get(fs.name, kernel.NOREPLACE | kernel.EXCHANGE | kernel.WHITEOUT)
    assert fs.unnamed == (fs.name != "bindfs")


def test_an_ordinary_user_cannot_write_roots_folder(fs: Filesystem) -> None:
    with pytest.raises(PermissionError):
        run_as(NOBODY, (fs.here / "mine").touch)


def test_an_ordinary_user_owns_what_it_makes(fs: Filesystem) -> None:
    home = fs.folder("home", owner=NOBODY.uid, group=NOBODY.gid)
    run_as(NOBODY, (home / "mine").touch, umask=0o027)
    status = (home / "mine").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (65534, 65534, 0o640)


def test_an_exception_in_the_child_is_the_parents(fs: Filesystem) -> None:
    missing = fs.here / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        run_as(ROOT, missing.read_bytes)
    assert caught.value.filename == os.fspath(missing)


def test_an_immutable_file_stays_until_the_test_ends(fs: Filesystem) -> None:
    path = fs.here / "file"
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


@pytest.mark.parametrize("fs", fuse_servers.SERVERS, indirect=True)
def test_what_is_written_through_a_server_is_there(fs: Filesystem) -> None:
    (fs.here / "file").write_text("content")
    assert os.listdir(fs.here) == ["file"]
    assert fs.here.joinpath("file").read_text() == "content"
    flags = {
        "gocryptfs": kernel.NOREPLACE | kernel.EXCHANGE | kernel.WHITEOUT,
        "fuse-overlayfs": kernel.NOREPLACE | kernel.EXCHANGE | kernel.WHITEOUT,
    }
    assert fs.flags == flags.get(fs.name, 0)
    assert not fs.unnamed


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo no >&2; exit 1", "sh says: no"),
        ("exec sleep 60", "sh does not mount within 1 s"),
    ],
    ids=["ends", "is too slow"],
)
def test_a_server_without_its_mount_skips_nothing(
    program: str, reason: str, mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(_behind: Path, _root: Path) -> fuse_servers.Command:
        return ("sh", "-c", program)

    servers = cast("dict[str, Any]", fuse_servers.SERVERS)
    monkeypatch.setitem(servers, reason, fuse_servers.Server("sh", command))
    monkeypatch.setattr(fuse_servers, "_MOUNT_SECONDS", 1)
    try:
        mounts.mounted("ext4")
        with pytest.raises(MountFailed, match=reason):
            mounts.mounted(reason)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["bindfs", "sshfs"])
def test_locks_do_not_reach_the_other_mount_of_a_folder(name: str, mounts: Mounts) -> None:
    with ExitStack() as undo:
        try:
            sides = mounts.two_mounts(name, undo)
        except Missing as reason:
            pytest.skip(str(reason))
        (sides[0].here / "folder").mkdir()
        for side in sides:
            fd = os.open(side.here / "folder", os.O_RDONLY)
            undo.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
