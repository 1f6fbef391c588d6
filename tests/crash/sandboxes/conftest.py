"""The fixture of the tests that need two filesystems in one process."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.filesystems import Filesystem, Missing, Mounts


@pytest.fixture
def other(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Filesystem]:
    """A new empty folder on the filesystem that the test names by an indirect parameter."""
    with ExitStack() as undo:
        try:
            filesystem = mounts.test_folder(request.param, undo)
        except Missing as reason:
            pytest.skip(str(reason))
        yield filesystem
        assert filesystem.leftovers() == []
