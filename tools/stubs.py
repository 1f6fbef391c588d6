"""Writes the built module's docstrings into its stub: they are written once, on the Rust items.

    python tools/stubs.py           rewrites python/atomik/_atomik.pyi
    python tools/stubs.py --check   only says what would change, and fails if anything would

The signatures in the stub are written by hand, and compared with the module by stubtest.
"""

import argparse
import ast
import difflib
import inspect
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import atomik._atomik

STUB = Path(__file__).parent.parent / "python" / "atomik" / "_atomik.pyi"

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Edit:
    """Replaces the bytes from `start` to `end` of the stub."""

    start: int
    end: int
    text: str


def docstring(thing: object) -> str | None:
    """The thing's own docstring, not one that CPython makes up or that is inherited."""
    generic = types.WrapperDescriptorType | types.BuiltinMethodType
    if isinstance(thing, generic) and getattr(thing, "__name__", "").startswith("__"):
        return None
    # Class and static methods pass on what they wrap.
    text: str | None = thing.__doc__
    return inspect.cleandoc(text) if text else None


def literal(text: str, indent: str) -> str:
    """Writes the text as a triple-quoted literal."""
    raw = "\\" in text
    if raw and (text.endswith("\\") or '"""' in text):
        raw, text = False, text.replace("\\", "\\\\")
    text = text.replace('"""', '\\"\\"\\"')
    if text.endswith('"'):
        text = text[:-1] + '\\"'
    lines = text.split("\n")
    body = "\n".join([lines[0], *(indent + line if line else "" for line in lines[1:])])
    end = f"\n{indent}" if len(lines) > 1 else ""
    return f'{"r" if raw else ""}"""{body}{end}"""'


class Stub:
    """The stub's source, with the positions of its statements as byte offsets."""

    def __init__(self, source: str) -> None:
        """Parses the source."""
        self.source = source.encode()
        self.tree = ast.parse(source)
        self.lines = [0]
        for line in self.source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def start(self, node: ast.stmt) -> int:
        """Where the statement starts, its decorators included."""
        nodes: list[ast.expr | ast.stmt] = [node]
        if isinstance(node, Documented):
            nodes += node.decorator_list
        first = min(nodes, key=lambda node: node.lineno)
        column = node.col_offset  # of the decorator's "@", not of its name
        return self.lines[first.lineno - 1] + column

    def end(self, node: ast.stmt) -> int:
        """Where the statement ends."""
        assert node.end_lineno is not None  # noqa: S101
        assert node.end_col_offset is not None  # noqa: S101
        return self.lines[node.end_lineno - 1] + node.end_col_offset

    def edits(self, body: list[ast.stmt], owner: object) -> Iterator[Edit]:
        """All edits for the statements of a module or a class."""
        for node in body:
            if not isinstance(node, Documented):
                continue
            thing = vars(owner).get(node.name)
            text = None if is_later_overload(node, body) else docstring(thing)
            yield from self.edit(node, text)
            if isinstance(node, ast.ClassDef):
                yield from self.edits(node.body, thing)

    def edit(self, node: Documented, text: str | None) -> Iterator[Edit]:
        """Gives one class or function this docstring, or none."""
        indent = " " * (node.col_offset + 4)
        first, *rest = node.body
        start, end = self.start(first), self.end(first)
        same_line = b"\n" not in self.source[self.source.rindex(b":", 0, start) : start]
        lead = f"\n{indent}" if same_line else ""
        if not is_placeholder(first):
            if text is not None:
                yield Edit(start, start, f"{literal(text, indent)}\n\n{indent}")
        elif text is not None:
            rest_end = self.end(rest[-1]) if rest and all(map(is_placeholder, rest)) else end
            yield Edit(start, rest_end, lead + literal(text, indent))
        elif not rest:
            yield Edit(start, end, "...")
        else:
            yield Edit(start, self.start(rest[0]), "")


def is_placeholder(node: ast.stmt) -> bool:
    """Whether the statement is a docstring or `...`."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and (node.value.value is ... or isinstance(node.value.value, str))
    )


def is_later_overload(node: Documented, body: list[ast.stmt]) -> bool:
    """Whether an earlier statement defines the same name: the first overload has the docstring."""
    return any(
        isinstance(other, Documented) and other.name == node.name
        for other in body[: body.index(node)]
    )


def documented(source: str) -> str:
    """The stub with the built module's docstrings, formatted."""
    stub = Stub(source)
    result = stub.source
    edits = stub.edits(stub.tree.body, atomik._atomik)  # noqa: SLF001
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        result = result[: edit.start] + edit.text.encode() + result[edit.end :]
    ruff: list[str | Path] = [
        Path(sys.executable).parent / "ruff",
        "format",
        "--stdin-filename",
        STUB,
        "-",
    ]
    return subprocess.run(ruff, input=result, check=True, capture_output=True).stdout.decode()


def main() -> int:
    """Rewrites or checks the stub."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--check", action="store_true", help="fail if anything would change")
    options = arguments.parse_args()
    old = STUB.read_text()
    new = documented(old)
    if documented(new) != new:
        raise AssertionError("a second run would change the stub again")
    if new == old:
        return 0
    if not options.check:
        STUB.write_text(new)
        return 0
    names = (f"{STUB.name} (committed)", f"{STUB.name} (from the built module)")
    diff = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), *names
    )
    sys.stdout.writelines(diff)
    print("the stub is out of date: run `make stubs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
