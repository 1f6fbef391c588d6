"""What all guards promise about their states: each is entered once and ended once."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support.filesystems import leftovers
from support.guard_kinds import AnyGuard, Kind, each_kind

ENDINGS: Final[dict[str, Callable[[AnyGuard], None]]] = {
    "commit": lambda guard: guard.commit(),
    "rollback": lambda guard: guard.rollback(),
}


@contextmanager
def dropped(how: str) -> Iterator[None]:
    """Promises that a guard is dropped meanwhile, and that this is warned of."""
    with pytest.warns(ResourceWarning, match=rf"{how}; use 'with'"):  # noqa: PT031 - a cycle is only dropped then
        yield
        gc.collect()


each_ending = pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)


@each_ending
@each_kind
def test_a_guard_that_was_not_entered_cannot_be_ended(
    here: Path, kind: Kind, end: Callable[[AnyGuard], None]
) -> None:
    guard = kind.open(here / "destination")
    with pytest.raises(RuntimeError, match="not open"):
        end(guard)
    assert list(here.iterdir()) == []
    with dropped("made and not entered"):
        del guard


@each_ending
@each_kind
def test_a_guard_is_ended_once(here: Path, kind: Kind, end: Callable[[AnyGuard], None]) -> None:
    destination = here / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
    with pytest.raises(RuntimeError, match="not open"):
        end(guard)
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_is_not_entered_again_in_its_body(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
        with pytest.raises(RuntimeError, match="entered once"):
            guard.__enter__()
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_is_not_entered_again_after_its_body(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
    with pytest.raises(RuntimeError, match="entered once"):
        guard.__enter__()
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_whose_entering_failed_is_not_entered_again(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination)
    with pytest.raises(FileExistsError):
        guard.__enter__()
    with pytest.raises(RuntimeError, match="entered once"):
        guard.__enter__()
    assert not guard.committed
    assert kind.read(destination) == "old"


@each_kind
def test_an_exception_rolls_back_and_is_raised(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)
    with pytest.raises(LookupError, match="mine"), guard as staging:
        kind.write(staging, "new")
        raise LookupError("mine")
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert leftovers(here) == []


@each_kind
def test_rollback_in_the_body_discards_now(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
        guard.rollback()
        assert list(here.iterdir()) == []
        with pytest.raises(RuntimeError, match="not open"):
            guard.commit()
    assert not guard.committed
    assert list(here.iterdir()) == []


@each_kind
def test_an_exception_after_a_commit_in_the_body_leaves_the_new_version(
    here: Path, kind: Kind
) -> None:
    destination = here / "destination"
    guard = kind.open(destination)
    with pytest.raises(LookupError), guard as staging:
        kind.write(staging, "new")
        guard.commit()
        raise LookupError
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_commit_in_the_body_publishes_now(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)
    with guard as staging:
        kind.write(staging, "new")
        guard.commit()
        assert kind.read(destination) == "new"
        assert leftovers(here) == []
        with pytest.raises(RuntimeError, match="not open"):
            guard.commit()
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_says_where_it_stands(here: Path, kind: Kind) -> None:
    destination = here / "destination"
    guard = kind.open(str(destination).encode())
    assert (guard.destination, guard.staging, guard.committed) == (destination, None, False)
    with guard as staging:
        kind.write(staging, "new")
        assert guard.destination == destination
        assert not guard.committed
        if kind.name != "file":
            assert guard.staging == staging
            assert staging.name == destination.name
    assert (guard.destination, guard.staging, guard.committed) == (destination, None, True)


@each_kind
def test_a_relative_destination_is_named_as_it_was_given(kind: Kind) -> None:
    with dropped("made and not entered"):
        assert kind.open("folder/../name").destination == Path("folder/../name")


@each_kind
def test_nothing_is_touched_before_entering(here: Path, kind: Kind) -> None:
    with dropped("made and not entered"):
        kind.open(here / "destination")
        kind.open(here / "missing" / "destination")
    assert list(here.iterdir()) == []


@each_kind
def test_a_guard_that_is_forgotten_leaves_nothing(here: Path, kind: Kind) -> None:
    guard = kind.open(here / "destination")
    staging = guard.__enter__()
    kind.write(staging, "new")
    with dropped("entered and not ended"):
        del guard, staging
    assert list(here.iterdir()) == []


def test_what_is_dropped_is_named(here: Path) -> None:
    with pytest.warns(ResourceWarning, match=r"File of b'x' was made and not entered"):
        atomik.file(b"x")
    with pytest.warns(ResourceWarning, match=r"Folder of 'x' was made and not entered"):
        atomik.folder("x")
    with pytest.warns(ResourceWarning, match=r"Snapshot of '.*' was entered and not ended"):
        atomik.snapshot(here).__enter__()
    with pytest.warns(ResourceWarning, match="group was entered and not ended"):
        atomik.group().__enter__()
    with pytest.warns(ResourceWarning, match="group was made and not entered"):
        atomik.group()


@each_kind
def test_a_guard_in_a_cycle_is_warned_of(here: Path, kind: Kind) -> None:
    with dropped("entered and not ended"):
        guard = kind.open(here / "destination")
        cycle: list[Any] = [guard, guard.__enter__()]
        cycle.append(cycle)
        del guard, cycle
    assert list(here.iterdir()) == []


@pytest.mark.filterwarnings("error")
@each_kind
def test_a_guard_that_has_ended_is_dropped_silently(here: Path, kind: Kind) -> None:
    for end in ENDINGS.values():
        guard = kind.open(here / "destination", overwrite=True)
        with guard as staging:
            kind.write(staging, "new")
            end(guard)
        del guard, staging
    with pytest.raises(FileExistsError), kind.open(here / "destination"):
        pass
    gc.collect()


@each_kind
def test_a_guard_shows_what_it_is_and_in_which_state(here: Path, kind: Kind) -> None:
    destination = os.fspath(here / "destination")
    name = {"file": "File", "folder": "Folder", "path": "Entry"}[kind.name]
    guard = kind.open(destination)
    assert repr(guard) == f"<{name} of {destination!r}: not entered>"
    with guard as staging:
        kind.write(staging, "new")
        assert repr(guard) == f"<{name} of {destination!r}: open>"
    assert repr(guard) == f"<{name} of {destination!r}: committed>"
    guard = kind.open(os.fsencode(destination), overwrite=True)
    with guard:
        guard.rollback()
    assert repr(guard) == f"<{name} of {os.fsencode(destination)!r}: ended>"


def test_a_group_and_a_snapshot_show_themselves(here: Path) -> None:
    group = atomik.group()
    assert repr(group) == "<Group: not entered>"
    with group as g:
        g.write_text(here / "x", "new")
        assert repr(group) == "<Group of 1: open>"
    assert repr(group) == "<Group: committed>"
    snapshot = atomik.snapshot(os.fspath(here))
    with snapshot:
        assert repr(snapshot) == f"<Snapshot of {os.fspath(here)!r}: open>"
    assert repr(snapshot) == f"<Snapshot of {os.fspath(here)!r}: ended>"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_exception_passes_a_guard_that_is_dropped_on_its_way(here: Path) -> None:
    def fail() -> None:
        unused = [atomik.file(here / "one"), atomik.group(), atomik.folder("two")]
        guard = atomik.file(here / "three")
        guard.__enter__().write("half")
        assert unused
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        fail()
    del caught
    assert list(here.iterdir()) == []
