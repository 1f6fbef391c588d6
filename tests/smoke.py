"""The main things once, with the standard library only: does this installation work?

Packaging runs it in a new environment with what it has just installed: `python -I tests/smoke.py`.
"""

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

import atomik


class Interrupted(Exception):
    pass


def check_files(here: Path) -> None:
    path = here / "result.json"
    with atomik.file(path) as file:
        file.write("{}\n")
        assert not path.exists()
    assert path.read_text() == "{}\n"
    try:
        atomik.write_text(path, "new")
    except FileExistsError as error:
        assert isinstance(error, atomik.AtomikError)
        assert os.fspath(error.filename) == os.fspath(path)
    else:
        raise AssertionError("an existing file was replaced without being asked to")
    atomik.write_bytes(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    try:
        with atomik.file(path, overwrite=True) as file:
            file.write("half")
            raise Interrupted
    except Interrupted:
        pass
    assert path.read_bytes() == b"new"


def check_folders(here: Path) -> None:
    site = here / "site"
    for version in "one", "two":
        with atomik.folder(site, overwrite=True) as staging:
            (staging / "deep").mkdir()
            (staging / "deep" / "index.html").write_text(version)
            (staging / version).touch()
    assert sorted(os.listdir(site)) == ["deep", "two"]
    assert (site / "deep" / "index.html").read_text() == "two"


def check_names(here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").mkdir()
    atomik.exchange(here / "a", here / "b")
    assert (here / "b").read_text() == "a"
    atomik.rename(here / "b", here / "c")
    assert sorted(os.listdir(here)) == ["a", "c"]


def main() -> None:
    assert atomik.__file__ is not None
    assert Path(atomik.__file__).is_relative_to(sys.prefix), atomik.__file__
    distribution = importlib.metadata.distribution("atomik")
    names = {file.name for file in distribution.files or ()}
    assert {"py.typed", "_atomik.pyi", "LICENSE"} <= names, names
    for check in check_files, check_folders, check_names:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))
            left = [name for name in os.listdir(folder) if name.startswith(".atomik-")]
            assert left == [], left
    what = sys.argv[1] if len(sys.argv) > 1 else "the installed package"
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"{what}: atomik {distribution.version} works on Python {python}")


if __name__ == "__main__":
    main()
