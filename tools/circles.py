#!/usr/bin/env python3
"""Fails if modules of the Rust code need each other in a circle.

A module is a file of `src/`. It needs each module that one of its paths (`crate::…`, `super::…`) leads to; what a
module re-exports counts as that module's. Tests do not count: neither `mod tests` nor the two modules that exist for
tests only.
"""

import re
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
FOR_TESTS = {"explore", "faults"}


def module_of(file: Path) -> tuple[str, ...]:
    """Returns the path of the module in a file; the crate's own is empty."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return () if parts == ("lib",) else tuple(part for part in parts if part != "mod")


def code_of(file: Path) -> str:
    """Returns a file's code without comments, its tests, and the reasons in its lints."""
    code = file.read_text().split("#[cfg(test)]\nmod tests")[0]
    return re.sub(r"//.*", "", code)


def leaves(tree: str) -> list[list[str]]:
    """Returns the paths that a tree of names in braces stands for."""
    found, start, depth = [], 0, 0
    for index, letter in enumerate(tree + ","):
        depth += (letter == "{") - (letter == "}")
        if letter != "," or depth:
            continue
        name, brace, rest = tree[start:index].strip().partition("{")
        start = index + 1
        prefix = [part.split(" as ")[0].strip() for part in name.split("::") if part.strip()]
        found += [prefix + leaf for leaf in leaves(rest.rstrip()[:-1])] if brace else [prefix]
    return found


def paths_in(code: str) -> list[list[str]]:
    """Returns all paths that begin with `crate` or `super`."""
    found: list[list[str]] = []
    for use in re.findall(r"\buse ((?:crate|super)\b[^;]*);", code):
        found += leaves(use)
    found += [path.split("::") for path in re.findall(r"\b(?:crate|super)(?:::\w+)+", code)]
    return found


def needs(file: Path, modules: set[tuple[str, ...]], exports: dict[str, tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Returns the modules that the module in a file needs."""
    own = module_of(file)
    found = set()
    for path in paths_in(code_of(file)):
        base = list(own)
        while path and path[0] in {"crate", "super"}:
            base = [] if path[0] == "crate" else base[:-1]
            path = path[1:]
        full = [*base, *path]
        while tuple(full) not in modules:
            full.pop()
        target = tuple(full)
        if not target and path:
            target = exports.get(path[0], ())
        if target and target != own:
            found.add(target)
    # A module that only names its rooms needs them when it re-exports what they have.
    for name in re.findall(r"\buse (\w+)(?:::|;)", code_of(file)):
        if (*own, name) in modules:
            found.add((*own, name))
    return found


def circles(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[list[tuple[str, ...]]]:
    """Returns each group of modules that reach each other."""

    def reach(start: tuple[str, ...]) -> set[tuple[str, ...]]:
        seen: set[tuple[str, ...]] = set()
        ahead = [start]
        while ahead:
            for module in graph.get(ahead.pop(), set()) - seen:
                seen.add(module)
                ahead.append(module)
        return seen

    reached = {module: reach(module) for module in graph}
    found: list[list[tuple[str, ...]]] = []
    for module in sorted(graph):
        group = sorted(other for other in reached[module] if module in reached.get(other, set()))
        if group and group not in found:
            found.append(group)
    return found


def main() -> int:
    files = [file for file in SOURCE.rglob("*.rs") if not FOR_TESTS & {*module_of(file)[:1]}]
    modules = {module_of(file) for file in files}
    exports = {
        leaf[-1]: tuple(leaf[:-1])
        for use in re.findall(r"\bpub use ([^;]*);", code_of(SOURCE / "lib.rs"))
        for leaf in leaves(use)
    }
    graph = {module_of(file): needs(file, modules, exports) for file in files}
    graph.pop((), None)
    found = circles(graph)
    for group in found:
        print("These modules need each other:", ", ".join("::".join(module) for module in group))
        for module in group:
            inside = ", ".join("::".join(other) for other in sorted(graph[module]) if other in group)
            print(f"    {'::'.join(module)} needs {inside}")
    print(f"{len(modules)} modules, {sum(map(len, graph.values()))} needs, {len(found)} circles")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
