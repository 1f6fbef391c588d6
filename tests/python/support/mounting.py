"""Mounting, and taking back what was mounted: what all kinds of filesystems need of it."""

import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from support import kernel

SECONDS: Final = 60


class Missing(Exception):  # noqa: N818 - it says what is so, not what went wrong
    """A filesystem cannot be had here; the message says why."""


class MountFailed(Exception):  # noqa: N818 - as above
    """A filesystem could be had here, and was not mounted; the message says why."""


def need(program: str) -> None:
    """Raises `Missing` where a program is not installed."""
    if shutil.which(program) is None:
        raise Missing(f"{program} is missing")


def run(*command: str | Path) -> str:
    """Returns what a program prints."""
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    return ended.stdout


def mount(undo: ExitStack, target: Path, *options: str | Path) -> None:
    """Mounts something on `target` until `undo` ends."""
    # In this order, so that a mount that a timeout interrupts is taken back as well.
    undo.callback(kernel.unmount, target)
    run("mount", *options, target)


def image_file(path: Path, size: int, undo: ExitStack) -> Path:
    """Makes a sparse file that can hold a filesystem."""
    undo.callback(path.unlink, missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


_TRIES: Final = 20


def remove(path: Path) -> None:
    """Removes a folder with all that is in it, however deep.

    A server of FUSE hears a moment later that a killed process has closed a file, and keeps it under a hidden name till
    then.
    """
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        for left in reversed(range(_TRIES)):
            try:
                # Deeper than Python's stack or PATH_MAX: `rm` goes by descriptors.
                run("rm", "-rf", path)
            except subprocess.CalledProcessError:
                if left == 0:
                    raise
                time.sleep(0.1)
            else:
                return
