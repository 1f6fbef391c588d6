"""The process is killed at each system call of each operation.

Only system calls change a disk: killed at the entry of each, and at the mark behind the last, a
process has been killed at every point that can be told from another. Afterwards the destination is
complete old or complete new, and whatever kind of writer comes next removes all that was left.

FUSE (bindfs) is asked for other calls than ext4; the rest is asked for nearly the same as ext4, and
is marked `slow`.
"""

from collections.abc import Iterator

import pytest
from support import strace
from support.filesystems import Filesystem
from support.strace import Injection

from inject import careless, judgement
from inject.bench import Bench
from inject.forks import Forks
from inject.operations import ALL, Operation

pytestmark = [
    pytest.mark.skipif(strace.why_not() is not None, reason=str(strace.why_not())),
    # They are judged here, run by run; at the end the test's folder is empty.
    pytest.mark.leaves_orphans,
]

each_operation = pytest.mark.parametrize(
    "operation", ALL.values(), ids=lambda operation: str(operation.name)
)


on_ext4_and_bindfs = pytest.mark.parametrize(
    ("fs", "operation"),
    [("ext4", operation) for operation in ALL.values()]
    + [("bindfs", operation) for operation in ALL.values() if operation.elsewhere],
    ids=lambda param: str(getattr(param, "name", param)),
    indirect=["fs"],
)


def broken(operation: Operation, fs: Filesystem, forks: Forks) -> Iterator[tuple[Injection, str]]:
    bench = Bench(operation, fs, forks)
    for call in bench.calls():
        injection = Injection(call)
        with bench.inject(injection) as outcome:
            for wrong in judgement.after_kill(bench, outcome):
                yield injection, wrong


def check(operation: Operation, fs: Filesystem, forks: Forks) -> None:
    if not operation.can_be_tried(fs.flags):
        pytest.skip(f"{fs.name} cannot exchange two names")
    violations = [f"{at}\n    {wrong}" for at, wrong in broken(operation, fs, forks)]
    assert not violations, "\n".join(violations)


@on_ext4_and_bindfs
def test_a_kill_leaves_old_or_new_and_nothing_that_the_next_writer_does_not_remove(
    operation: Operation, fs: Filesystem, forks: Forks
) -> None:
    check(operation, fs, forks)


@pytest.mark.slow
@each_operation
@pytest.mark.parametrize("fs", ["xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
def test_a_kill_leaves_the_same_there(operation: Operation, fs: Filesystem, forks: Forks) -> None:
    check(operation, fs, forks)


@pytest.mark.parametrize(("mistake", "judgement"), careless.KILLS_TELL.items())
@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_careless_writer_is_found_out(
    mistake: str, judgement: str, fs: Filesystem, forks: Forks
) -> None:
    violations = [wrong for _, wrong in broken(careless.ALL[mistake], fs, forks)]
    assert any(wrong.startswith(judgement) for wrong in violations), violations


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_careful_writer_is_blamed_for_nothing(fs: Filesystem, forks: Forks) -> None:
    check(careless.CAREFUL, fs, forks)
