"""Four writers, four snapshot readers and two plain readers of one folder, all of them killed again and again.

`ATOMIK_TORTURE_SECONDS` says for how long on each filesystem (default 10), `ATOMIK_SEED` repeats the
chances of a run, though not what the scheduler made of them.
"""

import os
import random
from collections import Counter
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem
from support.torture import Torture, read

SECONDS: Final = float(os.environ.get("ATOMIK_TORTURE_SECONDS", "10"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thread_unsafe(reason="forks"),
    pytest.mark.timeout(SECONDS + 200),
]


@pytest.fixture
def rng() -> random.Random:
    """Chances, of a seed that a failing test shows."""
    seed = os.environ.get("ATOMIK_SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"ATOMIK_SEED={seed}")
    return random.Random(seed)


# Not bindfs, which replaces no folder.
@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True)
@pytest.mark.leaves_orphans
def test_no_update_is_lost_no_reader_sees_a_mix_and_one_sweep_cleans_up(
    fs: Filesystem, rng: random.Random
) -> None:
    torture = Torture(fs.here / "destination", rng)
    torture.run(SECONDS)
    left = sorted(fs.leftovers())
    final = read(torture.destination)
    print(f"{fs.name}: {SECONDS:g} s, {dict(torture.said)}, killed {dict(torture.kills)}")
    print(f"final: {len(final)} lines; left: {left}")

    assert torture.errors == [], "\n".join(torture.errors[:5])
    for word in ("updated", "replaced", "conflict", "read"):
        assert torture.said[word] > 0, word
    # Every update of the last era is in the final version, once.
    lines = Counter(final[1:])
    reported = Counter(f"updated by {me}" for era, me in torture.updated if era == final[0])
    assert reported - lines == Counter()
    assert set(lines.values()) <= {1}
    # It is ahead only by commits that were killed between their publish and their report.
    assert (lines - reported).total() <= torture.kills["writer"]

    atomik.sweep(fs.here)
    assert os.listdir(fs.here) == ["destination"]
    assert read(torture.destination) == final
