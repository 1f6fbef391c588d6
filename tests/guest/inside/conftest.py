"""Fixtures of the tests that run in the guest, and only there."""

import time
from collections.abc import Iterator

import pytest
from shares import IN_THE_GUEST, TRAITS, Share, Shares
from sharing import CALLS, Call, in_turn
from support.filesystems import leftovers


@pytest.fixture(scope="session")
def shares() -> Shares:
    """All shared folders of this guest."""
    if not IN_THE_GUEST.exists():
        pytest.skip("needs another kernel: make test-guest boots one")
    return Shares()


@pytest.fixture(params=TRAITS)
def share(request: pytest.FixtureRequest, shares: Shares) -> Iterator[Share]:
    """A new empty folder that two clients see, on each share in turn; nothing may be left there."""
    share = shares.new_folder(request.param)
    yield share
    assert leftovers(share.server) == []
    # What an NFS client's own processes had open when it was removed goes when they have closed it.
    end = time.monotonic() + 10
    while list(share.server.rglob(".nfs*")) and time.monotonic() < end:
        time.sleep(0.1)
    assert list(share.server.rglob(".nfs*")) == []


@pytest.fixture(params=in_turn(CALLS.values()))
def call(request: pytest.FixtureRequest) -> Call:
    """Each call in turn."""
    call: Call = request.param
    return call
