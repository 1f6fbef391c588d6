"""What is kept of a replaced version beside mode, owner and ACL, and that what is lost never widens rights."""

import errno
import itertools
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel, publishing
from support.filesystems import Filesystem
from support.processes import NOBODY, run_as
from support.publishing import ALL, MAKING_FILES, MAKING_FOLDERS
from support.xattrs import ACCESS, allowing, attributes, set_attribute

OTHER_USER: Final = 12345

LABELS: Final = {
    "security.selinux": b"system_u:object_r:shadow_t:s0\0",
    "security.SMACK64": b"secret",
}

each_call = pytest.mark.parametrize("call", ALL)


@pytest.fixture(autouse=True)
def folders_can_be_published(request: pytest.FixtureRequest, fs: Filesystem) -> None:
    """Skips what needs folders to be exchanged; test_matrix.py says what happens elsewhere."""
    call = request.node.callspec.params.get("call")
    if not fs.flags and call in (*MAKING_FOLDERS, None):
        pytest.skip(f"{fs.name} cannot publish folders")


def make_old(call: str, path: Path) -> None:
    if call in MAKING_FILES:
        path.write_bytes(b"old")
    else:
        path.mkdir()
        (path / "old").write_bytes(b"old")


def publish(call: str, destination: Path) -> None:
    ALL[call](destination, publishing.nothing, overwrite=True)


# Security labels


def set_label(path: Path, name: str, value: bytes) -> None:
    try:
        supported = set_attribute(path, name, value)
    except OSError as error:
        # A running security module has a say in its own labels.
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.EACCES):
            raise
        pytest.skip(f"{name} cannot be set here: {error}")
    if not supported:
        pytest.skip("there are no such labels here")


@pytest.mark.parametrize(("name", "value"), LABELS.items(), ids=LABELS)
@each_call
def test_replacing_keeps_security_labels(
    fs: Filesystem, call: str, name: str, value: bytes
) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    set_label(destination, name, value)
    publish(call, destination)
    assert attributes(destination, ["security."]) == {name: value}


@pytest.mark.parametrize(("name", "value"), LABELS.items(), ids=LABELS)
def test_an_update_keeps_the_label_of_the_folder_and_of_what_is_in_it(
    fs: Filesystem, name: str, value: bytes
) -> None:
    destination = fs.folder("destination")
    (destination / "file").write_text("old")
    for path in (destination, destination / "file"):
        set_label(path, name, value)
    with atomik.folder(destination, update=True) as staging:
        assert attributes(staging, ["security."]) == {name: value}
    for path in (destination, destination / "file"):
        assert attributes(path, ["security."]) == {name: value}


