"""`update=True`: staging is a complete clone of the present version, and shares no inode with it.

The trees are those of `support/hard_trees.py`, each built, cloned and compared on each filesystem, by root and
by an ordinary user. What cannot be cloned is refused before the body, by its name.
"""

import errno
import fcntl
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import xattrs
from support.filesystems import Filesystem
from support.hard_trees import FOR_ROOT, TREES, Build
from support.processes import NOBODY, ROOT, User, run_as, run_program
from support.trees import describe, describe_one, inodes

# <linux/fiemap.h>: _IOWR('f', 11, struct fiemap), and the layout of that and of an extent.
_FIEMAP: Final = 0xC020660B
_REQUEST: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
_SYNC, _MOST = 1, 64

_CASES: Final = [
    *(pytest.param(user, build, id=f"{user.label()}-{name}")
      for user in (ROOT, NOBODY) for name, build in TREES.items()),
    *(pytest.param(ROOT, build, id=f"root-{name}") for name, build in FOR_ROOT.items()),
]  # fmt: skip

# A folder is replaced by an exchange, which libfuse 2 does not hand on.
with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)
each_opening = pytest.mark.parametrize(
    "opening", [atomik.folder, atomik.path], ids=["folder", "path"]
)


def _update(destination: Path, **options: Any) -> "atomik.Folder":
    """Without syncs, which are other tests' subject."""
    options = {"durability": "none", **options}
    return atomik.folder(destination, update=True, **options)


def _home(fs: Filesystem, user: User = ROOT) -> Path:
    return fs.folder("home", 0o755, user.uid, user.gid)


@with_exchange
@pytest.mark.parametrize(("user", "build"), _CASES)
def test_staging_is_a_complete_clone_of_inodes_of_its_own(
    fs: Filesystem, user: User, build: Build
) -> None:
    destination = _home(fs, user) / "site"

    def update() -> None:
        destination.mkdir()
        build(destination)
        before = describe(destination)
        assert before
        with _update(destination) as staging:
            assert describe(staging) == before
            assert not inodes(staging) & inodes(destination)
        assert describe(destination) == before

    run_as(user, update)


@with_exchange
def test_access_times_are_cloned_too(fs: Filesystem) -> None:
    destination = fs.folder("site")
    TREES["times"](destination)
    names = ["folder/file", "folder/inner/file", "folder/fifo", "folder"]
    before = {name: (destination / name).stat().st_atime_ns for name in names}
    with _update(destination) as staging:
        assert {name: (staging / name).stat().st_atime_ns for name in names} == before


@with_exchange
@pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
def test_the_folder_itself_keeps_its_mode_owner_attributes_and_acls(
    fs: Filesystem, user: User
) -> None:
    destination = _home(fs, user) / "site"

    def update() -> None:
        destination.mkdir()
        xattrs.set_attribute(destination, "user.atomik", b"mine")
        xattrs.set_attribute(destination, xattrs.ACCESS, xattrs.allowing(1234))
        xattrs.set_attribute(destination, xattrs.DEFAULT, xattrs.allowing(1235))
        (destination / "file").write_text("old")
        destination.chmod(0o2750)
        before, file = describe_one(destination), describe(destination)
        with _update(destination):
            pass
        assert describe_one(destination) == before
        assert describe(destination) == file

    run_as(user, update)


@with_exchange
def test_nothing_in_staging_is_the_published_file(fs: Filesystem) -> None:
    destination = fs.folder("site")
    TREES["hard links"](destination)
    (destination / "inner").mkdir()
    (destination / "inner" / "file").write_text("old")
    (fs.here / "beside").hardlink_to(destination / "inner" / "file")
    before = describe(destination)
    with pytest.raises(LookupError), _update(destination) as staging:
        for path in staging.rglob("*"):
            path.chmod(0o700)
            if path.is_file():
                path.write_text("half")
                os.utime(path, (1, 1))
        assert describe(destination) == before
        raise LookupError
    assert describe(destination) == before
    assert (fs.here / "beside").read_text() == "old"


@with_exchange
def test_hard_links_stay_one_file_when_one_of_them_is_written(fs: Filesystem) -> None:
    destination = fs.folder("site")
    TREES["hard links"](destination)
    with _update(destination) as staging:
        (staging / "a" / "first 7").write_text("new")
    assert (destination / "z" / "third 7").read_text() == "new"
    assert (destination / "z" / "third 8").read_text() == "8"


