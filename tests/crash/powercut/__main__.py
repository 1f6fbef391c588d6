"""Cuts the power of every workload on every filesystem, and prints what each of them is worth.

Run as root: `PYTHONPATH=tests/python:tests/crash python -m powercut --help`.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from powercut import engine
from powercut.configurations import CONFIGURATIONS, UNSOUND
from powercut.engine import Outcome, Task
from powercut.peers import SKIPPED

_HEADINGS: Final = ("workload", "neighbour", "states", "of", "bad", "verdict", "problems (states)")
_NUMBERS: Final = ("states", "of", "bad")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    patterns = options.filesystem.split(",")
    names = [
        name for name in CONFIGURATIONS if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    names += [name for name in UNSOUND if name in patterns]
    for name in names:
        if (reason := engine.missing((CONFIGURATIONS | UNSOUND)[name])) is not None:
            sys.exit(f"{name}: {reason}")
    tasks = [task for name in names for task in _tasks(name, options)]
    if not tasks:
        sys.exit("no workload on no filesystem")
    if options.peers:
        for reason, count in Counter(SKIPPED.values()).items():
            print(f"{count} peers are left out: {reason}")
    print(f"seed {options.seed}, {len(tasks)} recordings", flush=True)
    started = time.monotonic()
    outcomes = _judged(tasks, options.jobs)
    states = sum(outcome.tried for outcome in outcomes)
    bad = sum(outcome.bad for outcome in outcomes)
    errors = sum(len(outcome.errors) for outcome in outcomes)
    seconds = time.monotonic() - started
    print(f"{states} states in {seconds:.0f} s, {bad} bad, {errors} engine errors")
    if options.json is not None:
        report = {"seed": options.seed, "seconds": seconds, "outcomes": list(map(_plain, outcomes))}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    # What peers do is told, and nothing to fail for.
    return any(outcome.errors or (outcome.bad and not options.peers) for outcome in outcomes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("powercut", description=__doc__)
    parser.add_argument("--states", type=int, default=0, help="of each recording; 0 (default): all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--filesystem", default="*", help=f"globs of {', '.join(CONFIGURATIONS)}")
    parser.add_argument("--workload", default="*", help="a glob")
    parser.add_argument("--neighbour", choices=("busy", "quiet", "both"), default="both")
    parser.add_argument("--peers", action="store_true", help="other libraries instead of atomik")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there, too")
    return parser


def _tasks(configuration: str, options: argparse.Namespace) -> Iterable[Task]:
    catalogue = "peers" if options.peers else "workloads"
    for workload in engine.catalogue(catalogue):
        if fnmatchcase(workload, options.workload):
            for neighbour in ("busy", "quiet"):
                if options.neighbour in (neighbour, "both"):
                    yield Task(
                        configuration,
                        catalogue,
                        workload,
                        bystander=neighbour == "busy",
                        states=options.states,
                        seed=options.seed,
                    )


def _judged(tasks: Sequence[Task], jobs: int) -> list[Outcome]:
    """Does the tasks, and prints each configuration's table as soon as it is complete."""
    done: defaultdict[str, dict[Task, Outcome]] = defaultdict(dict)
    for outcome in engine.judge_all(tasks, jobs):
        name = outcome.task.configuration
        done[name][outcome.task] = outcome
        expected = [task for task in tasks if task.configuration == name]
        if len(done[name]) == len(expected):
            _print(name, [done[name][task] for task in expected])
    return [done[task.configuration][task] for task in tasks]


def _plain(outcome: Outcome) -> dict[str, object]:
    # `asdict` makes a new Counter from pairs, which counts the pairs.
    return {**asdict(outcome), "kinds": dict(outcome.kinds)}


def _print(configuration: str, outcomes: Sequence[Outcome]) -> None:
    tried = sum(outcome.tried for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"\n{configuration}: {tried} states, {tried / max(seconds, 0.001):.0f} a second")
    rows = [_HEADINGS, *map(_row, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
            for cell, width, heading in zip(row, widths, _HEADINGS, strict=True)
        ]
        print("  ".join(cells).rstrip())
    for outcome in outcomes:
        for line in (*outcome.examples[:1], *outcome.errors[:3]):
            print(f"  {outcome.task.workload}: {line}")
    sys.stdout.flush()


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.task.workload,
        "busy" if outcome.task.bystander else "quiet",
        str(outcome.tried),
        str(outcome.possible),
        str(outcome.bad),
        outcome.verdict,
        ", ".join(f"{kind} {count}" for kind, count in outcome.kinds.most_common()),
    )


if __name__ == "__main__":
    sys.exit(main())
