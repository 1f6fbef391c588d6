"""What type checkers say of calls: mypy and basedpyright."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, cast, get_args

import atomik
import pytest

_SECONDS: Final = 240

RIGHT: Final = """
from io import BufferedWriter, TextIOWrapper
from typing import IO, Any, assert_type
import atomik

def wrap(
    path: atomik.AnyPath,
    mode: atomik.OpenMode = "w",
    durability: atomik.Durability = "full",
    siblings: atomik.Siblings = "refuse",
    cleanup: atomik.Cleanup = "inline",
) -> None:
    with atomik.file(path, mode, durability=durability) as f:
        assert_type(f, IO[Any])
    with atomik.path(path, siblings=siblings, cleanup=cleanup, durability=durability):
        pass

def first_release(mode: atomik.Mode) -> None:
    atomik.file("x", mode)

def text(path: str, mode: atomik.TextMode) -> None:
    with atomik.file(path, mode) as f:
        assert_type(f, TextIOWrapper)

with atomik.file("x", "wb") as f:
    assert_type(f, BufferedWriter)
assert_type(atomik.__version__, str)
"""

WRONG: Final = {
    "a mode that only reads": 'atomik.file("x", "r")',
    "a mode that only reads bytes": 'atomik.file("x", "rb")',
    "a mode that open does not know": 'atomik.file("x", "q")',
    "a mode that only reads in a group": 'atomik.group().file("x", "rb")',
    "another durability": 'atomik.write_bytes("x", b"", durability="some")',
    "other siblings": 'atomik.path("x", siblings="keep")',
    "siblings of a folder": 'atomik.folder("x", siblings="discard")',
}

CHECKERS: Final = {
    "mypy": ("mypy", "--strict", "--no-incremental", "--cache-dir=/dev/null"),
    "basedpyright": ("basedpyright", "--level", "error", "--pythonpath", sys.executable),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_passes_what_works_and_finds_what_does_not(checker: str, here: Path) -> None:
    program, *options = CHECKERS[checker]
    if not (tool := Path(sys.executable).with_name(program)).exists():
        pytest.skip(f"{program} is not installed")
    lines = [*RIGHT.splitlines(), *WRONG.values()]
    (here / "it.py").write_text("\n".join(lines) + "\n")
    (here / "pyrightconfig.json").write_text("{}")
    where = os.fspath(Path(atomik.__file__).parents[1])
    done = subprocess.run(
        [tool, *options, "it.py"],
        cwd=here,
        env={**os.environ, "MYPYPATH": "", "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    output = done.stdout + done.stderr
    found = {
        number
        for number, _ in enumerate(lines, 1)
        if any(f"it.py:{number}:" in line and "error" in line for line in output.splitlines())
    }
    first = len(RIGHT.splitlines()) + 1
    assert found == set(range(first, first + len(WRONG))), output


def test_the_modes_of_the_types_are_those_that_work(here: Path) -> None:
    modes: list[atomik.OpenMode] = [
        mode for part in get_args(atomik.OpenMode) for mode in get_args(part)
    ]
    assert len(modes) == len(set(modes))
    assert {"w", "wb", "x", "a", "r+", "rb+"} <= set(modes)
    (here / "there").touch()
    for mode in modes:
        name = here / ("new" if "x" in mode else "there")
        with pytest.raises(LookupError), atomik.file(name, mode, overwrite="x" not in mode) as f:
            assert f.writable()
            assert f.readable() == ("+" in mode)
            raise LookupError
    for wrong in ("r", "rb", "rt", "q"):
        with pytest.raises(ValueError, match=wrong):
            atomik.file(here / "x", cast("atomik.OpenMode", wrong))
