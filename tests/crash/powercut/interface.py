"""What a workload is to the power-cut engine: something to prepare, to record, and to check after a cut.

A crash instant is a position in the recorded log. The state at it holds every write that was flushed before it, and
some subset of those that were not. `returned` holds the labels whose markers stand before the instant.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Returned(Protocol):
    """Records, in the same order as the device's writes, that the commit called `label` has returned."""

    def __call__(self, label: str) -> None: ...


class Workload(Protocol):
    """A piece of work whose every crash state can be judged. One object serves `run` and many calls of `check`."""

    name: str  # for instance "file-replace-full-4096"

    def prepare(self, here: Path) -> None:
        """Lay out what stands before the recording. The engine then unmounts and mounts: all of it is durable."""
        ...

    def run(self, here: Path, returned: Returned) -> None:
        """Do the recorded part, and call `returned("1")` as soon as the first commit has returned, and so on."""
        ...

    def check(self, here: Path, returned: Sequence[str]) -> list[str]:
        """Say what is wrong with the crash state mounted at `here`; the list is empty when nothing is.

        `returned` holds the labels recorded before the crash instant: these commits must have survived.
        """
        ...
