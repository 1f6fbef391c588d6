"""Proves that a missing system call leads to an equal fallback or to a refusal, never to a weaker promise.

A seccomp filter answers the calls of a forked child, as an old kernel, gVisor or a container's
profile would; every operation then runs under it, and what it left is compared with what `gaps`
says that the rest of the system can do.
"""

import errno
import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import atomik
import atomik.errors
import pytest
from seccomp import SUPPORTED, Rule, deny
from support import kernel, slot_names
from support.filesystems import Filesystem
from support.processes import ROOT, run_as

from sandboxes.gaps import ERRNOS, GAPS, Gap, System, broken_promises, broken_rollback
from sandboxes.operations import Operation, operations, run

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this machine's system calls are not known")

each_errno = pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.__getitem__)
# What a sandbox answers to a call that it does not know, and to one that it forbids.
each_denial = pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.EPERM], ids=errno.errorcode.__getitem__
)

# Calls without which everything works: they check, lock, walk and sync better than what comes instead.
HELPERS: Final = (
    ("flock",),
    ("statx",),
    ("openat2",),
    ("syncfs",),
    ("sync_file_range",),
    ("fstatfs",),
    ("statx", "openat2"),
    ("flock", "statx", "openat2", "syncfs", "fstatfs"),
)


def violations(folder: Path, system: System, durability: str = "none") -> list[str]:
    """Runs every operation in a folder and lists what each has broken."""
    folder.mkdir()
    found = [
        f"{operation}: {broken}"
        for number, operation in enumerate(operations())
        for broken in broken_promises(
            operation, system, run(operation, folder / str(number), durability)
        )
    ]
    shutil.rmtree(folder)
    return found


def violations_under(
    rules: list[Rule], folder: Path, system: System, durability: str = "none"
) -> list[str]:
    """Does the same in a forked child that is denied some calls."""

    def denied() -> list[str]:
        deny(rules)
        return violations(folder, system, durability)

    return run_as(ROOT, denied)


@each_errno
@pytest.mark.parametrize("fs", ["ext4", "tmpfs", "overlay", "bindfs"], indirect=True)
def test_what_is_missing_has_an_equal_or_is_refused(fs: Filesystem, number: int) -> None:
    system = System.of(fs)
    assert [
        f"without {name}: {broken}"
        for name, gap in GAPS.items()
        for broken in violations_under(
            gap.rules(number), fs.here / "denied", gap.leaves(system, number)
        )
    ] == []


@each_denial
@pytest.mark.parametrize("fs", ["ext4", "tmpfs", "overlay", "bindfs"], indirect=True)
def test_a_sandbox_that_denies_a_helper_changes_nothing(fs: Filesystem, number: int) -> None:
    system = System.of(fs)
    assert [
        f"without {', '.join(helpers)}: {broken}"
        for helpers in HELPERS
        for broken in violations_under(
            [Rule(helper, number) for helper in helpers], fs.here / "denied", system, "full"
        )
    ] == []


def unsynced(operation: Operation, folder: Path, durability: str) -> Iterator[str]:
    """Says what an operation has broken whose first sync fails."""
    outcome = run(operation, folder, durability)
    if outcome.error is None:
        yield "it has published after a failed sync"
    # An earlier refusal never came to the sync.
    elif (
        isinstance(outcome.error, atomik.errors.DurabilityError) or outcome.error.errno != errno.EIO
    ):
        yield from broken_rollback(operation, outcome)
    else:
        yield f"it raises {outcome.error!r}"


def unsynced_under(gap: Gap, number: int, folder: Path) -> list[str]:
    """Runs every operation that syncs with a gap, and each sync failing."""

    def denied() -> list[str]:
        syncs = [Rule(name, errno.EIO) for name in ("fsync", "syncfs", "sync_file_range")]
        deny([*syncs, *gap.rules(number)])
        folder.mkdir()
        found = [
            f"{operation}, {durability}: {broken}"
            for operation in operations()
            if not operation.moves
            for durability in ("ordered", "full")
            for broken in unsynced(operation, folder / f"{operation}, {durability}", durability)
        ]
        shutil.rmtree(folder)
        return found

    return run_as(ROOT, denied)


@pytest.mark.parametrize("fs", ["ext4", "overlay", "bindfs"], indirect=True)
def test_no_fallback_publishes_what_it_could_not_sync(fs: Filesystem) -> None:
    assert [
        f"without {name}: {broken}"
        for name, gap in {"nothing": Gap(), **GAPS}.items()
        for broken in unsynced_under(gap, errno.EINVAL, fs.here / "denied")
    ] == []


@pytest.mark.parametrize(
    ("fs", "other"),
    [("bindfs", "ext4"), ("ext4", "bindfs"), ("overlay", "bindfs"), ("bindfs", "tmpfs")],
    indirect=True,
)
def test_what_one_filesystem_lacks_is_not_held_against_another(
    fs: Filesystem, other: Filesystem
) -> None:
    def both() -> list[str]:
        # In one process that has asked nothing yet, and back again.
        first, second = System.of(fs), System.of(other)
        return (
            violations(fs.here / "one", first)
            + violations(other.here / "other", second)
            + violations(fs.here / "again", first)
        )

    assert run_as(ROOT, both) == []


@pytest.mark.parametrize("fs", ["ext4"], indirect=True)
@pytest.mark.parametrize(
    "number",
    [errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP],
    ids=errno.errorcode.__getitem__,
)
def test_an_answer_that_only_one_thread_gets_is_not_remembered(fs: Filesystem, number: int) -> None:
    system = System.of(fs)

    def both() -> list[str]:
        found: list[str] = []
        gap = GAPS["everything"]

        def denied() -> None:
            # Without SECCOMP_FILTER_FLAG_TSYNC a filter is its thread's alone (seccomp(2)).
            deny(gap.rules(number))
            found.extend(violations(fs.here / "denied", gap.leaves(system, number)))

        thread = threading.Thread(target=denied)
        thread.start()
        thread.join()
        return found + violations(fs.here / "free", system)

    assert run_as(ROOT, both) == []


def replace_over_a_mount(destination: Path, rules: list[Rule]) -> list[str]:
    """Replaces a folder in a sandbox and returns what it was warned of."""
    deny(rules)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with atomik.folder(destination, overwrite=True) as staging:
            (staging / "new").touch()
    return [warning.category.__name__ for warning in warned]


@pytest.mark.leaves_orphans
@each_denial
@pytest.mark.parametrize("denied", [(), ("openat2",), ("statx",), ("statx", "openat2")])
@pytest.mark.parametrize("fs", ["ext4"], indirect=True)
def test_clean_up_crosses_no_mount_on_any_kernel(
    fs: Filesystem, denied: tuple[str, ...], number: int
) -> None:
    destination, elsewhere = fs.folder("destination"), fs.folder("elsewhere")
    (destination / "inner").mkdir()
    (elsewhere / "precious").write_text("kept")
    # The same filesystem: the device number does not tell it from the folder around it.
    fs.bind(elsewhere, destination / "inner")
    mount = slot_names.porch(destination) / "destination" / "inner"
    rules = [Rule(call, number) for call in denied]
    try:
        assert run_as(ROOT, partial(replace_over_a_mount, destination, rules)) == ["CleanupWarning"]
        assert (elsewhere / "precious").read_text() == "kept"
        assert os.listdir(destination) == ["new"]
    finally:
        kernel.unmount(mount)
    with atomik.folder(destination, overwrite=True):
        pass
    assert fs.leftovers() == []
