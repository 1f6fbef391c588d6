"""Fixtures that all tests share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.filesystems import NAMES, Filesystem, Missing, Mounts, leftovers


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "leaves_orphans: the test itself looks at what is left behind"
    )


@pytest.fixture(scope="session")
def mounts() -> Iterator[Mounts]:
    """All filesystems of this process; nothing of them is left when it ends."""
    mounts = Mounts()
    try:
        yield mounts
    finally:
        mounts.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A new empty folder, wherever pytest makes them."""
    return tmp_path


@pytest.fixture(params=NAMES)
def fs(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Filesystem]:
    """A new empty folder (`fs.here`) on each filesystem in turn.

    Choose some of them with `@pytest.mark.parametrize("fs", ["overlay"], indirect=True)`.
    """
    with _folder_on(request.param, mounts) as filesystem:
        yield filesystem


@pytest.fixture
def other(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Filesystem]:
    """A new empty folder on a second filesystem, which the test names by an indirect parameter."""
    with _folder_on(request.param, mounts) as filesystem:
        yield filesystem
        assert filesystem.leftovers() == []


@contextmanager
def _folder_on(name: str, mounts: Mounts) -> Iterator[Filesystem]:
    with ExitStack() as undo:
        try:
            filesystem = mounts.test_folder(name, undo)
        except Missing as reason:
            pytest.skip(str(reason))
        yield filesystem


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails every test that leaves one of the library's own names in its folder."""
    looks: list[Callable[[], list[str]]] = []
    if "fs" in request.fixturenames:
        looks.append(request.getfixturevalue("fs").leftovers)
    if "here" in request.fixturenames:
        looks.append(partial(leftovers, request.getfixturevalue("here")))
    yield
    if request.node.get_closest_marker("leaves_orphans") is None:
        assert [name for look in looks for name in look()] == []
