"""What all guards promise about their states: each is entered once and ended once."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from filesystems import leftovers
from guards import AnyGuard, Kind, each_kind

ENDINGS: Final[dict[str, Callable[[AnyGuard], None]]] = {
    "commit": lambda guard: guard.commit(),
    "rollback": lambda guard: guard.rollback(),
}

each_ending = pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)


@each_ending
@each_kind
def test_a_guard_that_was_not_entered_cannot_be_ended(
    tmp_path: Path, kind: Kind, end: Callable[[AnyGuard], None]
) -> None:
    guard = kind.open(tmp_path / "destination")
    with pytest.raises(RuntimeError, match="not open"):
        end(guard)
    assert list(tmp_path.iterdir()) == []


@each_ending
@each_kind
def test_a_guard_is_ended_once(tmp_path: Path, kind: Kind, end: Callable[[AnyGuard], None]) -> None:
    destination = tmp_path / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
    with pytest.raises(RuntimeError, match="not open"):
        end(guard)
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_is_not_entered_again_in_its_body(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
        with pytest.raises(RuntimeError, match="entered once"):
            guard.__enter__()
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_is_not_entered_again_after_its_body(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
    with pytest.raises(RuntimeError, match="entered once"):
        guard.__enter__()
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_whose_entering_failed_is_not_entered_again(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination)
    with pytest.raises(FileExistsError):
        guard.__enter__()
    with pytest.raises(RuntimeError, match="entered once"):
        guard.__enter__()
    assert not guard.committed
    assert kind.read(destination) == "old"


@each_kind
def test_an_exception_rolls_back_and_is_raised(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)
    with pytest.raises(LookupError, match="mine"), guard as staging:
        kind.write(staging, "new")
        raise LookupError("mine")
    assert not guard.committed
    assert kind.read(destination) == "old"
    assert leftovers(tmp_path) == []


@each_kind
def test_rollback_in_the_body_discards_now(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    guard = kind.open(destination)
    with guard as staging:
        kind.write(staging, "new")
        guard.rollback()
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(RuntimeError, match="not open"):
            guard.commit()
    assert not guard.committed
    assert list(tmp_path.iterdir()) == []


@each_kind
def test_an_exception_after_a_commit_in_the_body_leaves_the_new_version(
    tmp_path: Path, kind: Kind
) -> None:
    destination = tmp_path / "destination"
    guard = kind.open(destination)
    with pytest.raises(LookupError), guard as staging:
        kind.write(staging, "new")
        guard.commit()
        raise LookupError
    assert guard.committed
    assert kind.read(destination) == "new"


@each_kind
def test_commit_in_the_body_publishes_now(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
    kind.publish(destination, "old")
    guard = kind.open(destination, overwrite=True)
    with guard as staging:
        kind.write(staging, "new")
        guard.commit()
        assert kind.read(destination) == "new"
        assert leftovers(tmp_path) == []
        with pytest.raises(RuntimeError, match="not open"):
            guard.commit()
    assert kind.read(destination) == "new"


@each_kind
def test_a_guard_says_where_it_stands(tmp_path: Path, kind: Kind) -> None:
    destination = tmp_path / "destination"
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
    assert kind.open("folder/../name").destination == Path("folder/../name")


@each_kind
def test_nothing_is_touched_before_entering(tmp_path: Path, kind: Kind) -> None:
    kind.open(tmp_path / "destination")
    kind.open(tmp_path / "missing" / "destination")
    assert list(tmp_path.iterdir()) == []


@each_kind
def test_a_guard_that_is_forgotten_leaves_nothing(tmp_path: Path, kind: Kind) -> None:
    guard = kind.open(tmp_path / "destination")
    staging = guard.__enter__()
    kind.write(staging, "new")
    del guard, staging
    assert list(tmp_path.iterdir()) == []
