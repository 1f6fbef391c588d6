"""`atomik.probe` answers what each filesystem is known to do, and leaves nothing there.

What is expected is written down here, or asked of the kernel without the library.
"""

import copy
import errno
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel
from support.filesystems import Filesystem
from support.processes import NOBODY, run_as

_TYPES: Final[Mapping[str, str]] = {
    "ext4": "ext4",
    "xfs": "xfs",
    "btrfs": "btrfs",
    "tmpfs": "tmpfs",
    "overlay": "overlay",
    "bindfs": "fuse",
}
_DURABILITY: Final[Mapping[str, str]] = {"overlay": "unknown", "tmpfs": "none", "bindfs": "unknown"}


def _mount_of(path: Path) -> tuple[int, str]:
    """Returns a mount's number and type, as /proc/self/mountinfo has them for an open file."""
    fd = os.open(path, os.O_PATH)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    finally:
        os.close(fd)
    (number,) = [line.split()[1] for line in lines if line.startswith("mnt_id:")]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[0] == number:
            return int(number), fields[fields.index("-") + 1]
    raise AssertionError(f"no mount {number}")


def test_the_mount_is_named_as_the_mount_table_names_it(fs: Filesystem) -> None:
    probe = atomik.probe(fs.here)
    assert (probe.mount_id, probe.filesystem) == _mount_of(fs.here)
    assert probe.filesystem.split(".")[0] == _TYPES[fs.name]


def test_renames_and_unnamed_files_are_answered_as_the_bare_calls_are(fs: Filesystem) -> None:
    probe = atomik.probe(fs.here)
    assert probe.noreplace is bool(fs.flags & kernel.NOREPLACE)
    assert probe.exchange is bool(fs.flags & kernel.EXCHANGE)
    assert probe.unnamed_files is fs.unnamed


def test_each_filesystem_can_what_it_is_known_for(fs: Filesystem) -> None:
    probe = atomik.probe(fs.here)
    assert probe.reflink is (fs.name in ("xfs", "btrfs"))
    assert probe.directory_locks is True
    # A FUSE server is never asked: two mounts of one folder do not see each other's locks.
    assert probe.lock_reach == ("this machine and mount" if fs.name == "bindfs" else "everybody")
    assert probe.hard_links is True
    assert probe.modes_kept is True
    assert probe.owners_kept is True
    assert probe.xattrs is True
    # A FUSE server answers success and syncs nothing.
    assert probe.syncfs is (fs.name != "bindfs")
    assert probe.durability == _DURABILITY.get(fs.name, "full")
    # On ext4 that shows once something has been synced since it was mounted.
    atomik.write_bytes(fs.here / "synced", b"")
    assert atomik.probe(fs.here).single_flush is (fs.name in ("ext4", "xfs"))


def test_as_text_it_is_a_table_of_all_its_answers(fs: Filesystem) -> None:
    probe = atomik.probe(fs.here)
    rows = [line.split(maxsplit=1) for line in str(probe).splitlines()]
    answers = {line[:16].rstrip(): line[16:].strip() for line in str(probe).splitlines()}
    assert all(len(row) == 2 for row in rows)
    assert answers == {
        "filesystem": probe.filesystem,
        "mount id": str(probe.mount_id),
        "unnamed files": _word(probe.unnamed_files),
        "NOREPLACE": _word(probe.noreplace),
        "EXCHANGE": _word(probe.exchange),
        "reflink": _word(probe.reflink),
        "directory locks": _word(probe.directory_locks),
        "locks reach": probe.lock_reach,
        "hard links": _word(probe.hard_links),
        "modes kept": _word(probe.modes_kept),
        "owners kept": _word(probe.owners_kept),
        "user xattrs": _word(probe.xattrs),
        "syncfs": _word(probe.syncfs),
        "single flush": _word(probe.single_flush),
        "durability": probe.durability,
    }
    assert repr(probe) == f"<Probe of {probe.filesystem}: durability {probe.durability}>"


def _word(answer: bool) -> str:
    return "yes" if answer else "no"


def test_nothing_is_left_and_nothing_there_is_touched(fs: Filesystem) -> None:
    (fs.here / "one").write_text("mine")
    (fs.here / "folder").mkdir()
    assert atomik.probe(fs.here) == atomik.probe(fs.here)
    assert sorted(os.listdir(fs.here)) == ["folder", "one"]
    assert (fs.here / "one").read_text() == "mine"


def test_the_folder_itself_is_probed_where_something_else_is_mounted_below(fs: Filesystem) -> None:
    inner = fs.folder("inner")
    fs.mount_tmpfs(inner)
    assert atomik.probe(inner).filesystem == "tmpfs"
    assert atomik.probe(fs.here).filesystem.split(".")[0] == _TYPES[fs.name]


@pytest.mark.parametrize("spell", [os.fspath, os.fsencode, Path], ids=["str", "bytes", "Path"])
def test_a_path_of_any_type_is_taken(here: Path, spell: type) -> None:
    assert atomik.probe(spell(here)) == atomik.probe(here)


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(fs: Filesystem) -> None:
    folder = fs.folder("theirs", 0o755)

    def probe() -> None:
        atomik.probe(folder)

    with pytest.raises(PermissionError) as raised:
        run_as(NOBODY, probe)
    assert raised.value.errno == errno.EACCES
    assert raised.value.filename == os.fspath(folder)
    assert os.listdir(folder) == []


def test_an_ordinary_user_gets_the_same_answers(fs: Filesystem) -> None:
    folder = fs.folder("mine", 0o700, NOBODY.uid, NOBODY.gid)
    expected = str(atomik.probe(fs.here))
    assert run_as(NOBODY, lambda: str(atomik.probe(folder))) == expected
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("name", "number"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR)], ids=str
)
def test_what_is_no_folder_is_an_error(here: Path, name: str, number: int) -> None:
    (here / "file").touch()
    with pytest.raises(OSError) as raised:
        atomik.probe(here / name)
    assert raised.value.errno == number
    assert raised.value.filename == os.fspath(here / name)
    assert os.listdir(here) == ["file"]


def test_a_read_only_mount_is_an_error(fs: Filesystem) -> None:
    source, target = fs.folder("source"), fs.folder("target")
    fs.bind(source, target, read_only=True)
    with pytest.raises(OSError) as raised:
        atomik.probe(target)
    assert raised.value.errno == errno.EROFS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_probe_can_be_pickled_and_copied(fs: Filesystem, protocol: int) -> None:
    probe = atomik.probe(fs.here)
    for twin in (
        pickle.loads(pickle.dumps(probe, protocol)),
        copy.copy(probe),
        copy.deepcopy(probe),
    ):
        assert twin == probe
        assert str(twin) == str(probe)
