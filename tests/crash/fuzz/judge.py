"""What must be true after a play:

- Only documented exceptions came out, each from the step that may raise it (`run.py`): no panic, no `SystemError`, no
  traceback from a destructor or a thread.
- What has changed is at most the destination, and its backup, which is what was there before; it is complete, and it is
  the very bytes that `io` makes of the payload; it has changed if, and only if, the call said so.
- Nothing of the library's is left, unless it was in use and a warning said so; no descriptor, no thread (`perform.py`).
"""

import stat
from typing import Final

from fuzz import stage
from fuzz.plays import PLAIN, Play
from fuzz.run import Run
from fuzz.versions import Version, expected

_WRITING: Final = ("write_bytes", "write_text")
_MOVING: Final = ("rename", "exchange", "renameat2", "swap")
_ON_THE_STAGE: Final = {"remove its slot"}


def judge(run: Run, before: stage.Snapshot, after: stage.Snapshot) -> list[str]:
    play = run.play
    gone = {path for path in before if path not in after}
    new = {path for path in after if path not in before}
    changed = {path for path in before if path in after and before[path] != after[path]}
    ours: set[bytes] = set()
    if not _names_ours(play):
        ours = {path for path in new | changed if _is_ours(path)}
    faults = _litter(run, ours)
    # Orphans may go at any time.
    gone = {path for path in gone if not _is_ours(path)}
    touched = (gone | new | changed) - ours
    verbs = {step.verb for steps in play.threads for step in steps}
    free = bool(verbs & _ON_THE_STAGE)
    if not (run.published or free or "nest" in verbs):
        return faults + [f"{path!r} has changed without a commit" for path in touched]
    if play.call in _MOVING:
        return faults + _moved(before, after)
    tops = {path for path in touched if not any(path.startswith(other + b"/") for other in touched)}
    if not free:
        faults += _tops(run, tops)
    return faults + _content(run, tops, before, after)


def _litter(run: Run, ours: set[bytes]) -> list[str]:
    if not run.left:
        return [f"{path!r} is left" for path in ours]
    if run.play.threads == (PLAIN,):
        # Nobody else is there who could be in its way.
        return ["it warns that it could not clean up"]
    return []


def _tops(run: Run, tops: set[bytes]) -> list[str]:
    if len(tops) > (1 if run.play.options.get("backup") is None else 2):
        return [f"more than the destination has changed: {sorted(tops)}"]
    if run.published and not tops and not run.left:
        return ["nothing has been published"]
    return []


def _content(
    run: Run, tops: set[bytes], before: stage.Snapshot, after: stage.Snapshot
) -> list[str]:
    play = run.play
    if not run.published or (play.call not in _WRITING and play.threads != (PLAIN,)):
        return []
    if any(answer.startswith("fill:") for answer in run.answers):
        # It started from a version that its body could not write to, and has been published as it was.
        return []
    has_backup = play.options.get("backup") is not None
    faults: list[str] = []
    for path in tops:
        found, right = _version(path, after), expected(play, _version(path, before))
        if has_backup and (origin := _origin(path, before, after)) is not None:
            right = _version(origin, before)
        if found != right:
            faults.append(f"{path!r} is {found!r}, and should be {right!r}")
    return faults


def _origin(path: bytes, before: stage.Snapshot, after: stage.Snapshot) -> bytes | None:
    """Says what was called otherwise before; of two names of one file, either."""
    if path not in after:
        return None
    same = (other for other, thing in before.items() if thing.inode == after[path].inode)
    return next((other for other in same if other != path), None)


def _is_ours(path: bytes) -> bool:
    return b"/.atomik-" in path


def _names_ours(play: Play) -> bool:
    """Has the caller asked for one of the library's own names?"""
    return ".atomik-" in repr((play.arguments, play.options))


def _version(path: bytes, after: stage.Snapshot) -> Version:
    thing = after.get(path)
    if thing is None:
        return None
    if thing.kind != stat.S_IFDIR:
        return thing.content
    below = {other[len(path) :]: other for other in after if other.startswith(path + b"/")}
    return {name: after[other].content for name, other in below.items()}


def _moved(before: stage.Snapshot, after: stage.Snapshot) -> list[str]:
    """Renaming makes no inode and changes none; but for the replaced one, it loses none."""
    old, new = ({thing.inode for thing in things.values()} for things in (before, after))
    faults: list[str] = []
    # A whiteout is a device of its own.
    whiteouts = {thing.inode for thing in after.values() if thing.kind == stat.S_IFCHR}
    if new - old - whiteouts:
        faults.append("something new has appeared")
    if len(old - new) > 1:
        faults.append("more than one thing is gone")
    return faults
