"""What the documentation shows is run, and what it links to is there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

OPENING = re.compile(r"(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w+-]*)")
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code; `line` counts from 1 and is that of the fence."""

    language: str
    line: int
    code: str
    run: bool


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    above = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        if opening := OPENING.fullmatch(line.rstrip()):
            start, indent = number, len(opening["indent"])
            while lines[number := number + 1].strip() != opening["fence"]:
                pass
            code = "".join(inner[indent:] + "\n" for inner in lines[start + 1 : number])
            yield Block(opening["language"], start + 1, code, NOT_RUN.fullmatch(above) is None)
        if line.strip():
            above = line.strip()
        number += 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_in_order(
    page: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [b for b in blocks(page.read_text("utf-8")) if b.language in ("python", "py")]
    if not examples:
        pytest.skip("no Python here")
    monkeypatch.chdir(here)
    namespace = {"__name__": "__main__"}
    for block in examples:
        if block.run:
            # The empty lines make tracebacks name the line of the page.
            code = compile("\n" * block.line + block.code, page, "exec", dont_inherit=True)
            exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_pages_link_to_each_other_only(page: Path) -> None:
    """So that the links also hold where `docs/` is a site of its own."""
    assert [link for link in LINK.findall(page.read_text("utf-8")) if link.startswith("..")] == []


def test_the_first_page_names_each_function_of_the_reference() -> None:
    functions = (ROOT / "docs/api.md").read_text("utf-8").split("\n## ")[1]
    table = (ROOT / "README.md").read_text("utf-8").split("\n## The functions\n")[1]
    named = set(re.findall(r"`atomik\.(\w+)\(", table.split("\n## ")[0]))
    assert named == set(re.findall(r"^::: atomik\.(\w+)$", functions, re.MULTILINE))


def test_the_reader_of_pages_finds_blocks() -> None:
    python = "```python\na\n\nb\n```\n"
    page = f"text\n{python}<!-- not run: slow -->\n\n{python}  ````sh\n  d\n  ````\n"
    assert list(blocks(page)) == [
        Block("python", 2, "a\n\nb\n", True),
        Block("python", 9, "a\n\nb\n", False),
        Block("sh", 14, "d\n", True),
    ]


def test_filesystems_are_told_apart_by_type_only_for_what_the_page_on_platforms_says() -> None:
    uses = (path for path in (ROOT / "src").rglob("*.rs") if "sys::filesystems" in path.read_text())
    assert {os.fspath(path.relative_to(ROOT / "src")) for path in uses} == {
        "destination/symlinks.rs",  # what lies below /proc
        "mount.rs",  # `syncfs`, older btrfs, lower layers
        "mount/journal.rs",  # flushes
        "publish/terms.rs",  # what an error advises
        "slot/domain.rs",  # how far locks reach
        "slot/observe.rs",  # whether what is removed has no links
        "slot/owner.rs",  # whether owners and modes are kept
        "tree/removal/pool.rs",  # threads
    }


def test_unsafe_stands_only_where_the_page_on_reliability_says() -> None:
    files = {
        os.fspath(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src").rglob("*.rs")
        if re.search(r"\bunsafe \{", path.read_text("utf-8"))
    }
    outside = {name for name in files if not name.startswith("sys/")}
    assert outside == {"python/write.rs", "explore/closing.rs"}
    assert files > outside


def test_the_table_of_promises_names_every_test_and_no_other() -> None:
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    section = page.split("## Which test keeps which promise\n")[1].split("\n## ")[0]
    rows = [row.split("|") for row in section.splitlines() if row.startswith("| ")][2:]
    files = [file for row in rows for file in re.findall(r"`([^`]+)`", row[2])]
    named = {ROOT / (file if file.startswith("src/") else f"tests/{file}") for file in files}
    assert sorted(file for file in named if not file.is_file()) == []
    # One binary of Rust tests: what is in it, and a helper.
    helpers = {ROOT / "tests/it/main.rs", ROOT / "tests/it/test_folder.rs"}
    tests = {*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests/it").glob("*.rs")} - helpers
    assert sorted(tests - named) == []


def test_the_tests_of_each_case_from_the_field_are_there() -> None:
    listed = subprocess.run(
        [sys.executable, ROOT / "tests/field.py"],
        env={**os.environ, "PYTEST_ARGS": "--collect-only -q -p no:cacheprovider"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr
