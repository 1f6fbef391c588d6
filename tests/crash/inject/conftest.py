"""Fixtures of these tests."""

from collections.abc import Iterator

import pytest
from support.filesystems import Mounts

from inject.forks import Forks


@pytest.fixture(scope="session")
def forks(mounts: Mounts) -> Iterator[Forks]:
    """The server of this process; it ends before the filesystems do, which it can see."""
    del mounts
    forks = Forks()
    try:
        yield forks
    finally:
        forks.close()
