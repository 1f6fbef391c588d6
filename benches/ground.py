"""What all benchmarks use: filesystems, samples in turn, and child processes that time calls.

Filesystems are sparse images in a mount namespace of their own; that takes root and PYTHONPATH=tests/python.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from support import kernel

MKFS: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-N", "1000000"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
FILESYSTEMS: Final = (*MKFS, "tmpfs")
GIB: Final = 1 << 30
SECONDS: Final = 600

Samples = dict[str, list[float]]


class Wrong(Exception):  # noqa: N818 - no error of the program
    """A contestant has not done what was timed; the message names both."""


def run(*command: str | Path) -> None:
    """Runs a program to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)


def enter_private_mounts() -> None:
    """Gives this process and its children a mount namespace of their own."""
    kernel.enter_private_mount_namespace()
    run("mount", "--make-rprivate", "/")


@contextmanager
def mounted(name: str, images: Path, size: int) -> Generator[Path, None, None]:
    """Mounts a new filesystem, from a sparse image or in memory, which is gone however this ends."""
    root = Path(tempfile.mkdtemp(prefix="atomik-bench-", dir=images))
    image = root.with_suffix(".img")
    try:
        if name == "tmpfs":
            run("mount", "-t", name, "-o", f"size={size}", name, root)
        else:
            with image.open("wb") as file:
                file.truncate(size)
            run(*MKFS[name], image)
            run("mount", "-t", name, "-o", "loop", image, root)
            image.unlink()
        try:
            yield root
        finally:
            kernel.unmount(root)
    finally:
        image.unlink(missing_ok=True)
        root.rmdir()


def settle(path: Path) -> None:
    """Writes back what earlier samples have left in memory, so that every sample begins alike."""
    run("sync", "-f", path)


def elapsed(do: Callable[[], object]) -> float:
    """Does something and says how long it took."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def in_turns(
    ways: Mapping[str, Callable[[], Samples]], rounds: int, *, warm_up: bool = True
) -> Samples:
    """Samples all ways in each round, in another order each time; the first round may only warm up."""
    samples: Samples = {}
    names = list(ways)
    for turn in range(rounds + warm_up):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for part, values in ways[name]().items():
                samples.setdefault(part, []).extend([] if warm_up and turn == 0 else values)
    return samples


def shown(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    unit, size = next((u for u in (("s ", 1.0), ("ms", 1e-3)) if seconds >= u[1]), ("µs", 1e-6))
    return f"{seconds / size:.2f} {unit}"


class Child:
    """A program that answers each line, of words between tabs, by one that begins with `ok` or `error`.

    It lives as long as the block, so that no sample pays for its start.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()

    def ask(self, *words: object) -> list[str]:
        """Tells it to do something; returns what it answers after `ok`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("\t".join(str(word) for word in words) + "\n")
        stdin.flush()
        state, *answer = stdout.readline().rstrip("\n").split("\t")
        if state != "ok":
            raise Wrong(f"{words}: {' '.join(answer) or 'no answer'}")
        return answer

    def seconds(self, *words: object) -> float:
        """Tells it to do something that is timed; it answers in nanoseconds."""
        return int(self.ask(*words)[0]) / 1e9


def environment(**more: str) -> dict[str, str]:
    """What children inherit, without this process's own places to import from."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more
