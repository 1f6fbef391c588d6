"""`atomik.probe` tells the truth about shared folders."""

import os
from pathlib import Path

import atomik
import pytest
from shares import Share
from support.processes import NOBODY, run_as


def test_probe_says_what_the_filesystem_is_known_for(share: Share) -> None:
    traits = share.traits
    for client in (share.a, share.b):
        probe = atomik.probe(client)
        assert probe.filesystem == traits.type
        assert probe.noreplace is traits.noreplace
        assert probe.exchange is traits.exchange
        assert probe.unnamed_files is traits.unnamed
        assert probe.directory_locks is True
        assert probe.hard_links is traits.hard_links
        assert probe.modes_kept is traits.modes_kept
        assert probe.owners_kept is traits.owners_kept
    assert os.listdir(share.server) == []


def test_probe_says_whom_locks_reach(share: Share) -> None:
    assert [atomik.probe(client).lock_reach for client in (share.a, share.b)] == [
        share.traits.reach,
        share.traits.reach,
    ]


@pytest.mark.parametrize("share", ["nfs 4.2", "nfs 3", "f2fs"], indirect=True)
def test_an_ordinary_user_gets_the_same_answers(share: Share) -> None:
    def ask() -> list[str]:
        return str(atomik.probe(Path(share.a))).splitlines()

    assert run_as(NOBODY, ask) == ask()
