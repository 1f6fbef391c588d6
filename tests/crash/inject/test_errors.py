"""Each system call of each operation fails once, with each error that it can have.

Whatever happens: the destination is complete old or complete new, success is only reported if it
is the new one, an error says on which side of the publish it happened, nothing is left beside the
destination, a writer that is alive there keeps what it has, no descriptor leaks, and nothing panics.
Which calls there are is learnt from strace, not from the code: a call that is added tomorrow fails
here tomorrow.

On ext4 a call that changes, syncs or locks something fails in every way that it can, and one that
only looks in one of its ways in turn. How the library takes an error does not depend on the filesystem,
but which calls it makes does: overlay is asked more, FUSE (bindfs) is asked otherwise. There each call
fails with one of its errors in turn; so it does, and only on ext4, in operations that share nearly all of
their calls with others. All errors of all calls on all filesystems are marked `slow`.
"""

from collections.abc import Callable, Iterator

import pytest
from support import strace
from support.filesystems import NAMES, Filesystem
from support.strace import Call, Injection

from inject import careless, errors, judgement
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

elsewhere = pytest.mark.parametrize(
    "operation",
    [operation for operation in ALL.values() if operation.elsewhere],
    ids=lambda operation: str(operation.name),
)

Choose = Callable[[list[Call]], Iterator[Injection]]


def every_error(calls: list[Call]) -> Iterator[Injection]:
    for call in calls:
        for error in errors.of(call):
            yield Injection(call, error)


def one_error_each(fs: Filesystem) -> Choose:
    """Fails each call once, with its errors in turn, beginning with another one on each filesystem."""

    def choose(calls: list[Call]) -> Iterator[Injection]:
        for number, call in enumerate(calls, NAMES.index(fs.name)):
            if choices := errors.of(call):
                yield Injection(call, choices[number % len(choices)])

    return choose


def every_error_of_what_acts(fs: Filesystem) -> Choose:
    """Fails calls that only look once, and all others in every way."""

    def choose(calls: list[Call]) -> Iterator[Injection]:
        looking = (at for at in one_error_each(fs)(calls) if errors.only_looks(at.call))
        yield from looking
        yield from every_error([call for call in calls if not errors.only_looks(call)])

    return choose


def broken(
    operation: Operation, fs: Filesystem, forks: Forks, choose: Choose
) -> Iterator[tuple[Injection, str]]:
    bench = Bench(operation, fs, forks)
    *calls, _end = bench.calls()
    for injection in choose(calls):
        with bench.inject(injection) as outcome:
            for wrong in judgement.after_error(bench, injection, outcome):
                yield injection, wrong


def check(operation: Operation, fs: Filesystem, forks: Forks, choose: Choose) -> None:
    if not operation.can_be_tried(fs.flags):
        pytest.skip(f"{fs.name} cannot exchange two names")
    violations = [f"{at}\n    {wrong}" for at, wrong in broken(operation, fs, forks, choose)]
    assert not violations, "\n".join(violations)


@each_operation
@pytest.mark.parametrize("fs", ["ext4"], indirect=True)
def test_a_call_that_fails_in_whatever_way_breaks_no_promise(
    operation: Operation, fs: Filesystem, forks: Forks
) -> None:
    # What is not worth its time elsewhere shares nearly all of its calls with other operations.
    choose = every_error_of_what_acts if operation.elsewhere else one_error_each
    check(operation, fs, forks, choose(fs))


@elsewhere
@pytest.mark.parametrize("fs", ["overlay", "bindfs"], indirect=True)
def test_a_call_that_fails_breaks_no_promise(
    operation: Operation, fs: Filesystem, forks: Forks
) -> None:
    check(operation, fs, forks, one_error_each(fs))


@pytest.mark.slow
@each_operation
def test_a_call_that_fails_in_whatever_way_breaks_no_promise_anywhere(
    operation: Operation, fs: Filesystem, forks: Forks
) -> None:
    check(operation, fs, forks, every_error)


@pytest.mark.parametrize(("mistake", "judgement"), careless.ERRORS_TELL.items())
@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_careless_writer_is_found_out(
    mistake: str, judgement: str, fs: Filesystem, forks: Forks
) -> None:
    violations = [wrong for _, wrong in broken(careless.ALL[mistake], fs, forks, every_error)]
    assert any(wrong.startswith(judgement) for wrong in violations), violations


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_careful_writer_is_blamed_for_nothing(fs: Filesystem, forks: Forks) -> None:
    check(careless.CAREFUL, fs, forks, every_error)
