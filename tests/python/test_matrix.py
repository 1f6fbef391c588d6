"""Every kind of destination under every call, on every filesystem, as docs/outcomes.md says."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel, publishing
from support.destination_kinds import KINDS, LOWER, Place, prepare
from support.filesystems import NAMES, Filesystem
from support.trees import Entry, Tree, identities, is_in, placed, subtree, tree, without

OUTCOMES: Final = Path(__file__).parents[2] / "docs" / "outcomes.md"

PUBLISHING: Final = {
    "file": publishing.file,
    "write_bytes": publishing.write_bytes,
    "folder": publishing.folder,
    "path to a file": publishing.path_to_file,
    "path to a folder": publishing.path_to_folder,
}
WITH_BODY: Final = {"file", "folder", "path to a file", "path to a folder"}
RENAMING: Final = ("rename", "exchange")
SUCCESSES: Final = {"published", "replaced", "exchanged"}
ERRNOS: Final = {
    "FileAlreadyExistsError": {errno.EEXIST},
    "FileNotFoundError": {errno.ENOENT},
    "IsADirectoryError": {errno.EISDIR},
    "NotADirectoryError": {errno.ENOTDIR},
    "PermissionError": {errno.EPERM},
    "DestinationBusyError": {errno.EBUSY},
    "InvalidCrossDeviceError": {errno.EXDEV},
    "UnsupportedFilesystemError": {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS},
}
KEEP: Final = "no"
OVERWRITE: Final = "yes"
NOT_APPLICABLE: Final = "-"


@dataclass(frozen=True)
class Question:
    """One cell of the table: what does this call do to this kind of destination?"""

    call: str
    kind: str
    overwrite: str

    def label(self) -> str:
        return f"{self.call}, {self.kind}, {self.overwrite}".replace(" ", "_")


@dataclass(frozen=True)
class Answer:
    """What the table says: an outcome, and whether it is known only after the body."""

    outcome: str
    at_commit: bool


def read_rows(text: str, heading: str) -> Iterator[dict[str, str]]:
    """Yields the rows of the table below a heading, by the names of their columns."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row in rows:
        yield dict(zip(header, row, strict=True))


def read_answer(cell: str) -> Answer:
    found = re.fullmatch(r"`?(\w+)`?( at commit)?", cell)
    assert found, f"not an outcome: {cell}"
    return Answer(found[1], found[2] is not None)


def read_names(cell: str) -> list[str]:
    return [name.replace("`", "") for name in cell.split(", ")]


def read_outcomes() -> dict[str, dict[Question, Answer]]:
    """Returns what the document says, for each filesystem."""
    text = OUTCOMES.read_text(encoding="utf-8")
    table: dict[Question, Answer] = {}
    for row in read_rows(text, "Everywhere"):
        kind, overwrite = row.pop("destination"), row.pop("overwrite")
        for column, cell in row.items():
            for call in read_names(column):
                if cell != NOT_APPLICABLE:
                    table[Question(call, kind, overwrite)] = read_answer(cell)
    found = {
        name: {
            question: answer
            for question, answer in table.items()
            if question.kind != LOWER or name == "overlay"
        }
        for name in NAMES
    }
    for row in read_rows(text, "Exceptions"):
        for kind in read_names(row["destination"]):
            for overwrite in read_names(row["overwrite"]):
                for call in read_names(row["calls"]):
                    question = Question(call, kind, overwrite)
                    assert question in found[row["filesystem"]], f"not in the table: {question}"
                    found[row["filesystem"]][question] = read_answer(row["outcome"])
    return found


def all_questions() -> set[Question]:
    kinds = [*KINDS, LOWER]
    both = {
        Question(call, kind, overwrite)
        for call in (*PUBLISHING, "rename")
        for kind in kinds
        for overwrite in (KEEP, OVERWRITE)
    }
    return both | {Question("exchange", kind, KEEP) for kind in kinds}


FOUND: Final = read_outcomes()


def each_cell(*calls: str) -> pytest.MarkDecorator:
    """Runs a test for each cell of these calls, on each filesystem that has it."""
    cells = [
        pytest.param(name, question, id=f"{name}-{question.label()}")
        for name in NAMES
        for question in sorted(FOUND[name], key=Question.label)
        if question.call in calls
    ]
    return pytest.mark.parametrize(("fs", "question"), cells, indirect=["fs"])


