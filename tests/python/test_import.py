"""What `import atomik` brings, and what it says of itself."""

import doctest
import importlib.metadata
import inspect
import os
import pickle
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import atomik
import pytest

TYPES: Final = {
    "AnyPath",
    "BinaryMode",
    "Cleanup",
    "Durability",
    "OpenMode",
    "Siblings",
    "TextMode",
}
PUBLIC: Final = TYPES | {
    "AT_FDCWD",
    "AtomikError",
    "CleanupWarning",
    "ConflictError",
    "DestinationBusyError",
    "DurabilityError",
    "Entry",
    "File",
    "FileAlreadyExistsError",
    "Folder",
    "Group",
    "InvalidCrossDeviceError",
    "Mode",
    "Orphan",
    "Probe",
    "RenameFlags",
    "Snapshot",
    "UnsupportedFilesystemError",
    "errors",
    "exchange",
    "file",
    "folder",
    "group",
    "path",
    "probe",
    "rename",
    "renameat2",
    "snapshot",
    "swap",
    "sweep",
    "write_bytes",
    "write_text",
}
ERRORS: Final = {
    "AtomikError": OSError,
    "FileAlreadyExistsError": FileExistsError,
    "InvalidCrossDeviceError": atomik.AtomikError,
    "UnsupportedFilesystemError": atomik.AtomikError,
    "DestinationBusyError": atomik.AtomikError,
    "ConflictError": atomik.AtomikError,
    "DurabilityError": atomik.AtomikError,
}
GUARDS: Final = ("File", "Folder", "Entry")


def python(code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs code in a new interpreter that finds the same library."""
    where = os.fspath(Path(atomik.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_loads_nothing_of_the_standard_library() -> None:
    """A package's `.pth` files import things before any program starts: -S leaves them out.

    What a call needs, it imports: enum or asyncio alone would take longer than everything else together.
    """
    done = python(
        """
import sys
before = set(sys.modules)
import atomik
print(*sorted(set(sys.modules) - before))
""",
        "-S",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["atomik", "atomik._atomik", "atomik.errors"]


@pytest.mark.parametrize(
    "name", [*sorted(TYPES), "AT_FDCWD", "Mode", "RenameFlags", "flags", "literals"]
)
def test_a_name_that_is_imported_late_is_there(name: str) -> None:
    code = f"""
import atomik
assert {name!r} in dir(atomik)
assert atomik.{name} is atomik.{name}
from atomik import {name}
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    done = python("import atomik; atomik.nothing")
    assert "AttributeError: module 'atomik' has no attribute 'nothing'" in done.stderr


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14", "emscripten"])
def test_importing_elsewhere_says_that_it_needs_linux(platform: str) -> None:
    done = python(
        f"""
import sys
sys.platform = {platform!r}
try:
    import atomik
except ImportError as error:
    print(error)
print([name for name in sys.modules if name.startswith("atomik.")])
"""
    )
    assert done.returncode == 0, done.stderr
    message, loaded = done.stdout.splitlines()
    assert "Linux" in message
    assert platform in message
    assert loaded == "[]"


def test_the_public_names_are_those_of_the_documentation() -> None:
    assert set(atomik.__all__) == PUBLIC
    assert list(atomik.__all__) == sorted(atomik.__all__)
    assert set(atomik.errors.__all__) == {*ERRORS, "CleanupWarning"}
    for name in atomik.errors.__all__:
        assert getattr(atomik, name) is getattr(atomik.errors, name)
    assert atomik.swap is atomik.exchange


def test_all_else_in_the_package_is_a_module_or_private() -> None:
    other = {name for name in dir(atomik) if not name.startswith("_")} - PUBLIC
    assert [
        name for name in sorted(other) if not isinstance(getattr(atomik, name), types.ModuleType)
    ] == []


def documented() -> Iterator[tuple[str, Any]]:
    """Yields everything public that can have a docstring of its own, by its full name."""
    yield "atomik", atomik
    for name in sorted(PUBLIC - TYPES - {"AT_FDCWD"}):
        yield f"atomik.{name}", getattr(atomik, name)
    for name in GUARDS:
        guard = getattr(atomik, name)
        for member in ("commit", "rollback"):
            yield f"atomik.{name}.{member}", getattr(guard, member)


ALL_DOCUMENTED: Final = dict(documented())
WITH_EXAMPLE: Final = [name for name, it in ALL_DOCUMENTED.items() if ">>> " in (it.__doc__ or "")]


@pytest.mark.parametrize("name", ALL_DOCUMENTED)
def test_it_has_a_docstring(name: str) -> None:
    doc = ALL_DOCUMENTED[name].__doc__
    assert doc
    first = inspect.cleandoc(doc).splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) <= 120