@with_exchange
def test_what_the_body_changes_is_all_that_changes(fs: Filesystem) -> None:
    destination = fs.folder("site")
    for name in ("kept", "changed", "removed"):
        (destination / name).write_text("old")
    kept = describe(destination)["kept"]
    with _update(destination) as staging:
        (staging / "changed").write_text("new")
        (staging / "removed").unlink()
        (staging / "added").write_text("new")
        assert (destination / "changed").read_text() == "old"
    after = describe(destination)
    assert sorted(after) == ["added", "changed", "kept"]
    assert after["kept"] == kept
    assert (destination / "changed").read_text() == "new"


@with_exchange
def test_holes_stay_holes(fs: Filesystem) -> None:
    destination = fs.folder("site")
    for name, pieces, size in (
        ("hole at the end", {0: b"x" * 4096}, 64 << 20),
        ("hole at the start", {64 << 20: b"x"}, (64 << 20) + 1),
        ("between", {0: b"x", 32 << 20: b"y" * 70000}, 65 << 20),
        ("nothing else", {}, 64 << 20),
        ("small", {16 << 10: b"x"}, 32 << 10),
    ):
        with open(destination / name, "wb") as file:
            file.truncate(size)
            for offset, piece in pieces.items():
                file.seek(offset)
                file.write(piece)
            os.fsync(file.fileno())
    before = describe(destination)
    with _update(destination) as staging:
        assert describe(staging) == before
        for path in staging.iterdir():
            clone, original = os.open(path, os.O_RDONLY), os.open(destination / path.name, 0)
            try:
                assert _data(clone) == _data(original), path.name
                os.fsync(clone)
                assert os.fstat(clone).st_blocks <= os.fstat(original).st_blocks + 16, path.name
            finally:
                os.close(clone)
                os.close(original)


def _data(fd: int) -> list[tuple[int, int]]:
    """Returns where the data of a file lies, as lseek(2) tells."""
    found: list[tuple[int, int]] = []
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, end))
    return found


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"], indirect=True)
def test_blocks_are_shared_where_the_filesystem_can(fs: Filesystem) -> None:
    destination = fs.folder("site")
    for name in ("one", "two"):
        (destination / name).write_bytes(os.urandom(1 << 20))
    with _update(destination) as staging:
        for name in ("one", "two"):
            shared = _extents(staging / name) == _extents(destination / name)
            assert shared is (fs.name in ("xfs", "btrfs"))


def _extents(path: Path) -> list[tuple[int, int, int]]:
    """Returns which blocks of the device a file has: logical, physical, length."""
    request = bytearray(_REQUEST.pack(0, 1 << 62, _SYNC, 0, _MOST, 0)) + bytes(_EXTENT.size * _MOST)
    with open(path, "rb") as file:
        fcntl.ioctl(file, _FIEMAP, request)
    count = _REQUEST.unpack_from(request)[3]
    assert 0 < count < _MOST
    extents = [_EXTENT.unpack_from(request, _REQUEST.size + _EXTENT.size * i) for i in range(count)]
    return [(logical, physical, length) for logical, physical, length, _ in extents]


def _traced(script: str, destination: Path, *options: str) -> str:
    """Runs a program with strace(1); returns what it says, and its trace in the end."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    command = ["strace", "-f", "-qq", "-o", "/dev/stderr", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = subprocess.run(
        [*command, sys.executable, "-c", script, destination],
        env=environment, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return program.stdout + program.stderr


_UPDATE: Final = """
import atomik, sys
with atomik.folder(sys.argv[1], update=True, durability="none"):
    print("in the body", flush=True)
