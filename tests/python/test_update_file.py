"""`atomik.file` with "a" and "r+": an edit of the present version, as `open` would make it.

What `open` itself does to a file of the same content is what is expected.
"""

import errno
import fcntl
import io
import os
import stat
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import xattrs
from support.filesystems import Filesystem
from support.processes import NOBODY, run_as

_OLD: Final = "first\nsecond\n"
_APPENDING: Final = ("a", "a+", "ab", "ab+")
_INSIDE: Final = ("r+", "rb+", "r+b")

each_mode = pytest.mark.parametrize("mode", [*_APPENDING, *_INSIDE])


def _old(fs: Filesystem) -> Path:
    destination = fs.here / "file"
    destination.write_text(_OLD)
    return destination


def _open(path: Path, mode: atomik.OpenMode, **options: Any) -> Any:
    return atomik.file(path, mode, durability="none", **options)


def _data(text: str, mode: atomik.OpenMode) -> Any:
    return text.encode() if "b" in mode else text


def _edit(file: Any, mode: atomik.OpenMode) -> list[Any]:
    """Uses a file as programs do, and notes all that it answers."""
    seen: list[Any] = [file.tell(), file.readable(), file.writable(), file.seekable()]
    file.write(_data("THIRD\n", mode))
    file.flush()
    seen.append(file.tell())
    file.seek(2)
    seen.append(file.read() if file.readable() else None)
    file.seek(2)
    file.write(_data("XX", mode))
    file.flush()
    seen.append(file.tell())
    file.seek(0)
    if "r" in mode:
        file.truncate(8)
    return seen


@each_mode
@pytest.mark.parametrize("buffering", [-1, 0, 100])
def test_an_edit_is_the_one_that_open_would_make(
    fs: Filesystem, mode: atomik.OpenMode, buffering: int
) -> None:
    if buffering == 0 and "b" not in mode:
        pytest.skip("open() takes buffering=0 for bytes only")
    destination, plain = _old(fs), fs.here / "plain"
    plain.write_text(_OLD)
    with open(plain, mode, buffering=buffering) as file:
        expected = _edit(file, mode)
    with _open(destination, mode, buffering=buffering) as staging:
        assert _edit(staging, mode) == expected
        assert destination.read_text() == _OLD
    assert destination.read_bytes() == plain.read_bytes()


@each_mode
@pytest.mark.parametrize("buffering", [-1, 0])
def test_the_object_is_of_the_type_that_open_returns(
    fs: Filesystem, mode: atomik.OpenMode, buffering: int
) -> None:
    if buffering == 0 and "b" not in mode:
        pytest.skip("open() takes buffering=0 for bytes only")
    with _open(_old(fs), mode, buffering=buffering) as staging:
        with open(fs.here / "plain", mode.replace("r", "w"), buffering=buffering) as plain:
            assert isinstance(staging, type(plain))
            assert isinstance(staging, io.IOBase)


@pytest.mark.parametrize("mode", _APPENDING)
def test_appending_is_the_kernels(fs: Filesystem, mode: atomik.OpenMode) -> None:
    destination = _old(fs)
    with _open(destination, mode) as staging:
        assert fcntl.fcntl(staging.fileno(), fcntl.F_GETFL) & os.O_APPEND
        # Not even a write that goes around the object, at another place, lands anywhere else.
        os.lseek(staging.fileno(), 0, os.SEEK_SET)
        os.write(staging.fileno(), b"third\n")
    assert destination.read_text() == _OLD + "third\n"


@pytest.mark.parametrize("mode", _INSIDE)
def test_inside_of_a_file_what_is_written_stands_where_it_is_written(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination = _old(fs)
    with _open(destination, mode) as staging:
        assert not fcntl.fcntl(staging.fileno(), fcntl.F_GETFL) & os.O_APPEND
        staging.write(_data("FIRST", mode))
    assert destination.read_text() == "FIRST\nsecond\n"


@each_mode
def test_an_exception_leaves_the_old_version(fs: Filesystem, mode: atomik.OpenMode) -> None:
    destination = _old(fs)
    with pytest.raises(LookupError), _open(destination, mode) as staging:
        staging.write(_data("half", mode))
        staging.flush()
        raise LookupError
    assert destination.read_text() == _OLD
    assert os.listdir(fs.here) == ["file"]


@each_mode
def test_an_edit_of_nothing_but_a_look_changes_no_content(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination = _old(fs)
    with _open(destination, mode):
        pass
    assert destination.read_text() == _OLD


@pytest.mark.parametrize("mode", _INSIDE)
def test_what_is_missing_cannot_be_opened_inside(fs: Filesystem, mode: atomik.OpenMode) -> None:
    with pytest.raises(FileNotFoundError) as raised, _open(fs.here / "file", mode):
        pytest.fail("the body ran")
    assert raised.value.filename == os.fspath(fs.here / "file")
    assert os.listdir(fs.here) == []


@pytest.mark.parametrize("mode", _APPENDING)
def test_what_is_missing_is_appended_to_from_nothing(fs: Filesystem, mode: atomik.OpenMode) -> None:
    with _open(fs.here / "file", mode) as staging:
        assert staging.tell() == 0
        staging.write(_data("new", mode))
        assert not (fs.here / "file").exists()
    assert (fs.here / "file").read_text() == "new"


@each_mode
def test_metadata_is_kept(fs: Filesystem, mode: atomik.OpenMode) -> None:
    destination = _old(fs)
    os.chown(destination, 1234, 5678)
    destination.chmod(0o640)
    xattrs.set_attribute(destination, "user.atomik", b"mine")
    xattrs.set_attribute(destination, xattrs.ACCESS, xattrs.allowing(4321))
    before, kept = destination.stat(), xattrs.attributes(destination)
    with _open(destination, mode) as staging:
        staging.write(_data("new", mode))
    after = destination.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert xattrs.attributes(destination) == kept
    assert after.st_ino != before.st_ino


@each_mode
def test_an_ordinary_user_edits_its_own_file(fs: Filesystem, mode: atomik.OpenMode) -> None:
    folder = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)

    def edit() -> None:
        (folder / "file").write_text(_OLD)
        (folder / "file").chmod(0o600)
        with _open(folder / "file", mode) as staging:
            staging.write(_data("first", mode))

    run_as(NOBODY, edit)
    assert (folder / "file").read_text() == (_OLD + "first" if mode in _APPENDING else _OLD)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
@pytest.mark.parametrize("mode", ["ab", "rb+"])
def test_a_big_sparse_file_stays_sparse(fs: Filesystem, mode: atomik.OpenMode) -> None:
    destination, size, middle = fs.here / "file", 8 << 30, 5 << 30
    with destination.open("wb") as file:
        file.truncate(size)
        file.seek(middle)
        file.write(b"middle")
        os.fsync(file.fileno())
    with _open(destination, mode) as staging:
        assert staging.tell() == (size if mode == "ab" else 0)
        staging.write(b"new")
    with destination.open("rb") as file:
        file.seek(middle)
        assert file.read(7) == b"middle\0"
        file.seek(size if mode == "ab" else 0)
        assert file.read(3) == b"new"
        os.fsync(file.fileno())
    assert destination.stat().st_size == size + (3 if mode == "ab" else 0)
    assert destination.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)