@each_call
def test_what_is_about_the_old_content_is_not_kept(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    # setcap(8), cap_net_raw+ep: <linux/capability.h>, VFS_CAP_REVISION_2 with the effective bit.
    set_label(
        destination, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    )
    publish(call, destination)
    assert attributes(destination, ["security."]) == {}


@each_call
def test_an_ordinary_user_replaces_what_has_a_label(fs: Filesystem, call: str) -> None:
    home = fs.folder("home", 0o777)
    destination = home / "destination"
    run_as(NOBODY, partial(make_old, call, destination))
    set_label(destination, "security.SMACK64", b"secret")
    run_as(NOBODY, partial(publish, call, destination))
    assert destination.exists()


# Inode flags

PLAIN_FLAGS: Final = {
    "no dump": kernel.NO_DUMP,
    "no access time": kernel.NO_ACCESS_TIME,
    "synchronous": kernel.SYNCHRONOUS,
    "all three": kernel.NO_DUMP | kernel.NO_ACCESS_TIME | kernel.SYNCHRONOUS,
}


def set_flags(path: Path, flags: int) -> None:
    try:
        kernel.set_inode_flags(path, kernel.inode_flags(path) | flags)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        pytest.skip(f"there is no such flag here: {error}")
    if kernel.inode_flags(path) & flags != flags:
        pytest.skip("there is no such flag here")


@pytest.mark.parametrize("flags", PLAIN_FLAGS.values(), ids=PLAIN_FLAGS)
@each_call
def test_replacing_keeps_inode_flags(fs: Filesystem, call: str, flags: int) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    set_flags(destination, flags)
    before = kernel.inode_flags(destination)
    publish(call, destination)
    assert kernel.inode_flags(destination) & flags == before & flags


@pytest.mark.parametrize("fs", ["btrfs"], indirect=True)
@each_call
def test_what_is_without_copy_on_write_stays_so(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    if call in MAKING_FILES:
        # It takes effect on an empty file only.
        destination.touch()
    else:
        destination.mkdir()
    set_flags(destination, kernel.NO_COPY_ON_WRITE)
    publish(call, destination)
    inside = [] if call in MAKING_FILES else [destination / "new", destination / "inner"]
    for path in (destination, *inside):
        assert kernel.inode_flags(path) & kernel.NO_COPY_ON_WRITE, path


@pytest.mark.parametrize("fs", ["btrfs"], indirect=True)
@pytest.mark.parametrize("call", ["file, a", "file, r+", "path"])
def test_a_changed_file_without_copy_on_write_stays_so(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    destination.touch()
    set_flags(destination, kernel.NO_COPY_ON_WRITE)
    destination.write_bytes(b"old" * 100_000)
    if call == "path":
        with atomik.path(destination, update=True):
            pass
    else:
        with atomik.file(destination, "a" if call == "file, a" else "r+"):
            pass
    assert kernel.inode_flags(destination) & kernel.NO_COPY_ON_WRITE
    assert destination.read_bytes() == b"old" * 100_000


@pytest.mark.parametrize("fs", ["btrfs"], indirect=True)
def test_an_update_keeps_what_has_copy_on_write_and_what_has_not(fs: Filesystem) -> None:
    destination = fs.folder("destination")
    plain = destination / "plain"
    plain.write_bytes(b"old" * 100_000)
    set_flags(destination, kernel.NO_COPY_ON_WRITE)
    (destination / "inner").mkdir()
    (destination / "inner" / "image").write_bytes(b"old" * 100_000)
    before = {path: kernel.inode_flags(path) for path in (destination, *destination.rglob("*"))}
    assert before[destination / "inner" / "image"] & kernel.NO_COPY_ON_WRITE
    with atomik.folder(destination, update=True) as staging:
        (staging / "added").touch()
    for path, flags in before.items():
        assert kernel.inode_flags(path) == flags, path
    assert kernel.inode_flags(destination / "added") & kernel.NO_COPY_ON_WRITE


def test_an_update_keeps_the_flags_of_the_folder_and_of_what_is_in_it(fs: Filesystem) -> None:
    destination = fs.folder("destination")
    (destination / "inner").mkdir()
    (destination / "file").write_text("old")
    (destination / "inner" / "plain").write_text("old")
    for path in (destination / "file", destination / "inner", destination):
        set_flags(path, kernel.NO_DUMP | kernel.NO_ACCESS_TIME)
    before = {path: kernel.inode_flags(path) for path in (destination, *destination.rglob("*"))}
    with atomik.folder(destination, update=True):
        pass
    flags = kernel.NO_DUMP | kernel.NO_ACCESS_TIME
    for path, had in before.items():
        assert kernel.inode_flags(path) & flags == had & flags, path


# Without /proc, and in a user namespace

WITHOUT_PROC: Final = ("unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$0" "$@"')
ONE_USER: Final = ("unshare", "--user", "--map-root-user")

REPLACE: Final = """
import os, sys
from support import publishing
call, destination, *ids = sys.argv[1:]
if ids:
    # After the imports: the code may be in a folder that this user may not enter.
    user, group = map(int, ids)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
publishing.ALL[call](destination, overwrite=True)
"""

UPDATE: Final = """
import sys
import atomik
with atomik.folder(sys.argv[1], update=True):
    pass
"""


def run(around: tuple[str, ...], program: str, *arguments: object) -> None:
    """Runs a program in a sandbox of unshare(1)."""
    tried = subprocess.run([*around, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no such sandbox here: {tried.stderr.strip()}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*around, sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)


@each_call
def test_without_proc_acl_and_attributes_are_kept(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    destination.chmod(0o600)
    if not set_attribute(destination, ACCESS, allowing(OTHER_USER, group=0)):
        pytest.skip(f"{fs.name} has no ACLs here")
    set_attribute(destination, "user.note", b"kept")
    before = attributes(destination), destination.stat().st_mode
    run(WITHOUT_PROC, REPLACE, call, destination)
    assert (attributes(destination), destination.stat().st_mode) == before


@pytest.mark.parametrize("call", ["file", "write_bytes", "path to a file"])
@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)
def test_without_proc_an_acl_that_cannot_be_read_is_refused(fs: Filesystem, call: str) -> None:
    home = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)
    destination = home / "destination"
    make_old(call, destination)
    destination.chmod(0o600)
    with pytest.raises(RuntimeError, match=r"PermissionError.*mount /proc, or pass preserve=False"):
        run(WITHOUT_PROC, REPLACE, call, destination, NOBODY.uid, NOBODY.gid)
    assert destination.read_bytes() == b"old"
    assert os.listdir(home) == ["destination"]


@pytest.mark.parametrize("around", [WITHOUT_PROC, ONE_USER], ids=["no /proc", "user namespace"])
@pytest.mark.parametrize("named", [0o0, 0o4, 0o6], ids=oct)
@pytest.mark.parametrize("others", [0o0, 0o4], ids=oct)
@each_call
def test_an_acl_for_a_user_without_a_number_here_never_becomes_wider_rights(
    fs: Filesystem, call: str, others: int, named: int, around: tuple[str, ...]
) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    acl = allowing(OTHER_USER, named, owner=0o7, group=0o4, other=others)
    if not set_attribute(destination, ACCESS, acl):
        pytest.skip(f"{fs.name} has no ACLs here")
    run(around, REPLACE, call, destination)
    for user, group in itertools.product((OTHER_USER, 777), (0, 888)):
        assert rights(destination, user, group) & ~granted(acl, user, group) == 0, (user, group)
    assert destination.stat().st_mode & 0o700 == 0o700


@pytest.mark.parametrize("named", [0o0, 0o6], ids=oct)
def test_an_update_where_users_have_no_number_never_widens_rights(
    fs: Filesystem, named: int
) -> None:
    destination = fs.folder("destination")
    (destination / "inner").mkdir()
    (destination / "inner" / "file").write_text("old")
    acl = allowing(OTHER_USER, named, group=0o4, other=0o4)
    paths = [destination, destination / "inner", destination / "inner" / "file"]
    if not all(set_attribute(path, ACCESS, acl) for path in paths):
        pytest.skip(f"{fs.name} has no ACLs here")
    run(ONE_USER, UPDATE, destination)
    for path, user, group in itertools.product(paths, (OTHER_USER, 777), (0, 888)):
        assert rights(path, user, group) & ~granted(acl, user, group) == 0, (path, user, group)


@each_call
def test_a_file_of_a_user_without_a_number_is_replaced(fs: Filesystem, call: str) -> None:
    destination = fs.here / "destination"
    make_old(call, destination)
    os.chown(destination, 0, 2345)
    destination.chmod(0o775)
    run(ONE_USER, REPLACE, call, destination)
    # The group cannot be kept: no other group gets more than all others have.
    assert stat.S_IMODE(destination.stat().st_mode) == 0o755
    assert destination.stat().st_gid == 0


def test_the_copies_of_an_update_give_another_group_no_more_than_all_others_have(
    fs: Filesystem,
) -> None:
    home = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)
    destination = home / "destination"

    def make() -> None:
        destination.mkdir()
        (destination / "file").write_text("old")

    run_as(NOBODY, make)
    os.chown(destination / "file", NOBODY.uid, 2345)
    (destination / "file").chmod(0o664)

    def update() -> None:
        with atomik.folder(destination, update=True):
            pass

    run_as(NOBODY, update)
    status = (destination / "file").stat()
    assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY.gid, 0o644)


def rights(path: Path, user: int, group: int) -> int:
    """Returns what a user who owns nothing may do here, by ACL or mode."""
    found = attributes(path).get(ACCESS)
    mode = path.stat().st_mode
    if found is not None:
        return granted(found, user, group)
    return mode >> 3 & 0o7 if group == path.stat().st_gid else mode & 0o7


def granted(acl: bytes, user: int, group: int) -> int:
    """Returns what an ACL gives a user who owns nothing; its own group is 0. See acl(5)."""
    entries = [struct.unpack_from("<HHI", acl, at) for at in range(4, len(acl), 8)]
    by_tag: Callable[[int], list[int]] = lambda tag: [r for t, r, _ in entries if t == tag]  # noqa: E731
    (mask,) = by_tag(0x10) or [0o7]
    for tag, allowed, number in entries:
        if tag == 0x02 and number == user:
            return int(allowed & mask)
    if group == 0:
        return by_tag(0x04)[0] & mask
    return by_tag(0x20)[0]