"""


@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
def test_the_kernel_copies_where_blocks_cannot_be_shared(fs: Filesystem) -> None:
    destination = fs.folder("site")
    for name, size in (("one", 100_000), ("two", 3 << 20)):
        (destination / name).write_bytes(os.urandom(size))
    said = _traced(_UPDATE, destination, "-e", "trace=copy_file_range")
    copied = [int(count) for count in re.findall(r"copy_file_range.*= (\d+)", said)]
    assert sum(copied) == 100_000 + (3 << 20)


_INTERRUPTED: Final = """
import atomik, signal, sys
def once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, once)
try:
    with atomik.folder(sys.argv[1], update=True, durability="none"):
        print("in the body", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
@pytest.mark.parametrize("nth", [1, 100])
def test_ctrl_c_in_a_clone_leaves_nothing(fs: Filesystem, nth: int) -> None:
    destination = fs.folder("site")
    TREES["wide"](destination)
    before = describe(destination)
    # The signal comes with the nth copy, whichever thread makes it.
    inject = f"inject=copy_file_range:signal=INT:when={nth}"
    said = _traced(_INTERRUPTED, destination, "-e", "trace=copy_file_range", "-e", inject)
    assert "interrupted" in said
    assert "in the body" not in said
    assert describe(destination) == before
    assert os.listdir(fs.here) == ["site"]


_PEAK: Final = """
import atomik, re, sys
with atomik.folder(sys.argv[1], update=True, durability="none"):
    status = open("/proc/self/status").read()
print(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
"""


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("width", [100, 1 << 30], ids=["many folders", "one folder"])
def test_memory_does_not_grow_with_the_tree(fs: Filesystem, width: int) -> None:
    peaks: list[int] = []
    for files in (2_000, 20_000):
        destination = fs.folder(f"{files}")
        for number in range(files):
            folder = destination / f"{number // width}"
            if number % width == 0:
                folder.mkdir()
            (folder / f"{number}").write_text("x")
        ran = run_program("-c", _PEAK, destination)
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stdout))
    assert peaks[1] - peaks[0] < 2048, peaks


def _socket(fs: Filesystem, path: Path) -> None:
    # A socket's address has room for 107 bytes.
    (fs.here / "s").symlink_to(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(fs.here / "s" / path.name))
    (fs.here / "s").unlink()


def _device(_: Filesystem, path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _block_device(_: Filesystem, path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 200))


def _mounted_folder(fs: Filesystem, path: Path) -> None:
    path.mkdir()
    fs.bind(fs.folder("source"), path)


def _mounted_file(fs: Filesystem, path: Path) -> None:
    path.write_text("below")
    (fs.here / "source").write_text("mounted")
    fs.bind(fs.here / "source", path)


def _mounted_filesystem(fs: Filesystem, path: Path) -> None:
    path.mkdir()
    fs.mount_tmpfs(path)


_IMPOSSIBLE: Final[Mapping[str, tuple[Callable[[Filesystem, Path], None], int, str]]] = {
    "socket": (_socket, errno.EINVAL, "can be copied"),
    "device": (_device, errno.EINVAL, "can be copied"),
    "block device": (_block_device, errno.EINVAL, "can be copied"),
    "mounted folder": (_mounted_folder, errno.EXDEV, "mounted"),
    "mounted file": (_mounted_file, errno.EXDEV, "mounted"),
    "mounted filesystem": (_mounted_filesystem, errno.EXDEV, "mounted"),
}


@with_exchange
@each_opening
@pytest.mark.parametrize("place", ["it", "a/b/it"])
@pytest.mark.parametrize(("make", "number", "word"), _IMPOSSIBLE.values(), ids=_IMPOSSIBLE)
def test_what_cannot_be_cloned_is_named_before_the_body(
    fs: Filesystem,
    make: Callable[[Filesystem, Path], None],
    number: int,
    word: str,
    place: str,
    opening: Any,
) -> None:
    destination = fs.folder("site")
    (destination / "a" / "b").mkdir(parents=True)
    for name in range(200):
        (destination / "a" / f"{name}").write_text("old")
    make(fs, destination / place)
    there = set(os.listdir(fs.here))
    with pytest.raises(OSError) as raised:
        with opening(destination, update=True):
            pytest.fail("the body ran")
    assert raised.value.errno == number
    assert raised.value.filename == os.fspath(destination / place)
    assert word in str(raised.value)
    assert set(os.listdir(fs.here)) == there
    assert (destination / "a" / "7").read_text() == "old"


@with_exchange
def test_what_its_user_may_not_read_is_named_before_the_body(fs: Filesystem) -> None:
    destination = _home(fs, NOBODY) / "site"
    destination.mkdir()
    os.chown(destination, NOBODY.uid, NOBODY.gid)
    (destination / "inner").mkdir()
    (destination / "inner" / "secret").write_text("root's")
    (destination / "inner" / "secret").chmod(0o600)

    def update() -> None:
        with _update(destination):
            pytest.fail("the body ran")

    with pytest.raises(PermissionError) as raised:
        run_as(NOBODY, update)
    assert raised.value.filename == os.fspath(destination / "inner" / "secret")
    assert os.listdir(destination.parent) == ["site"]