def test_a_file_of_many_pieces_is_copied_whole(fs: Filesystem) -> None:
    destination = fs.here / "file"
    content = bytes(range(256)) * (20 << 12)
    destination.write_bytes(content)
    with _open(destination, "rb+") as staging:
        assert staging.read() == content
        staging.seek(100)
        staging.write(b"new")
    assert destination.read_bytes() == content[:100] + b"new" + content[103:]


@each_mode
def test_other_names_of_the_file_keep_the_old_version(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination = _old(fs)
    (fs.here / "beside").hardlink_to(destination)
    with _open(destination, mode) as staging:
        staging.write(_data("new", mode))
    assert (fs.here / "beside").read_text() == _OLD


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_a_symlink_is_followed_only_if_asked(fs: Filesystem, mode: atomik.OpenMode) -> None:
    _old(fs)
    (fs.here / "link").symlink_to("file")
    with pytest.raises(OSError) as raised, _open(fs.here / "link", mode):
        pytest.fail("the body ran")
    assert raised.value.errno == errno.ELOOP
    assert "follow_symlinks" in str(raised.value)
    with _open(fs.here / "link", mode, follow_symlinks=True) as staging:
        staging.seek(0, os.SEEK_END)
        staging.write("third\n")
    assert os.readlink(fs.here / "link") == "file"
    assert (fs.here / "file").read_text() == _OLD + "third\n"


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_only_a_file_is_edited(fs: Filesystem, mode: atomik.OpenMode) -> None:
    fs.folder("folder")
    os.mkfifo(fs.here / "fifo")
    for name, error in (("folder", IsADirectoryError), ("fifo", atomik.DestinationBusyError)):
        with pytest.raises(error), _open(fs.here / name, mode):
            pytest.fail("the body ran")
    assert sorted(os.listdir(fs.here)) == ["fifo", "folder"]


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_what_its_user_may_not_read_is_refused_before_the_body(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    folder = fs.folder("home", 0o755, NOBODY.uid, NOBODY.gid)
    (folder / "file").write_text("root's")
    (folder / "file").chmod(0o600)

    def edit() -> None:
        with _open(folder / "file", mode):
            pytest.fail("the body ran")

    with pytest.raises(PermissionError):
        run_as(NOBODY, edit)
    assert (folder / "file").read_text() == "root's"


@pytest.mark.parametrize("mode", ["r", "rb", "ar", "r+x", "a+r+", "ra", "aw"])
def test_modes_that_open_does_not_know_or_that_only_read_are_refused(
    here: Path, mode: atomik.OpenMode
) -> None:
    (here / "file").write_text(_OLD)
    with pytest.raises(ValueError), atomik.file(here / "file", mode):
        pytest.fail("the body ran")


def test_a_text_edit_has_its_encoding_and_newlines(fs: Filesystem) -> None:
    destination = fs.here / "file"
    destination.write_bytes("süß\r\n".encode("utf-16"))
    with _open(destination, "a+", encoding="utf-16", newline="\r\n") as staging:
        staging.write("neu\n")
        staging.seek(0)
        assert staging.read() == "süß\r\nneu\r\n"
    assert destination.read_bytes().decode("utf-16") == "süß\r\nneu\r\n"


@each_mode
def test_staging_in_another_folder_starts_from_the_file_too(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination, elsewhere = _old(fs), fs.folder("elsewhere")
    with _open(destination, mode, tmp_dir=elsewhere) as staging:
        staging.seek(0, os.SEEK_END)
        staging.write(_data("third\n", mode))
    assert destination.read_text() == _OLD + "third\n"
    assert os.listdir(elsewhere) == []
