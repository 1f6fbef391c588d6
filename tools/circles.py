#!/usr/bin/env python3
"""Fails if modules of the Rust code need each other in a circle.

A module is a file of `src/`. It needs each module to which one of its paths (`crate::…`, `super::…`) leads. What a
module re-exports counts as that module's own. Tests do not count: neither `mod tests` nor the modules that exist for
tests only.
"""

import re
import sys
from pathlib import Path
from typing import Final, TypeAlias

SOURCE: Final = Path(__file__).parent.parent / "src"
FOR_TESTS: Final = {"explore", "faults"}

Module: TypeAlias = tuple[str, ...]
"""The path of a module from the crate, whose own is empty."""


def module_of(file: Path) -> Module:
    """Returns the module that a file holds."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return () if parts == ("lib",) else tuple(part for part in parts if part != "mod")


def code_of(file: Path) -> str:
    """Returns a file's code without comments and unit tests."""
    return re.sub(r"//.*", "", file.read_text().split("#[cfg(test)]\nmod tests")[0])


def leaves(tree: str) -> list[Module]:
    """Returns the paths that `a::{b, c::d}` stands for."""
    found: list[Module] = []
    start = depth = 0
    for index, letter in enumerate(tree + ","):
        depth += (letter == "{") - (letter == "}")
        if letter != "," or depth:
            continue
        name, brace, rest = tree[start:index].strip().partition("{")
        start = index + 1
        prefix = tuple(part.split(" as ")[0].strip() for part in name.split("::") if part.strip())
        found += [prefix + leaf for leaf in leaves(rest.rstrip()[:-1])] if brace else [prefix]
    return found


def paths_in(code: str) -> list[Module]:
    """Returns all paths that begin with `crate` or `super`."""
    uses: list[str] = re.findall(r"\buse ((?:crate|super)\b[^;]*);", code)
    others: list[str] = re.findall(r"\b(?:crate|super)(?:::\w+)+", code)
    return [leaf for use in uses for leaf in leaves(use)] + [
        tuple(path.split("::")) for path in others
    ]


def needs(file: Path, modules: set[Module], exports: dict[str, Module]) -> set[Module]:
    """Returns the modules that the module in a file needs; `exports` are the crate's own names."""
    own = module_of(file)
    code = code_of(file)
    # What a module re-exports of its rooms.
    rooms: list[str] = re.findall(r"\buse (\w+)(?:::|;)", code)
    found: set[Module] = {(*own, name) for name in rooms if (*own, name) in modules}
    for path in paths_in(code):
        up = path.count("super")
        base = () if path[0] == "crate" else own[: len(own) - up]
        names = path[max(up, 1) :]
        target = (*base, *names)
        while target not in modules:
            target = target[:-1]
        if not target and names:
            target = exports.get(names[0], ())
        if target and target != own:
            found.add(target)
    return found


def reached_from(start: Module, graph: dict[Module, set[Module]]) -> set[Module]:
    """Returns the modules that a module needs, and what those need."""
    seen: set[Module] = set()
    ahead = [start]
    while ahead:
        fresh = graph.get(ahead.pop(), set()) - seen
        seen |= fresh
        ahead += fresh
    return seen


def circles(graph: dict[Module, set[Module]]) -> list[list[Module]]:
    """Returns each group of modules that reach each other."""
    reached = {module: reached_from(module, graph) for module in graph}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached.get(other, set())))
        for module in graph
        if module in reached[module]
    }
    return [list(group) for group in sorted(groups)]


def main() -> int:
    """Prints the circles; returns 1 if there are any."""
    files = [file for file in SOURCE.rglob("*.rs") if not FOR_TESTS & {*module_of(file)[:1]}]
    modules = {module_of(file) for file in files}
    uses: list[str] = re.findall(r"\bpub use ([^;]*);", code_of(SOURCE / "lib.rs"))
    exports = {leaf[-1]: leaf[:-1] for use in uses for leaf in leaves(use)}
    graph = {module_of(file): needs(file, modules, exports) for file in files if module_of(file)}
    found = circles(graph)
    for group in found:
        print("These modules need each other:")
        for module in group:
            inside = ", ".join(
                "::".join(other) for other in sorted(graph[module]) if other in group
            )
            print(f"    {'::'.join(module)} needs {inside}")
    print(f"{len(modules)} modules, {sum(map(len, graph.values()))} arrows, {len(found)} circles")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
