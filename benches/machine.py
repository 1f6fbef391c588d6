"""The machine of a run, and what disturbed the run."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from ground import Child, elapsed, settle

ROOT: Final = Path(__file__).parents[1]
MEASURED: Final = (
    "src", "python", "benches", "Cargo.toml", "Cargo.lock", "requirements-bench.txt", "requirements-peers.txt",
)  # fmt: skip
"""The paths on which the figures depend: they are the same for all runs of a series."""
TOOLS: Final = (("mkfs.ext4", "-V"), ("mkfs.xfs", "-V"), ("mkfs.btrfs", "--version"))

LOAD_BEFORE: Final = 0.5
LOAD_AFTER: Final = 1.5
"""Load of one minute for each core. What is measured makes some load by itself: up to two threads, beside those of the
kernel for the images."""
STOLEN: Final = 0.02
"""Share of the processors' time that the hypervisor gave to other machines."""
WORK: Final = 1.3
FLUSH: Final = 3.0
"""How many times as long as the shortest the longest control may take. Two programs that share a core are at 2; the
flush of a virtual disk varies by 2 without any other program."""

_HASHED: Final = bytes(1 << 20)
_TRIES: Final = 15
_PAGE: Final = 4 << 10


def first_line(*command: str) -> str:
    """Returns what a program prints first, wherever."""
    ran = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return next(iter(ran.stdout.splitlines()), "").strip()


def field(path: str, name: str) -> str:
    """Reads a field of a file in /proc."""
    lines = Path(path).read_text("utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "?")


def commit() -> str:
    """Names the last commit that changed what is measured; a `+` says that something has changed since."""
    # The benchmark runs as root, and another user may own the clone.
    git = ("git", "-c", "safe.directory=*", "-C", str(ROOT))
    changed = first_line(*git, "status", "--porcelain", "--", *MEASURED)
    return first_line(*git, "log", "-1", "--format=%h", "--", *MEASURED) + ("+" if changed else "")


def mount(path: Path) -> str:
    """Returns type and options of the filesystem of a path."""
    said = first_line("findmnt", "-no", "FSTYPE,OPTIONS", "-T", str(path))
    return " ".join(said.split())


def disk(path: Path) -> str:
    """Describes the disk below a path as the kernel does: whether it has a cache to flush, and its scheduler."""
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    queue = next((at / "queue" for at in (device, device.parent) if (at / "queue").is_dir()), None)
    if queue is None:
        return "no block device"
    names = ("write_cache", "rotational", "scheduler")
    facts = ", ".join(f"{name} {(queue / name).read_text('ascii').strip()}" for name in names)
    return f"{queue.parent.name}, {facts}"


def facts(images: Path) -> dict[str, Any]:
    """Describes the machine."""
    return {
        "commit": commit(),
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": f"{int(field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "images": mount(images),
        "disk": disk(images),
        "tools": [first_line(*tool) for tool in TOOLS],
    }


class Control:
    """Measures the same again and again during a run: work of the processor, and a flush of the disk of the images."""

    def __init__(self, bare: Child, folder: Path) -> None:
        self._bare, self._folder = bare, folder
        self._load = os.getloadavg()
        self._times = _processor_times()
        self._work: list[float] = []
        self._flush: list[float] = []

    def sample(self) -> None:
        """Takes one sample of each."""
        self._work.append(median(elapsed(_work) for _ in range(_TRIES)))
        settle(self._folder)
        words = ("flush", "fdatasync", self._folder / "control", _PAGE, _TRIES, len(self._work))
        self._flush.append(self._bare.seconds(*words))

    def found(self) -> dict[str, Any]:
        """Returns the load, the time that was stolen, and the shortest and the longest controls."""
        then, now = self._times, _processor_times()
        passed = sum(now) - sum(then)
        return {
            "load": {"start": self._load, "end": os.getloadavg()},
            "stolen": (now[7] - then[7]) / max(1, passed),
            "work": [min(self._work), max(self._work)],
            "flush": [min(self._flush), max(self._flush)],
        }


def _work() -> None:
    hashlib.blake2b(_HASHED).digest()


def _processor_times() -> list[int]:
    """Reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        return [int(word) for word in file.readline().split()[1:9]]


def disturbed(about: Mapping[str, Any]) -> list[str]:
    """Returns the reasons for which a run does not count."""
    cores, load = about["cores"], about["load"]
    limits: Sequence[tuple[str, float, float]] = (
        ("load at its start", load["start"][0], LOAD_BEFORE * cores),
        ("load at its end", load["end"][0], LOAD_AFTER * cores),
        ("share of time that the hypervisor gave to other machines", about["stolen"], STOLEN),
        ("the longest control of the processor, in shortest", _spread(about["work"]), WORK),
        ("the longest control flush, in shortest", _spread(about["flush"]), FLUSH),
    )
    why = [f"{what}: {is_:.2f}, at most {most:.2f}" for what, is_, most in limits if is_ > most]
    if about["commit"].endswith("+"):
        why.append("what is measured differs from its last commit")
    return why


def _spread(ends: Sequence[float]) -> float:
    return ends[1] / ends[0]
