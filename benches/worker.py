"""A child of the benchmark, in one of its environments: calls the contestants that live there, and times them.

Lives as long as its standard input. Reads lines of words between tabs, answers each by `ok` and nanoseconds, or by
`error` and what went wrong, as the bare program does (bare.rs), and writes the same.

    file NAME DURABILITY PATH SIZE PIECE COUNT SEED     replaces a file COUNT times
    group NAME DURABILITY FOLDER FILES SIZE SEED        replaces so many files
    begin NAME DURABILITY PATH                          begins a folder; says also where it is to be filled
    commit                                              publishes it
    remove NAME PATH                                    removes a tree
    memory                                              says how many bytes are resident, and were since the last time
    versions NAME...                                    says what is installed
"""

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from contestants import FILES, FOLDERS, GROUPS, REMOVALS, Way, nanoseconds


@cache
def contestant(ways: Sequence[Way[Any]], name: str, durability: str) -> Any:  # noqa: ANN401 - a call of any kind
    """Makes a contestant ready, once."""
    return next(way for way in ways if (way.name, way.durability) == (name, durability)).make()


@cache
def content(size: int, piece: int, seed: int) -> list[bytes]:
    """Returns the pieces of a file; only the last ones that were asked for are kept."""
    content.cache_clear()
    whole = bytes([seed]) * min(size, piece)
    return [whole[: size - at] for at in range(0, size, piece)] or [whole]


def file(name: str, durability: str, path: str, *numbers: str) -> int:
    """Replaces a file again and again."""
    size, piece, count, seed = map(int, numbers)
    write, pieces = contestant(FILES, name, durability), content(size, piece, seed)

    def repeat() -> None:
        for _ in range(count):
            write(path, pieces)

    return nanoseconds(repeat)


def group(name: str, durability: str, folder: str, *numbers: str) -> int:
    """Replaces many files."""
    files, size, seed = map(int, numbers)
    write, data = contestant(GROUPS, name, durability), bytes([seed]) * size
    paths = [f"{folder}/file-{number:06}" for number in range(files)]
    return nanoseconds(lambda: write(paths, data))


class Folders:
    """The folder that has been begun."""

    _open: AbstractContextManager[Any]

    def begin(self, name: str, durability: str, path: str) -> tuple[int, str]:
        """Begins a folder."""
        publish, replaces, staging = (
            contestant(FOLDERS, name, durability),
            Path(path).exists(),
            [""],
        )

        def enter() -> None:
            self._open = publish(path, replaces)
            staging[0] = str(self._open.__enter__())

        return nanoseconds(enter), staging[0]

    def commit(self) -> int:
        """Publishes it."""
        return nanoseconds(lambda: self._open.__exit__(None, None, None))


def remove(name: str, path: str) -> int:
    """Removes a tree."""
    took = contestant(REMOVALS, name, "none")(path)
    assert isinstance(took, int)
    return took


def memory() -> tuple[int, int]:
    """Reads how much is resident, and has been at most since the last time."""
    status = Path("/proc/self/status").read_text("ascii")
    sizes = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return int(sizes["VmRSS"]) * 1024, int(sizes["VmHWM"]) * 1024


def versions(*names: str) -> Iterator[str]:
    """Returns what is installed, Python first."""
    yield f"Python {platform.python_version()}"
    for name in names:
        yield f"{name} {version(name)}"


_folders: Final = Folders()
COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "file": file,
    "group": group,
    "begin": _folders.begin,
    "commit": _folders.commit,
    "remove": remove,
    "memory": memory,
    "versions": lambda *names: tuple(versions(*names)),
}


def main() -> int:
    """Answers until its standard input ends."""
    for line in sys.stdin:
        command, *words = line.rstrip("\n").split("\t")
        try:
            answer = COMMANDS[command](*words)
        except Exception as error:  # noqa: BLE001 - it is the answer
            print("error", f"{type(error).__name__}: {error}".replace("\n", " "), sep="\t")
        else:
            print("ok", *(answer if isinstance(answer, tuple) else (answer,)), sep="\t")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
