"""What a run with one call going wrong must not have broken.

A judgement is a list of broken promises, in words whose beginnings `careless` knows.
"""

import signal
from pathlib import Path
from typing import Any

from support.strace import Injection

from inject.aftermath import unmended
from inject.bench import Bench, Outcome
from inject.worlds import State


def after_error(bench: Bench, injection: Injection, outcome: Outcome) -> list[str]:
    """Lists the promises that a run with one failed call has broken."""
    if outcome.report is None or outcome.status != 0:
        return [f"it died, with status {outcome.status}: {outcome.stderr}"]
    report = outcome.report
    found: list[str] = []
    if not any("(INJECTED)" in call.text for call in outcome.traced):
        found.append("the call was not reached")
    found += _version(bench, report, outcome.state())
    found += _left(bench, injection, outcome)
    found += [f"{key}: {report[key]}" for key in ("unraisable", "leaked") if report[key]]
    if outcome.stderr:
        found.append(f"stderr: {outcome.stderr}")
    return found


def after_kill(bench: Bench, outcome: Outcome) -> list[str]:
    """Lists the promises that a killed run has broken."""
    found: list[str] = []
    if outcome.status != -signal.SIGKILL:
        found.append(f"it was not killed but ended with status {outcome.status}")
    state = outcome.state()
    if state not in (bench.old, bench.new, bench.halfway) and not _is_part_of_a_group(bench, state):
        found.append(f"neither old nor new: {state}")
    left = outcome.leftovers()
    found += _harmed(bench, left)
    if left != bench.living:
        found += [f"of {sorted(left)}: {what}" for what in unmended(bench, outcome)]
    return found


def _is_part_of_a_group(bench: Bench, state: State) -> bool:
    """Is each destination, by itself, old or new, and everything else as it was?

    Only a kill leaves that: a group in which something fails takes back what it has published.
    """
    *parts, rest = _parts(bench, state)
    *old, _ = _parts(bench, bench.old)
    *new, _ = _parts(bench, bench.new)
    known = zip(parts, old, new, strict=True)
    grouped = len(bench.operation.destinations) > 1
    return (
        grouped and rest == _parts(bench, bench.old)[-1] and all(is_ in two for is_, *two in known)
    )


def _parts(bench: Bench, state: State) -> list[State]:
    """Divides a state: a part for each destination, and what is at none."""
    destinations = [Path(name) for name in bench.operation.destinations]
    parts: list[State] = [{} for _ in (*destinations, None)]
    for name, entry in state.items():
        at = (
            number for number, place in enumerate(destinations) if Path(name).is_relative_to(place)
        )
        parts[next(at, -1)][name] = entry
    return parts


def _version(bench: Bench, report: dict[str, Any], state: State) -> list[str]:
    """Is there the version that is said to be there?"""
    error = report["error"]
    committed = error["committed"] if error else bench.operation.ends_in is None
    right: list[State | None] = [bench.new if committed else bench.old]
    if error and committed:
        right.append(bench.halfway)
    ending = f"an error ({error})" if error else "success"
    found: list[str] = []
    if error is None and bench.operation.ends_in is not None:
        found.append(f"there was no {bench.operation.ends_in}")
    if state not in right:
        found.append(f"the wrong version after {ending}: {state}")
    if report["committed"] not in (None, committed):
        found.append(f"the guard's `committed` is {report['committed']} after {ending}")
    return found


def _left(bench: Bench, injection: Injection, outcome: Outcome) -> list[str]:
    """Allows only what the failed call should have removed, if that is said, and what was there before."""
    assert outcome.report is not None
    slots = outcome.leftovers()
    found = _harmed(bench, slots)
    before = bench.slots.items()
    left = [name for name, entry in slots.items() if (name, entry) not in before]
    if not left:
        return found
    error = outcome.report["error"]
    told = any(warning.startswith("CleanupWarning") for warning in outcome.report["warnings"])
    # A removal that fails may be the error itself. Of two errors, a refusal and a removal that fails
    # after it, only the first can be raised: Drop cannot report, and the next writer removes the rest.
    if error is not None and (bench.refused or injection.call.removes_a_slot()):
        told = True
    if not told:
        found.append(f"left without a word: {left}, after {error or 'success'}")
    return found + list(unmended(bench, outcome))


def _harmed(bench: Bench, slots: State) -> list[str]:
    """Says what was done to another writer that is alive."""
    harmed = [name for name, entry in bench.living.items() if slots.get(name) != entry]
    return [f"taken from a living writer: {harmed}"] if harmed else []
