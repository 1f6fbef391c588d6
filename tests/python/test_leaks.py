"""A process that commits for months stays as large as it was."""

import json
import os
from itertools import pairwise
from statistics import median
from typing import Any, Final

import atomik
import pytest
from support import growth
from support.filesystems import Filesystem
from support.growth import Size
from support.processes import ROOT, run_as, run_program

pytestmark = [
    pytest.mark.thread_unsafe(reason="counts what the whole process has"),
    pytest.mark.parametrize("fs", ["tmpfs"], indirect=True),
]

ROUNDS: Final = 5
MANY: Final = 100_000 // ROUNDS
SOME: Final = 2_000

# A leak adds to each round. What the interpreter and the allocator keep for later, as when they enlarge a table,
# they add to one round or two, and the median does not show it.
#
# The smallest block that malloc has takes 32 bytes. The median was 0.1 to 8 bytes a call.
BYTES_A_CALL: Final = 25
# Python's caches (of methods, integers, the interned) come and go by some dozens of blocks; one
# leaked object a call would be 2,000.
BLOCKS: Final = 500


def sizes(fs: Filesystem, call: str, times: int) -> list[Size]:
    """Makes a call, in a process of its own, `times` times in each round."""
    # The program has as long as a test.
    ran = run_program("-m", growth.__name__, call, fs.here, str(ROUNDS), str(times), seconds=280)
    assert ran.returncode == 0, ran.stderr
    return [Size(**size) for size in json.loads(ran.stdout)]


def added_bytes(measured: list[Size]) -> float:
    """The bytes that the median round has added."""
    return median(after.memory - before.memory for before, after in pairwise(measured))


def assert_stays_as_it_is(fs: Filesystem, call: str, times: int) -> None:
    measured = sizes(fs, call, times)
    assert all(size.descriptors == measured[0].descriptors for size in measured)
    assert median(after.blocks - before.blocks for before, after in pairwise(measured)) < BLOCKS
    assert added_bytes(measured) < BYTES_A_CALL * times


def test_a_leak_of_100_bytes_a_call_would_be_seen(fs: Filesystem) -> None:
    assert added_bytes(sizes(fs, growth.leak_of_100_bytes.__name__, SOME)) >= 100 * SOME


def test_a_hundred_thousand_commits_leave_the_process_as_it_was(fs: Filesystem) -> None:
    assert_stays_as_it_is(fs, growth.write_bytes.__name__, MANY)
    assert os.listdir(fs.here) == ["destination"]


def test_ten_thousand_refusals_leave_the_process_as_it_was(fs: Filesystem) -> None:
    assert_stays_as_it_is(fs, growth.refusal.__name__, MANY // 10)


@pytest.mark.parametrize("call", growth.CALLS)
def test_thousands_of_calls_leave_the_process_as_it_was(fs: Filesystem, call: str) -> None:
    assert_stays_as_it_is(fs, call, SOME)
    assert fs.leftovers() == []


@pytest.mark.filterwarnings("ignore:.*use 'with':ResourceWarning")
def test_a_guard_that_is_never_ended_gives_its_descriptors_back(fs: Filesystem) -> None:
    before = Size.now().descriptors
    guards: list[atomik.File[Any] | atomik.Folder | atomik.Entry] = [
        atomik.file(fs.here / "file", "wb"),
        atomik.folder(fs.here / "folder"),
        atomik.path(fs.here / "path"),
    ]
    bodies = [guard.__enter__() for guard in guards]
    assert Size.now().descriptors != before
    del guards, bodies
    assert Size.now().descriptors == before
    assert os.listdir(fs.here) == []


def test_a_guard_in_a_cycle_with_its_own_file_gives_its_descriptors_back(fs: Filesystem) -> None:
    def lost_guards() -> tuple[dict[str, str], dict[str, str]]:
        before = Size.now().descriptors
        for _ in range(10):
            guard = atomik.file(fs.here / "file")
            guard.__enter__().guard = guard  # type: ignore[attr-defined]
            del guard
        return before, Size.now().descriptors

    # In a process of its own: what leaks would be other tests' leaks too.
    before, after = run_as(ROOT, lost_guards)
    assert after == before
