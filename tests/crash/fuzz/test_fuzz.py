"""Whatever is called, with whatever arguments, in whatever order: nothing but documented answers, nothing left."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fuzz.jail import Jail
from fuzz.plays import PLAIN, Play, Step
from fuzz.run import Outcome
from fuzz.sabotage import SABOTAGE
from fuzz.strategies import calls, sequences

ROOT: Final = 0
NOBODY: Final = 65534

PLAYS: Final = {"calls": calls(), "sequences": sequences()}
USERS: Final = {"root": ROOT, "nobody": NOBODY}

SECONDS: Final = int(os.environ.get("ATOMIK_FUZZ_SECONDS", "0")) / len(PLAYS) / len(USERS)
"""How long each test goes on; by default, one round of `A_ROUND` plays."""

PLAYED_WELL: Final = {
    "write_bytes": Play("write_bytes", ("dest", b"new"), threads=(PLAIN,)),
    "folder": Play("folder", ("dest",), depth=1, threads=(PLAIN,)),
    "rename": Play("rename", ("bystander", "new")),
    "exchange": Play("exchange", ("bystander", "sub/inner")),
    "update": Play("folder", ("dest",), {"update": True}, there="folder", threads=(PLAIN,)),
    "backup": Play(
        "write_bytes", ("dest", b"new"), {"overwrite": True, "backup": "before"}, there="file"
    ),
}
"""What each sabotage is compared with: the call as it should be, by its name or by that of an option."""

A_ROUND: Final = 150

pytestmark = [
    pytest.mark.thread_unsafe(reason="hypothesis runs one test in one thread"),
    pytest.mark.timeout(300 + 2 * SECONDS),
]


def skip_without_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("a mount namespace of one's own needs root")


@pytest.fixture(params=USERS)
def jail(request: pytest.FixtureRequest) -> Iterator[Jail]:
    skip_without_root()
    with Jail(USERS[request.param]) as jail:
        yield jail


@pytest.mark.parametrize("plays", PLAYS)
def test_nothing_but_documented_answers_and_complete_versions(
    request: pytest.FixtureRequest, jail: Jail, plays: str
) -> None:
    tried: Counter[str] = Counter()

    @settings(
        max_examples=A_ROUND,
        deadline=None,
        # In CI, too, every round tries other plays; the blob that a failure prints repeats it.
        derandomize=False,
        # Explaining a failure takes long, and what it finds is in the library, not in Python.
        phases=set(Phase) - {Phase.explain},
        # hypothesis gives the metaclass's __iter__ no types.
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
        print_blob=True,
    )
    @given(PLAYS[plays])
    def play_a_round(play: Play) -> None:
        outcome = jail.perform(play)
        tried.update(outcome.answers)
        tried["plays"] += 1
        assert outcome.faults == ()

    end = time.monotonic() + SECONDS
    play_a_round()
    while time.monotonic() < end:
        play_a_round()
    all_plays = tried.pop("plays")
    print(f"\n{request.node.name}: {all_plays} plays")
    for answer, times in tried.most_common():
        print(f"{times:>8} {answer}")
    # Enough of what is drawn must get as far as the library's own work.
    assert tried["well"] > all_plays / 50


@pytest.mark.parametrize("durability", ["full", "ordered", "none"])
def test_a_tree_of_any_depth_is_published_and_replaced(durability: str) -> None:
    skip_without_root()
    options = {"overwrite": True, "durability": durability}
    with Jail(ROOT) as jail:
        for depth in range(70):
            for there in ("missing", "deep folder"):
                play = Play(
                    "folder", ("dest",), options, depth=depth, there=there, threads=(PLAIN,)
                )
                assert jail.perform(play) == Outcome((), ("well",)), (depth, there)


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 64, 100])
def test_a_tree_of_any_depth_is_rolled_back(depth: int) -> None:
    skip_without_root()
    steps = (Step("enter"), Step("fill"), Step("rollback"))
    with Jail(NOBODY) as jail:
        play = Play("folder", ("dest",), {"durability": "none"}, depth=depth, threads=(steps,))
        assert jail.perform(play) == Outcome((), ("well",))


@pytest.mark.parametrize("name", SABOTAGE)
def test_every_broken_promise_is_seen(name: str) -> None:
    skip_without_root()
    sabotage = SABOTAGE[name]
    well = PLAYED_WELL[sabotage.well]
    with Jail(NOBODY, patience=1 if name == "hang" else 60) as jail:
        assert jail.perform(well) == Outcome((), ("well",))
        faults = jail.perform(replace(well, sabotage=name)).faults
        assert any(sabotage.seen_as in fault for fault in faults), faults
        # Neither does it spoil what comes after it.
        assert jail.perform(well) == Outcome((), ("well",))


def test_nothing_can_be_written_outside_the_jail() -> None:
    skip_without_root()
    outside = f"/tmp/atomik-fuzz-outside-{os.getpid()}"
    with Jail(ROOT) as jail:
        outcome = jail.perform(Play("write_bytes", (outside, b"new"), threads=(PLAIN,)))
    assert outcome.answers == ("call: OSError",)
    assert not os.path.exists(outside)
