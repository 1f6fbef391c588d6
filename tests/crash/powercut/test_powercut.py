"""A power cut never takes a complete version away: a spread of workloads on all configurations.

`python -m powercut` judges all of them, in all their states; this is what CI has time for.
"""

import random
from typing import Final

import pytest

from powercut import engine
from powercut.configurations import CONFIGURATIONS
from powercut.engine import Task
from powercut.workloads import QUICK

_STATES: Final = 300  # on each configuration, each way
_QUIET: Final = 4  # one in so many workloads is recorded without the bystander as well


@pytest.mark.timeout(900)  # 20 seconds on a machine that does nothing else
@pytest.mark.parametrize("flushes", ["one", "two"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_crash_state_shows_a_complete_version(
    configuration: str, flushes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flushes == "two":
        monkeypatch.setenv("ATOMIK_SINGLE_FLUSH", "0")
    if (reason := engine.missing(CONFIGURATIONS[configuration])) is not None:
        pytest.skip(reason)
    seed = random.SystemRandom().getrandbits(32)
    recorded = [(each.name, True) for each in QUICK]
    recorded += [(each.name, False) for each in QUICK[seed % _QUIET :: _QUIET]]
    # More than needed, for some of the recordings have fewer states.
    each = 5 * _STATES // 4 // len(recorded)
    tasks = [
        Task(configuration, "workloads", name, bystander, each, seed)
        for name, bystander in recorded
    ]

    outcomes = list(engine.judge_all(tasks, jobs=1))

    tried = sum(outcome.tried for outcome in outcomes)
    print(f"{configuration}: seed {seed}, {tried} states of {len(tasks)} recordings")
    for outcome in outcomes:
        print(f"{outcome.task.workload}: {outcome.tried} of {outcome.possible}, {outcome.bad} bad")
        print("\n".join(outcome.examples + outcome.errors))
    assert [outcome.task for outcome in outcomes if outcome.errors] == []
    assert [outcome.task for outcome in outcomes if outcome.bad] == []
    assert tried >= _STATES
