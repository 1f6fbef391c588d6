"""Prints the line coverage of both languages, file by file; `tools/coverage.sh` calls it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple


class File(NamedTuple):
    """One source file."""

    path: str
    lines: int
    missed: list[int]


def rust_files(lcov: str) -> list[File]:
    """The files of an lcov report."""
    files: list[File] = []
    for record in lcov.split("end_of_record"):
        path, counts = "", dict[int, int]()
        for line in record.split("\n"):
            match line.partition(":"):
                case "SF", _, path:
                    pass
                case "DA", _, numbers:
                    number, count = map(int, numbers.split(",")[:2])
                    counts[number] = max(count, counts.get(number, 0))
                case _:
                    pass
        if path:
            missed = sorted(number for number, count in counts.items() if not count)
            files.append(File(os.path.relpath(path), len(counts), missed))
    return files


def python_files(report: dict[str, Any]) -> list[File]:
    """The files of coverage.py's JSON report."""
    return [
        File(
            "python/" + path.rpartition("site/")[2].rpartition("python/")[2],
            len(file["executed_lines"]) + len(file["missing_lines"]),
            file["missing_lines"],
        )
        for path, file in report["files"].items()
    ]


def ranges(numbers: list[int]) -> str:
    """Writes 1, 2, 3, 7 as 1-3 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def percent(files: list[File]) -> str:
    """The share of lines that ran."""
    lines = sum(file.lines for file in files)
    missed = sum(len(file.missed) for file in files)
    return f"{100 * (lines - missed) / lines:.1f} %" if lines else "no lines"


def main() -> int:
    """Prints both tables, then both totals; the arguments are Rust's lcov and Python's JSON."""
    rust = rust_files(Path(sys.argv[1]).read_text())
    python = python_files(json.loads(Path(sys.argv[2]).read_text()))
    width = max(len(file.path) for file in rust + python)
    for file in sorted(rust + python):
        share = percent([file])
        print(
            f"{file.path:{width}} {file.lines:6} lines {share:>8}  {ranges(file.missed)}".rstrip()
        )
    for language, files in ("Rust", rust), ("Python", python):
        print(f"Line coverage, {language}: {percent(files)} of {sum(f.lines for f in files)} lines")
    return 0 if rust and python else 1


if __name__ == "__main__":
    sys.exit(main())
