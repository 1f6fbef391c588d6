"""How a durable commit reaches the disk: which syncs are made on which filesystem, and when.

One flush instead of two is taken where the filesystem's journal is known to make it enough, and nowhere else.
"""

import os
import resource
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel
from support.filesystems import Filesystem
from support.processes import ROOT, run_as
from support.strace import Call, calls_between_marks

_PROGRAM: Final = """
import os, sys
import atomik
from support.strace import mark

kind, durability, files = sys.argv[1:]


def commit():
    options = {"overwrite": True, "durability": durability}
    if kind == "write_bytes":
        atomik.write_bytes("name", b"content", **options)
    elif kind == "file":
        with atomik.file("name", "wb", **options) as f:
            f.write(b"content")
    elif kind == "path":
        with atomik.path("name", **options) as path:
            path.write_bytes(b"content")
    else:
        with atomik.folder("name", **options) as folder:
            os.mkdir(folder / "sub")
            for number in range(int(files)):
                (folder / ("sub" if number % 2 else ".") / str(number)).write_bytes(b"content")


# The first one on a mount may not know of the journal yet.
commit()
mark()
commit()
mark()
"""

_SYNCS: Final = ("fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync")
_ONE_FLUSH: Final = ("ext4", "xfs")
_NOT_KNOWN: Final = (
    "ext2",
    "ext3",
    "ext4 without a journal",
    "ext4 with fast commits",
    "ext4 without barriers",
    "ext4 with its journal elsewhere",
    "xfs with its log elsewhere",
    "btrfs",
    "tmpfs",
    "overlay",
    "bindfs",
)
_RANGE: Final = "sync_file_range"


def _syncs(folder: Path, kind: str, durability: str = "full", files: int = 2) -> list[Call]:
    [calls] = calls_between_marks(_PROGRAM, folder, kind, durability, str(files))
    return [call for call in calls if call.name in _SYNCS]


def _flushes(syncs: list[Call]) -> list[str]:
    """What waits for the disk's cache: writing a range does not."""
    return [call.name for call in syncs if call.name != _RANGE]


@pytest.mark.parametrize("kind", ["write_bytes", "file", "path"])
@pytest.mark.parametrize("fs", _ONE_FLUSH, indirect=True)
def test_a_durable_file_takes_one_flush_where_the_journal_makes_it_enough(
    fs: Filesystem, kind: str
) -> None:
    content, parent = _syncs(fs.here, kind)
    assert (content.name, parent.name) == (_RANGE, "fsync")
    waits = "SYNC_FILE_RANGE_WAIT_BEFORE|SYNC_FILE_RANGE_WRITE|SYNC_FILE_RANGE_WAIT_AFTER"
    assert f", 0, 0, {waits}) = 0" in content.text
    assert parent.first_path == os.fspath(fs.here)


@pytest.mark.parametrize("fs", _ONE_FLUSH, indirect=True)
def test_a_folder_of_few_files_takes_one_flush_there(fs: Filesystem) -> None:
    syncs = _syncs(fs.here, "folder")
    assert _flushes(syncs) == ["fsync"]
    assert syncs[-1].first_path == os.fspath(fs.here)
    # Both files are on their way before the first is waited for.
    waits = ["WAIT_AFTER" in call.text for call in syncs[:-1]]
    assert waits == [False, False, True, True]


def _others_have_to_write(fs: Filesystem, mebibytes: int) -> None:
    """Says so to all programs of the test, whatever this machine has to write."""
    table = fs.here / "meminfo"
    table.write_text(f"Dirty: {mebibytes << 10} kB\nWriteback: 0 kB\n")
    fs.bind(table, Path("/proc/meminfo"))


@pytest.mark.parametrize("fs", _ONE_FLUSH, indirect=True)
def test_a_folder_of_many_files_takes_one_flush_there_and_does_not_wait_for_others(
    fs: Filesystem,
) -> None:
    syncs = _syncs(fs.here, "folder", files=150)
    assert _flushes(syncs) == ["fsync"]
    assert len([call for call in syncs if "WAIT_AFTER" in call.text]) == 150


_WITH_SYNCFS: Final = ("btrfs", "overlay", "ext2", "ext4 without a journal")


@pytest.mark.parametrize("fs", _WITH_SYNCFS, indirect=True)
def test_many_files_are_synced_at_once(fs: Filesystem) -> None:
    _others_have_to_write(fs, 0)
    assert [call.name for call in _syncs(fs.here, "folder", files=5)] == ["syncfs", "fsync"]