@pytest.mark.parametrize("guard", GUARDS)
def test_the_attributes_of_a_guard_are_in_its_docstring(guard: str) -> None:
    doc = getattr(atomik, guard).__doc__
    for attribute in ("destination", "staging", "committed"):
        assert f"{attribute}: " in doc


@pytest.mark.parametrize(
    "name",
    [
        "file",
        "folder",
        "path",
        "write_bytes",
        "write_text",
        "rename",
        "exchange",
        "renameat2",
        "snapshot",
        "sweep",
        "probe",
    ],
)
def test_every_parameter_is_in_the_docstring(name: str) -> None:
    function = getattr(atomik, name)
    arguments = function.__doc__.split("Args:")[1].split("\n\n")[0]
    assert [
        parameter
        for parameter in inspect.signature(function).parameters
        if not re.search(rf"\b{parameter}\b", arguments)
    ] == []
    for section in ("Raises:", "Durability:", "Source:", "Example:"):
        assert f"\n{section}" in inspect.cleandoc(function.__doc__)


@pytest.mark.thread_unsafe(reason="changes the current folder")
@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_its_example_runs(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    for there_already in ("draft.txt", "live", "next", "a", "b"):
        (here / there_already).write_text(there_already)
    example = doctest.DocTestParser().get_doctest(
        ALL_DOCUMENTED[name].__doc__, {"atomik": atomik}, name, None, None
    )
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert (results.failed, results.attempted > 0) == (0, True), "".join(report)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_what_except_clauses_expect(name: str) -> None:
    error = getattr(atomik, name)
    assert issubclass(error, (ERRORS[name],))
    assert issubclass(error, atomik.AtomikError)
    assert issubclass(error, OSError)
    assert error.__module__ == "atomik.errors"


def test_the_warning_is_one_that_is_shown_by_default() -> None:
    assert issubclass(atomik.CleanupWarning, RuntimeWarning)
    assert not issubclass(atomik.CleanupWarning, ResourceWarning)


def test_the_version_is_that_of_the_package() -> None:
    assert atomik.__version__ == importlib.metadata.version("atomik")


def test_constants_are_the_kernels() -> None:
    assert atomik.AT_FDCWD == -100
    assert {flag.name: flag.value for flag in atomik.RenameFlags} == {
        "NOREPLACE": 1,
        "EXCHANGE": 2,
        "WHITEOUT": 4,
    }
    assert [atomik.Mode.TEXT, atomik.Mode.BYTES] == ["w", "wb"]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_all_of_an_error(name: str, protocol: int) -> None:
    error = getattr(atomik, name)(17, "a reason", b"a", None, "b")
    error.committed = True
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert (twin.errno, twin.strerror, twin.filename, twin.filename2, twin.committed) == (
        17,
        "a reason",
        b"a",
        "b",
        True,
    )
    assert str(twin) == str(error)


def test_pickling_keeps_all_of_an_error_that_was_raised(here: Path) -> None:
    path = here / "file"
    path.touch()
    with pytest.raises(atomik.FileAlreadyExistsError) as caught:
        atomik.write_bytes(path, b"new")
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (twin.errno, twin.filename, twin.filename2, twin.committed) == (
        17,
        os.fspath(path),
        None,
        False,
    )
    assert str(twin) == str(caught.value)