def test_the_table_answers_every_question() -> None:
    assert set(FOUND["overlay"]) == all_questions()


@each_cell(*PUBLISHING, *RENAMING)
def test_the_outcome_is_the_one_in_the_table(fs: Filesystem, question: Question) -> None:
    answer = FOUND[fs.name][question]
    place = prepare(fs, question.kind)
    other = prepare_source(place, question)
    before, untouched = tree(place.here), identities(place.here)

    made = make(question, place, other)

    outcome = "success" if made.error is None else type(made.error).__name__
    if answer.outcome not in SUCCESSES:
        assert outcome == answer.outcome, made.error
        assert made.error is not None
        assert made.error.errno in ERRNOS[answer.outcome]
        if question.call in WITH_BODY:
            assert made.body_ran == answer.at_commit
        assert_names_the_paths(made.error, place, other)
        assert tree(place.here) == before
        assert identities(place.here) == untouched
        return
    if made.error is not None:
        raise made.error
    assert (answer.outcome == "published") == (question.kind == "missing")
    involved = [name.name for name in (place.destination, other) if name is not None]
    assert tree(place.here) == expected_tree(question, place, other, before)
    assert {
        name: identity
        for name, identity in identities(place.here).items()
        if not belongs(name, involved)
    } == {name: identity for name, identity in untouched.items() if not belongs(name, involved)}


@each_cell(*RENAMING)
def test_renaming_does_what_the_bare_system_call_does(fs: Filesystem, question: Question) -> None:
    place = prepare(fs, question.kind, "library")
    made = make(question, place, prepare_source(place, question))
    twin = prepare(fs, question.kind, "bare")
    source = prepare_source(twin, question)
    assert source is not None
    bare = bare_errno(source, twin.destination, bare_flags(question))
    if fs.name == "bindfs" and bare == errno.EINVAL:
        # The kernel has no answer here; the table has it, and the test above reads it.
        return
    assert (made.error.errno if made.error else 0) == bare
    assert tree(place.here) == tree(twin.here)


def make(question: Question, place: Place, other: Path | None) -> publishing.Attempt:
    """Makes the call that the question is about."""
    overwrite = question.overwrite == OVERWRITE
    if question.call in PUBLISHING:
        return publishing.attempt(PUBLISHING[question.call], place.destination, overwrite=overwrite)
    assert other is not None
    try:
        if question.call == "rename":
            atomik.rename(other, place.destination, overwrite=overwrite)
        else:
            atomik.exchange(other, place.destination)
    except OSError as error:
        return publishing.Attempt(error)
    return publishing.Attempt()


def prepare_source(place: Place, question: Question) -> Path | None:
    """Makes the file that `rename` and `exchange` start from."""
    if question.call not in RENAMING:
        return None
    source = place.here / "new-file"
    source.write_bytes(publishing.NEW)
    return source


def bare_errno(src: Path, dst: Path, flags: int) -> int:
    """Makes the bare system call; returns its errno, 0 if it succeeds."""
    try:
        kernel.renameat2(src, dst, flags)
    except OSError as error:
        return error.errno or 0
    return 0


def bare_flags(question: Question) -> int:
    if question.call == "exchange":
        return kernel.EXCHANGE
    return 0 if question.overwrite == OVERWRITE else kernel.NOREPLACE


def belongs(key: str, names: list[str]) -> bool:
    return any(is_in(key, name) for name in names)


def expected_tree(question: Question, place: Place, other: Path | None, before: Tree) -> Tree:
    """Returns what must lie in the place after a success: nothing more and nothing less."""
    name = place.destination.name
    if other is None:
        return without(before, name) | placed(new_version(question), name)
    after = without(before, name, other.name) | placed(subtree(before, other.name), name)
    if question.call == "exchange":
        after |= placed(subtree(before, name), other.name)
    return after


def new_version(question: Question) -> Tree:
    file = Entry(0o100000, publishing.NEW)
    folder = Entry(0o040000, b"")
    if question.call in ("folder", "path to a folder"):
        return {"": folder, "/inner": folder, "/new": file, "/inner/new": file}
    return {"": file}


def assert_names_the_paths(error: OSError, place: Place, other: Path | None) -> None:
    names = (error.filename, error.filename2)
    if other is None:
        assert error.filename == os.fspath(place.destination)
    else:
        assert names == (os.fspath(other), os.fspath(place.destination))
    assert place.destination.name in str(error)
