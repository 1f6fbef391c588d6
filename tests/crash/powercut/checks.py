"""What a crash state must look like: one complete version, no litter that nobody removes.

Every problem is a line that begins with its kind, so that an engine can count kinds:

- `missing`, `empty`, `zeros`, `torn`, `mixed`, `extra`, `kind`: the content is of no version, or of several;
- `metadata`: the content is of one version, its mode or xattrs are not;
- `lost`: complete, but older than a version whose commit had returned; `future`: one that was not begun;
- `litter`: more is left beside the destination than one orphan a writer; `next writer`: it fails, or leaves litter.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from powercut.versions import Entry, Version

_OWN_NAMES: Final = re.compile(r"\.atomik-(?P<role>0|u\d+|lock)\.(?P<name>.+)~", re.DOTALL)
_BLOCK: Final = 4096
_SHOWN: Final = 3


@dataclass(frozen=True)
class Verdict:
    """Which version a crash state shows, and what is wrong with it."""

    version: int | None
    problems: list[str]


def judge(
    place: Path, versions: Mapping[int, Version], at_least: int = 0, at_most: int | None = None
) -> Verdict:
    """Finds the version that stands at `place`, complete in content and metadata.

    Equal versions count as the newest of them: what cannot be told apart has not been lost.
    """
    seen = look(place)
    found = [number for number, version in versions.items() if not _differences(seen, version)]
    if not found:
        return Verdict(
            None, [f"{kind}: {place.name}{what}" for kind, what in _explain(seen, versions)]
        )
    number = max(found)
    if number < at_least:
        what = f"version {number}" if versions[number] else "missing"
        return Verdict(number, [f"lost: {place.name} is {what}, {at_least} had returned"])
    if at_most is not None and min(found) > at_most:
        return Verdict(
            number, [f"future: {place.name} is version {number}, {at_most} was the newest"]
        )
    return Verdict(number, [])


def look(place: Path) -> Version:
    """Returns all that is at and below `place`, following nothing; missing: no entry."""
    return dict(_walk(place, ""))


def _walk(place: Path, path: str) -> Iterator[tuple[str, Entry]]:
    at = place / path if path else place
    try:
        status = at.lstat()
    except FileNotFoundError:
        return
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFLNK:
        yield path, Entry(kind, os.readlink(os.fsencode(at)))
        return
    content = at.read_bytes() if kind == stat.S_IFREG else b""
    yield path, Entry(kind, content, (mode,), _attributes(at))
    if kind == stat.S_IFDIR:
        for name in sorted(os.listdir(at)):
            yield from _walk(place, os.path.join(path, name))


def _attributes(at: Path) -> dict[str, bytes]:
    return {name: os.getxattr(at, name) for name in os.listxattr(at) if name.startswith("user.")}


# What differs: content first, since a version with the right content and wrong metadata is nearer.


def _differences(seen: Version, expected: Version) -> list[str]:
    if seen.keys() != expected.keys():
        return sorted(seen.keys() ^ expected.keys())
    return [
        path
        for path, entry in expected.items()
        if not _same_content(seen[path], entry) or _wrong_metadata(seen[path], entry)
    ]


def _same_content(seen: Entry | None, expected: Entry | None) -> bool:
    if seen is None or expected is None:
        return seen is expected
    return (seen.kind, seen.content) == (expected.kind, expected.content)


def _wrong_metadata(seen: Entry, expected: Entry) -> str:
    if expected.modes and seen.modes[0] not in expected.modes:
        return f"mode {seen.modes[0]:o}, not {' or '.join(f'{mode:o}' for mode in expected.modes)}"
    if expected.attributes is not None and seen.attributes != expected.attributes:
        return f"xattrs {seen.attributes}, not {expected.attributes}"
    return ""


def _explain(seen: Version, versions: Mapping[int, Version]) -> list[tuple[str, str]]:
    """Says how a state differs from the version that it is nearest to."""
    number = min(versions, key=lambda number: _distance(seen, versions[number]))
    expected = versions[number]
    classified = {
        path: _classify(path, seen, expected, versions) for path in sorted({*seen, *expected})
    }
    found = [
        (kind[0], f"{path and '/' + path}: {kind[1]} (nearest is version {number})")
        for path, kind in classified.items()
        if kind is not None
    ]
    more = len(found) - _SHOWN
    return found[:_SHOWN] + ([(found[0][0], f": and {more} more such entries")] if more > 0 else [])


def _distance(seen: Version, expected: Version) -> tuple[int, int, int]:
    content = [
        path
        for path in seen.keys() | expected.keys()
        if not _same_content(seen.get(path), expected.get(path))
    ]
    metadata = [
        path
        for path in seen.keys() & expected.keys()
        if _wrong_metadata(seen[path], expected[path])
    ]
    return len(content), len(seen.keys() ^ expected.keys()), len(metadata)


def _classify(
    path: str, seen: Version, expected: Version, versions: Mapping[int, Version]
) -> tuple[str, str] | None:
    is_, should = seen.get(path), expected.get(path)
    others = [number for number, version in versions.items() if path in version]
    if should is None:
        return ("mixed", f"belongs to version {others}") if others else ("extra", "of no version")
    if is_ is None:
        return "missing", "nothing is there"
    if is_.kind != should.kind:
        return "kind", f"type {is_.kind:o}, not {should.kind:o}"
    if is_.content != should.content:
        whole = {number: versions[number][path].content for number in others}
        return _classify_content(is_.content, whole)
    wrong = _wrong_metadata(is_, should)
    return ("metadata", wrong) if wrong else None


def _classify_content(seen: bytes, versions: Mapping[int, bytes]) -> tuple[str, str]:
    equal = [number for number, content in versions.items() if content == seen]
    if equal:
        return "mixed", f"is of version {equal}"
    if not seen:
        return "empty", "0 bytes"
    if not seen.strip(b"\0"):
        return "zeros", f"{len(seen)} bytes, all zero"
    owners = {
        number
        for start in range(0, len(seen), _BLOCK)
        for number, content in versions.items()
        if seen[start : start + _BLOCK] == content[start : start + _BLOCK]
    }
    if len(owners) > 1:
        return "mixed", f"{len(seen)} bytes with blocks of versions {sorted(owners)}"
    sizes = sorted({len(content) for content in versions.values()})
    return "torn", f"{len(seen)} bytes of {sizes}, {seen.count(0)} of them zero"


# What lies beside the destination.


def orphans(folder: Path) -> dict[str, list[str]]:
    """Returns the library's own names in a folder, by the destination that they belong to."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        if match := _OWN_NAMES.fullmatch(name):
            found.setdefault(match["name"], []).append(name)
    return found


def litter(folder: Path, known: Collection[str]) -> list[str]:
    """Finds more than one orphan a destination, and whatever is nobody's.

    The lock, an empty file, does not count as one: a cut may leave it beside a slot. The next writer removes both.
    """
    owned = orphans(folder)
    problems = [
        f"litter: {name} belongs to nobody"
        for name in sorted(os.listdir(folder))
        if name not in known and not any(name in names for names in owned.values())
    ]
    for destination, names in owned.items():
        left = sum(_count(folder / name) for name in names)
        if destination not in known or left > 1:
            problems.append(f"litter: {' '.join(names)} beside {destination}")
    return problems


def _count(path: Path) -> int:
    """Says how many orphans there are under a name of the library's: in a room, at least one."""
    if _is_free_lock(path):
        return 0
    match = _OWN_NAMES.fullmatch(path.name)
    if match is not None and match["role"].startswith("u") and path.is_dir():
        return max(len(os.listdir(path)), 1)
    return 1


def _is_free_lock(path: Path) -> bool:
    match = _OWN_NAMES.fullmatch(path.name)
    status = path.lstat()
    return (
        match is not None
        and match["role"] == "lock"
        and status.st_size == 0
        and stat.S_ISREG(status.st_mode)
    )
