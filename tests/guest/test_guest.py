"""Boots older kernels and runs tests under them: `make test-guest`, and in ten minutes `make test-guest-ci`.

What runs there is pytest again, with the same wheel; its output is this test's, and so is its verdict.
Without QEMU, or a kernel to boot, these tests are skipped and say what is missing.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from shares import IN_THE_GUEST

_HERE: Final = Path(__file__).parent
_PROJECT: Final = _HERE.parents[1]
# The runner's answer when something is missing.
_MISSING: Final = 77

# In one process, which starts the servers.
_SHARES: Final = ("tests/guest/inside",)
# Threads and processes by the hundred, and what counts time, take too long at a tenth of the speed.
_IN_TWO: Final = ("-n", "2", "--dist", "worksteal")
_ORDINARY: Final = (
    *_IN_TWO,
    *("tests/python", "-m", "not slow"),
    *("--deselect", "tests/python/test_bench.py", "--deselect", "tests/python/test_budget.py"),
    *("--deselect", "tests/python/test_docs.py", "--deselect", "tests/python/test_properties.py"),
    *("--deselect", "tests/python/test_reference.py"),
)
_SMOKE: Final = (
    *_IN_TWO,
    *("tests/python/test_probe.py", "tests/python/test_filesystems.py"),
    *("tests/python/test_folder.py", "tests/guest/inside/test_mounts.py"),
    *("-k", "ext4 or test_mounts or (test_probe and (overlay or bindfs))"),
)


@dataclass(frozen=True)
class _Run:
    kernel: str
    what: str
    arguments: tuple[str, ...]
    minutes: float


_IN_CI: Final = (
    # Without the crowds, which meet other interleavings each time: those are for the whole run.
    _Run("6.12", "shares", (*_SHARES, "-m", "not slow", "-k", "not crowd"), 8),
    _Run("6.1", "smoke", _SMOKE, 5),
)
_ALL: Final = (
    *(_Run(kernel, "shares", _SHARES, 25) for kernel in ("6.1", "6.12")),
    *(_Run(kernel, "tests", _ORDINARY, 15) for kernel in ("6.1", "6.12")),
)


@pytest.mark.skipif(IN_THE_GUEST.exists(), reason="this is the guest")
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "run",
    [
        *(pytest.param(run, id=f"ci-{run.kernel}-{run.what}") for run in _IN_CI),
        *(pytest.param(run, id=f"{run.kernel}-{run.what}", marks=pytest.mark.slow) for run in _ALL),
    ],
)
def test_the_tests_pass_under_an_older_kernel(run: _Run) -> None:
    command = [
        *(sys.executable, f"{_HERE}/guest.py", "--kernel", run.kernel),
        *("--seconds", str(run.minutes * 60), "--"),
        *(".venv/bin/pytest", "-p", "no:cacheprovider", "--color=no", "--tb=short", "-q"),
        *("-p", "no:randomly", "--timeout=100"),
        # Before the guest's own time is over, so that what has failed until then is told.
        f"--session-timeout={run.minutes * 60 - 60:.0f}",
        *run.arguments,
    ]
    guest = subprocess.Popen(
        command, cwd=_PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    last = ""
    with guest:
        assert guest.stdout is not None
        for line in guest.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    if guest.returncode == _MISSING:
        pytest.skip(last)
    assert guest.returncode == 0, last