@pytest.mark.parametrize("fs", ["ext4", "xfs"], indirect=True)
def test_without_one_flush_many_files_are_synced_at_once_there_too(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMIK_SINGLE_FLUSH", "0")
    _others_have_to_write(fs, 0)
    assert [call.name for call in _syncs(fs.here, "folder", files=5)] == ["syncfs", "fsync"]


@pytest.mark.parametrize("fs", _WITH_SYNCFS, indirect=True)
def test_few_files_are_synced_by_themselves(fs: Filesystem) -> None:
    syncs = _syncs(fs.here, "folder", files=4)
    # Four files, two folders, and the parent.
    assert _flushes(syncs) == ["fsync"] * 7
    assert syncs[-1].first_path == os.fspath(fs.here)


@pytest.mark.parametrize("fs", _WITH_SYNCFS, indirect=True)
def test_files_are_synced_by_themselves_if_others_have_more_to_write(fs: Filesystem) -> None:
    _others_have_to_write(fs, 100)
    assert _flushes(_syncs(fs.here, "folder", files=90)) == ["fsync"] * 93
    assert _flushes(_syncs(fs.here, "folder", files=110)) == ["syncfs", "fsync"]


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("files", [2, 200])
def test_in_memory_one_call_is_enough(fs: Filesystem, files: int) -> None:
    assert [call.name for call in _syncs(fs.here, "folder", files=files)] == ["syncfs", "fsync"]


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
@pytest.mark.parametrize("files", [2, 100])
def test_where_syncfs_does_nothing_every_file_is_synced(fs: Filesystem, files: int) -> None:
    """A FUSE server answers success to syncfs(2), and never hears of it."""
    program = _PROGRAM.replace("commit()\nmark()\ncommit()", "mark()\ncommit()")
    [calls] = calls_between_marks(program, fs.here, "folder", "full", str(files))
    syncs = [call for call in calls if call.name in _SYNCS]
    assert _flushes(syncs) == ["fsync"] * (files + 3)


@pytest.mark.parametrize("kind", ["write_bytes", "folder"])
@pytest.mark.parametrize("fs", _ONE_FLUSH, indirect=True)
def test_ordered_takes_no_flush_there(fs: Filesystem, kind: str) -> None:
    syncs = _syncs(fs.here, kind, "ordered")
    assert syncs
    assert _flushes(syncs) == []


@pytest.mark.parametrize("kind", ["write_bytes", "file", "path"])
@pytest.mark.parametrize("fs", _NOT_KNOWN, indirect=True)
def test_a_durable_file_takes_two_syncs_everywhere_else(fs: Filesystem, kind: str) -> None:
    syncs = _syncs(fs.here, kind)
    assert _flushes(syncs) == [call.name for call in syncs] == ["fsync", "fsync"]
    assert atomik.probe(fs.here).single_flush is False


@pytest.mark.parametrize("value", ["0", "1"])
@pytest.mark.parametrize("fs", _ONE_FLUSH, indirect=True)
def test_the_environment_switches_one_flush_off(
    fs: Filesystem, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMIK_SINGLE_FLUSH", value)
    names = [call.name for call in _syncs(fs.here, "write_bytes")]
    assert names == (["fsync", "fsync"] if value == "0" else [_RANGE, "fsync"])


@pytest.mark.parametrize("kind", ["write_bytes", "file", "path", "folder"])
def test_nothing_is_synced_unasked(fs: Filesystem, kind: str) -> None:
    if kind == "folder" and not fs.flags & kernel.EXCHANGE:
        pytest.skip("a folder cannot be replaced here")
    assert _syncs(fs.here, kind, "none") == []


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_large_folder_is_synced_with_few_descriptors(fs: Filesystem, overloaded: bool) -> None:
    """Whichever way is taken: files that are on their way to the disk are open."""
    _others_have_to_write(fs, 10_000 if overloaded else 0)

    def commit() -> int:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with atomik.folder(fs.here / "new", overwrite=True) as folder:
            inner = folder
            for _ in range(50):
                inner /= "deeper"
                inner.mkdir()
            for number in range(600):
                (inner / str(number)).touch()
        return sum(len(files) for _, _, files in os.walk(fs.here / "new"))

    assert run_as(ROOT, commit) == 600