@with_exchange
def test_an_ordinary_user_owns_the_copies_of_foreign_files_and_gets_no_set_id_bits(
    fs: Filesystem,
) -> None:
    destination = _home(fs, NOBODY) / "site"
    destination.mkdir()
    os.chown(destination, NOBODY.uid, NOBODY.gid)
    (destination / "program").write_text("root's")
    (destination / "program").chmod(0o6755)

    def update() -> None:
        with _update(destination) as staging:
            (staging / "new").write_text("new")

    run_as(NOBODY, update)
    status = (destination / "program").stat()
    assert (destination / "program").read_text() == "root's"
    assert status.st_uid == NOBODY.uid
    assert stat.S_IMODE(status.st_mode) == 0o755


def test_an_update_of_nothing_starts_empty(fs: Filesystem) -> None:
    with _update(fs.here / "site") as staging:
        assert os.listdir(staging) == []
        (staging / "file").write_text("new")
    assert (fs.here / "site" / "file").read_text() == "new"
    with atomik.path(fs.here / "table.csv", update=True) as staging:
        assert not os.path.lexists(staging)
        staging.write_text("new")
    assert (fs.here / "table.csv").read_text() == "new"


@with_exchange
def test_a_path_starts_from_a_clone_of_the_folder(fs: Filesystem) -> None:
    destination = fs.folder("site")
    TREES["hard links"](destination)
    before = describe(destination)
    with atomik.path(destination, update=True) as staging:
        assert describe(staging) == before
        assert not inodes(staging) & inodes(destination)
    assert describe(destination) == before


def test_a_path_starts_from_a_copy_of_the_file(fs: Filesystem) -> None:
    destination = fs.here / "table.csv"
    destination.write_text("old")
    destination.chmod(0o640)
    with atomik.path(destination, update=True) as staging:
        assert staging.read_text() == "old"
        staging.write_text("new")
        assert destination.read_text() == "old"
    assert destination.read_text() == "new"
    assert stat.S_IMODE(destination.stat().st_mode) == 0o640


@each_opening
@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
def test_without_an_exchange_an_update_of_a_folder_is_refused_before_the_body(
    fs: Filesystem, opening: Any
) -> None:
    (fs.folder("site") / "file").write_text("old")
    with pytest.raises(atomik.UnsupportedFilesystemError), opening(fs.here / "site", update=True):
        pytest.fail("the body ran")
    assert os.listdir(fs.here) == ["site"]
    assert (fs.here / "site" / "file").read_text() == "old"


@pytest.mark.parametrize("fs", ["overlay"], indirect=True)
def test_a_folder_of_an_overlays_lower_layer_is_refused_before_the_body(fs: Filesystem) -> None:
    parent = fs.take_lower()
    before = describe(parent)
    with pytest.raises(atomik.InvalidCrossDeviceError), _update(parent / "folder"):
        pytest.fail("the body ran")
    assert describe(parent) == before


@with_exchange
def test_a_path_to_a_symlink_is_followed_only_if_asked(fs: Filesystem) -> None:
    (fs.folder("target") / "file").write_text("old")
    (fs.here / "link").symlink_to("target")
    with pytest.raises(OSError) as raised, _update(fs.here / "link"):
        pytest.fail("the body ran")
    assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert "follow_symlinks" in str(raised.value)
    with _update(fs.here / "link", follow_symlinks=True) as staging:
        assert (staging / "file").read_text() == "old"
        (staging / "file").write_text("new")
    assert os.readlink(fs.here / "link") == "target"
    assert (fs.here / "target" / "file").read_text() == "new"


def test_a_file_is_not_updated_as_a_folder(fs: Filesystem) -> None:
    (fs.here / "file").write_text("old")
    with pytest.raises(NotADirectoryError), _update(fs.here / "file"):
        pytest.fail("the body ran")
    assert (fs.here / "file").read_text() == "old"


@with_exchange
def test_staging_in_another_folder_is_a_clone_too(fs: Filesystem) -> None:
    destination, elsewhere = fs.folder("site"), fs.folder("elsewhere")
    TREES["times"](destination)
    before = describe(destination)
    with _update(destination, tmp_dir=elsewhere) as staging:
        assert describe(staging) == before
    assert describe(destination) == before
    assert os.listdir(elsewhere) == []


@with_exchange
def test_every_durability_updates(fs: Filesystem) -> None:
    destination = fs.folder("site")
    TREES["deep"](destination)
    before = describe(destination)
    for durability in ("full", "ordered", "none"):
        with _update(destination, durability=durability):
            pass
        assert describe(destination) == before
