"""The workloads without power cuts: their checks pass what is right, and complain about each kind of damage.

States are copies of the folder as it was after each commit; damage is done to them by hand.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import slot_names

from powercut import peers, publishing, versions
from powercut.grouping import Grouping
from powercut.interface import Workload
from powercut.moving import Moving
from powercut.publishing import BACKUP, Publishing
from powercut.staging import without_unnamed_files
from powercut.versions import COUNT, FILE_MODES
from powercut.ways import FileWay, TreeWay
from powercut.workloads import QUICK, WORKLOADS

ALL_LABELS: Final = [str(number) for number in range(1, COUNT + 1)]


def named(workloads: Sequence[Workload]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("workload", workloads, ids=lambda workload: workload.name)


def find(name: str) -> Workload:
    (found,) = [workload for workload in WORKLOADS if workload.name == name]
    return found


@pytest.fixture
def user_xattrs(here: Path) -> None:
    try:
        os.setxattr(here, versions.KEPT, b"")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(f"{here} is on a filesystem without user xattrs")


needs_user_xattrs = pytest.mark.usefixtures("user_xattrs")


def states(workload: Workload, here: Path) -> list[Path]:
    """Runs a workload and returns what its folder was like before it and after each commit."""
    live = here / "live"
    live.mkdir()
    threads = publishing.running_threads()
    found: list[Path] = []

    def remember() -> None:
        found.append(here / f"after-{len(found)}")
        shutil.copytree(live, found[-1], symlinks=True)

    def returned(label: str) -> None:
        # A copy is made of what nobody changes.
        publishing.wait_for_threads_but(threads)
        assert label == str(len(found))
        remember()

    workload.prepare(live)
    remember()
    workload.run(live, returned)
    return found


def kinds(problems: Sequence[str]) -> set[str]:
    return {problem.partition(":")[0] for problem in problems}


@needs_user_xattrs
@named(WORKLOADS)
def test_a_workload_without_a_power_cut_passes(workload: Workload, here: Path) -> None:
    after = states(workload, here)

    assert len(after) == COUNT + 1
    for number, state in enumerate(after):
        assert workload.check(state, ALL_LABELS[:number]) == []


@needs_user_xattrs
@named(WORKLOADS)
def test_a_returned_version_is_missed_exactly_if_it_was_durable(
    workload: Workload, here: Path
) -> None:
    before_the_last = states(workload, here)[COUNT - 1]

    problems = workload.check(before_the_last, ALL_LABELS)

    assert kinds(problems) == ({"lost"} if "-full" in workload.name else set())


@needs_user_xattrs
@named(QUICK)
def test_a_version_that_was_not_begun_is_noticed(workload: Workload, here: Path) -> None:
    assert kinds(workload.check(states(workload, here)[COUNT], ALL_LABELS[:1])) == {"future"}


def test_names_tell_workloads_apart() -> None:
    names = [workload.name for workload in (*WORKLOADS, *peers.PEERS)]

    assert len(set(names)) == len(names)
    assert len(QUICK) >= 10


# Damage: a function that does it, and the kind of problem that must be found.


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def zero(file: Path) -> None:
    _overwrite(file, 0, bytes(file.stat().st_size))


def zero_the_end(file: Path) -> None:
    half = file.stat().st_size // 2
    _overwrite(file, half, bytes(file.stat().st_size - half))


def change_a_byte(file: Path) -> None:
    _overwrite(file, file.stat().st_size - 1, b"\0")


def append(file: Path) -> None:
    _overwrite(file, file.stat().st_size, b"more")


def _overwrite(file: Path, at: int, data: bytes) -> None:
    with open(file, "r+b") as opened:
        opened.seek(at)
        opened.write(data)


def change_mode(file: Path) -> None:
    file.chmod(0o611)


def add_attribute(file: Path) -> None:
    os.setxattr(file, "user.other", b"")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: Final[Sequence[tuple[Callable[[Path], None], str]]] = (
    (truncate, "torn"),
    (empty, "empty"),
    (zero, "zeros"),
    (zero_the_end, "torn"),
    (change_a_byte, "torn"),
    (append, "torn"),
    (change_mode, "metadata"),
    (add_attribute, "metadata"),
    (os.unlink, "missing"),
    (make_folder, "kind"),
)


def damaged(workload: Workload) -> list[str]:
    """Returns the files of a workload to damage, deep in a tree if there is one; none for workloads like others.

    They are named as below the workload's folder.
    """
    if "-full" not in workload.name:
        return []
    match workload:
        case Moving() if workload.kinds[COUNT] == stat.S_IFREG:
            return ["parent/new-4" if "new" in workload.name else "parent/live"]
        case Grouping():
            which = "" if workload.replaced else f"-{COUNT}"
            return [f"right/page{which}", f"right/tree{which}/a/b/2"]
        case Publishing(way=TreeWay(), staging="unnamed"):
            below = "/a/b/2"
        case Publishing(way=FileWay(length=4096), staging="unnamed"):
            below = ""
        case _:
            return []
    backup = [f"parent/{BACKUP}{below}"] if workload.backup else []
    return [("parent/live" if workload.replaced else "parent/new-4") + below, *backup]


def cases() -> list[object]:
    found: list[object] = []
    for workload, (damage, kind) in product(WORKLOADS, DAMAGES):
        for place in damaged(workload):
            # Nothing where a new file had been published, or a backup been made, is a complete state, that of before.
            whole = {"parent/new-4", f"right/page-{COUNT}", f"parent/{BACKUP}"}
            was_missing = place in whole and not isinstance(workload, Moving)
            expected = "lost" if damage is os.unlink and was_missing else kind
            name = f"{workload.name}-{place.rpartition('parent/')[2]}-{damage.__name__}"
            found.append(pytest.param(workload, place, damage, expected, id=name))
    return found


@needs_user_xattrs
@pytest.mark.parametrize(("workload", "file", "damage", "kind"), cases())
def test_damage_is_noticed(
    workload: Workload, file: str, damage: Callable[[Path], None], kind: str, here: Path
) -> None:
    state = states(workload, here)[COUNT]

    damage(state / file)

    assert kinds(workload.check(state, ALL_LABELS)) == {kind}


# Mixtures of versions that are complete by themselves.


@needs_user_xattrs
def test_blocks_of_two_versions_are_noticed(here: Path) -> None:
    workload = find("file-wb-replace-full-102400")
    *_, old, new = states(workload, here)

    _overwrite(new / "parent/live", 0, (old / "parent/live").read_bytes()[:8192])

    assert kinds(workload.check(new, ALL_LABELS)) == {"mixed"}


@needs_user_xattrs
def test_the_mode_of_another_version_is_noticed(here: Path) -> None:
    workload = find("file-w-replace-full-4096")
    state = states(workload, here)[COUNT]

    (state / "parent/live").chmod(FILE_MODES[COUNT - 1])

    assert kinds(workload.check(state, ALL_LABELS)) == {"metadata"}


@needs_user_xattrs
def test_an_xattr_of_another_version_is_noticed(here: Path) -> None:
    workload = find("file-wb-replace-full-4096")
    state = states(workload, here)[COUNT]

    os.setxattr(state / "parent/live", versions.VERSION, b"3")

    assert kinds(workload.check(state, ALL_LABELS)) == {"metadata"}


@needs_user_xattrs
@pytest.mark.parametrize("name", ["folder-replace-full-tree", "path-folder-replace-full-tree"])
@pytest.mark.parametrize(
    ("entry", "kind"),
    [("a/5", "mixed"), ("a/b/c/19-of-3", "mixed"), ("a/link", "mixed"), ("empty", "metadata")],
)
def test_an_entry_of_another_version_in_a_tree_is_noticed(
    name: str, entry: str, kind: str, here: Path
) -> None:
    workload = find(name)
    *_, old, new = states(workload, here)
    source, target = old / "parent/live" / entry, new / "parent/live" / entry

    if source.is_dir():
        shutil.copystat(source, target)
    else:
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)

    assert kinds(workload.check(new, ALL_LABELS)) == {kind}


@needs_user_xattrs
def test_a_folder_gets_a_read_only_mode_before_its_commit_returns(here: Path) -> None:
    workload = find("folder-read-only-replace-full-tree")
    state = states(workload, here)[COUNT]

    (state / "parent/live").chmod(0o701)

    # In this order: the check that finds nothing may have the next writer write.
    assert kinds(workload.check(state, ALL_LABELS)) == {"metadata"}
    assert workload.check(state, ALL_LABELS[:-1]) == []


@needs_user_xattrs
@pytest.mark.parametrize("age", [1, 2])
def test_a_backup_of_a_version_too_early_is_noticed(age: int, here: Path) -> None:
    after = states(find("folder-replace-full-tree-backup"), here)
    backup = after[COUNT] / "parent" / BACKUP

    backup.rename(here / "right")
    shutil.copytree(after[COUNT - age] / "parent" / BACKUP, backup, symlinks=True)

    assert kinds(find("folder-replace-full-tree-backup").check(after[COUNT], ALL_LABELS)) == {
        "lost"
    }


@needs_user_xattrs
@pytest.mark.parametrize("entry", ["5", "0", "18-of-4", "link"])
def test_an_entry_that_an_update_has_lost_is_noticed(entry: str, here: Path) -> None:
    workload = find("folder-update-replace-full-tree")
    state = states(workload, here)[COUNT]

    next((state / "parent/live").rglob(entry)).unlink()

    assert kinds(workload.check(state, ALL_LABELS)) == {"missing"}


@needs_user_xattrs
@pytest.mark.parametrize("name", ["file-a-replace-full-5000", "file-r+-replace-full-102400"])
def test_an_edit_of_another_version_is_noticed(name: str, here: Path) -> None:
    """An edit that was made of the version before the last one: the last one is lost."""
    workload = find(name)
    assert isinstance(workload, Publishing)
    *_, earlier, _last, final = states(workload, here)

    place = final / "parent/live"
    shutil.copy2(earlier / "parent/live", place)
    workload.way.publish(place, COUNT, {"overwrite": True, "durability": "none"})

    assert kinds(workload.check(final, ALL_LABELS)) == {"mixed"}


# What lies beside the destination.


@needs_user_xattrs
@pytest.mark.leaves_orphans
@pytest.mark.parametrize(
    "where", [("porch", "0123456789abcdef"), ("0123456789abcdef", "fedcba9876543210")]
)
def test_two_orphans_of_one_destination_are_noticed(where: tuple[str, str], here: Path) -> None:
    workload = find("folder-replace-full-tree")
    state = states(workload, here)[COUNT]
    live = state / "parent/live"
    for slot in where:
        place = slot_names.porch(live) if slot == "porch" else slot_names.room(live) / slot
        place.mkdir(parents=True)

    assert kinds(workload.check(state, ALL_LABELS)) == {"litter"}


@needs_user_xattrs
@pytest.mark.leaves_orphans
@pytest.mark.parametrize(
    "name",
    [
        ".atomik-0.other~",
        ".atomik-strange",
        ".atomik-1.live~",
        ".atomik-0.live",
        "live.tmp",
        ".live",
    ],
)
def test_what_belongs_to_nobody_is_noticed(name: str, here: Path) -> None:
    workload = find("file-wb-replace-full-4096")
    state = states(workload, here)[COUNT]

    (state / "parent" / name).touch()

    assert kinds(workload.check(state, ALL_LABELS)) == {"litter"}


@needs_user_xattrs
@pytest.mark.parametrize("where", ["porch", "room"])
@named([workload for workload in QUICK if isinstance(workload, Publishing) and workload.replaced])
def test_the_next_writer_removes_an_orphan(workload: Workload, where: str, here: Path) -> None:
    state = states(workload, here)[COUNT]
    live = state / "parent/live"
    orphan = (
        slot_names.porch(live) if where == "porch" else slot_names.room(live) / "0123456789abcdef"
    )
    orphan.mkdir(parents=True)
    (orphan / "live").write_bytes(b"half")

    assert workload.check(state, ALL_LABELS) == []
    assert set(os.listdir(state / "parent")) - {BACKUP} == {"live"}


@needs_user_xattrs
@named([workload for workload in QUICK if isinstance(workload, Publishing) and workload.replaced])
def test_the_next_writer_removes_a_lock_that_was_left(workload: Workload, here: Path) -> None:
    state = states(workload, here)[COUNT]
    slot_names.lock(state / "parent/live").touch(0o600)

    assert workload.check(state, ALL_LABELS) == []
    assert set(os.listdir(state / "parent")) - {BACKUP} == {"live"}


@needs_user_xattrs
@pytest.mark.leaves_orphans
def test_an_orphan_that_the_next_writer_leaves_is_noticed(here: Path) -> None:
    workload = find("file-wb-replace-full-4096")
    state = states(workload, here)[COUNT]
    # No writer removes what another user has.
    room = slot_names.room(state / "parent/live", os.geteuid() + 1)
    room.mkdir()

    assert kinds(workload.check(state, ALL_LABELS)) == {"next writer"}


@needs_user_xattrs
@pytest.mark.leaves_orphans
def test_a_next_writer_that_fails_is_noticed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "refused")

    workload = find("write_bytes-replace-full-4096")
    state = states(workload, here)[COUNT]
    slot_names.porch(state / "parent/live").touch()
    monkeypatch.setattr(atomik, "write_bytes", refuse)

    assert kinds(workload.check(state, ALL_LABELS)) == {"next writer"}


@needs_user_xattrs
@pytest.mark.leaves_orphans
def test_a_next_writer_that_writes_nothing_is_noticed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(*_: object, **__: object) -> None:
        pass

    workload = find("write_bytes-replace-full-4096")
    state = states(workload, here)[COUNT]
    slot_names.porch(state / "parent/live").touch()
    monkeypatch.setattr(atomik, "write_bytes", write_nothing)

    assert kinds(workload.check(state, ALL_LABELS)) == {"next writer"}


# The means.


def test_named_staging_has_a_name(here: Path) -> None:
    stagings: list[Path | None] = []

    def publish() -> None:
        guard = atomik.file(here / "file")
        with guard:
            stagings.append(guard.staging)

    without_unnamed_files(publish)

    assert stagings == [slot_names.porch(here / "file") / "file"]


def test_unnamed_files_are_refused_to_one_call_only(here: Path) -> None:
    def refused() -> None:
        with pytest.raises(OSError) as caught:
            os.open(here, os.O_TMPFILE | os.O_RDWR)
        assert caught.value.errno == errno.EOPNOTSUPP

    without_unnamed_files(refused)

    os.close(os.open(here, os.O_TMPFILE | os.O_RDWR))


@needs_user_xattrs
@named(peers.PEERS)
def test_a_peer_without_a_power_cut_passes(workload: Workload, here: Path) -> None:
    after = states(workload, here)

    for number, state in enumerate(after):
        assert workload.check(state, ALL_LABELS[:number]) == []


def test_a_missing_peer_has_a_reason(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv(peers.FOLDER_VARIABLE, str(here))

    assert peers.unavailable("safer") == f"safer is not installed in {here}"
    assert peers.unavailable(None) is None
