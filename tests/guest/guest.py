#!/usr/bin/env python3
"""Runs a command under another kernel, over this machine's files: `guest.py [--kernel 6.1] -- COMMAND`.

QEMU boots a kernel of Debian's; without KVM that takes about five seconds, and programs then run
at about a tenth of their speed. The guest sees this machine's file tree through 9p, below a layer
in memory that takes all that it writes: what lies on this machine is never changed. Its /tmp,
/run and /dev/shm are empty; the project lies at its own path, even if that is below one of them.
The command runs there as root, in the project's folder, with the loopback interface up and with
all modules of the kernel. Its output is the output of this program, its exit status the exit status.

What it needs: the Debian packages qemu-system-x86, busybox-static, cpio and kmod, and apt's lists.
Exit status: the command's; 77 if something is missing here, with the reason as the last line;
124 if the command was still running after `--seconds`; 125 if the guest ended without an answer,
with the closing lines of the kernel's log.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

PROJECT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = PROJECT / "target" / "guest"

MISSING: Final = 77
TOO_LATE: Final = 124
NO_ANSWER: Final = 125

_PROGRAMS: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "apt-get": "apt",
    "setpriv": "util-linux",
}
# What the first program in the guest needs to see the files: the rest is loaded from there.
_MODULES: Final = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")

# Runs as the guest's first process, from the initial file tree in memory, with BusyBox alone.
#
# The project is put aside before its /tmp, /run and /dev/shm are hidden, and then moved to its own
# path: it is part of the same overlay, and so as writable as the rest.
_INIT: Final = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
while read module; do insmod /modules/$module; done </modules/order
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$2" "$1" "$3"; }
share host ro,cache=loose /host && share answer rw,cache=none /answer || poweroff -f
. /answer/settings
stty -F /dev/hvc0 raw -echo
mount -t tmpfs -o size=90% none /layer; mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work none /root
mount --bind "/root$project" /project
for place in proc sys dev; do mount --move /$place /root/$place; done
for place in run tmp dev/shm; do
    mkdir -p /root/$place; mount -t tmpfs -o mode=1777,size=90% none /root/$place
done
mkdir -p "/root$project" /root/lib/modules/$version /root/run/guest
mount --move /project "/root$project"
mount --bind "/host$modules" /root/lib/modules/$version
mount --move /answer /root/run/guest
exec switch_root /root /bin/bash /run/guest/second
"""

# Runs next, in the same process, from the whole tree. The kernel looks for its modprobe below this
# process's root: a chroot would not do. Nothing asks it for those that make the devices one would ask by.
_SECOND: Final = """\
modprobe -a loop fuse
ip link set lo up
(. /run/guest/command) </dev/null >/dev/hvc0 2>&1
echo $? >/run/guest/status
sync /run/guest/status
echo o >/proc/sysrq-trigger
sleep 60
"""


class MissingHere(Exception):  # noqa: N818 - it says what is so, not what went wrong
    """A guest cannot be had here; the message says why."""


def newest_package(wanted: str) -> str:
    """Returns the newest of apt's kernel packages: of a version ("6.1"), of this very name, or of all."""
    listed = _output("apt-cache", "pkgnames", "linux-image-").split()
    found = {
        tuple(map(int, re.findall(r"\d+", name.removesuffix("-amd64")))): name
        for name in listed
        if re.fullmatch(r"linux-image-\d[\w.+]*(-\d+)?-amd64", name)
        and not re.fullmatch(r"linux-image-\d+\.\d+-amd64", name)  # depends on one; holds none
    }
    if wanted.startswith("linux-image-"):
        return wanted
    numbers = tuple(map(int, wanted.split("."))) if wanted else ()
    matching = [version for version in found if version[: len(numbers)] == numbers]
    if not matching:
        raise MissingHere(f"apt knows no kernel {wanted or 'package'} (after apt-get update?)")
    return found[max(matching)]


def prepare(package: str) -> Path:
    """Returns the folder with the kernel and its modules; makes it at first."""
    for program, its_package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise MissingHere(f"{program} is missing: install {its_package}")
    ready = CACHE / package
    if ready.exists():
        return ready
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as folder:
        new = Path(folder) / package
        new.mkdir()
        try:
            _output("apt-get", "download", "-qq", package, cwd=new)
        except subprocess.CalledProcessError as error:
            raise MissingHere(f"{package} cannot be had: {error.stderr.strip()}") from error
        (archive,) = new.glob("*.deb")
        _output("dpkg", "-x", str(archive), str(new))
        archive.unlink()
        shutil.rmtree(new / "usr", ignore_errors=True)
        _output("depmod", "-b", str(new), _version(new))
        try:
            new.rename(ready)
        except OSError:
            # Another run has made it meanwhile.
            if not ready.exists():
                raise
    return ready


def _make_first_tree(kernel: Path, archive: Path) -> None:
    tree = archive.with_suffix(".tree")
    for name in ("bin", "modules", "proc", "sys", "dev", "host", "answer", "layer", "root"):
        (tree / name).mkdir(parents=True)
    (tree / "project").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin" / "busybox")
    files: list[Path] = []
    for module in _MODULES:
        needs = _output(
            "modprobe", "-d", str(kernel), "-S", _version(kernel), "--show-depends", module
        )
        for line in needs.splitlines():
            word, _, rest = line.partition(" ")
            # The others are part of the kernel itself ("builtin").
            if word == "insmod" and Path(rest.strip()) not in files:
                files.append(Path(rest.strip()))
    for file in files:
        # BusyBox may have been built without a decompressor for modules.
        unpack = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}.get(file.suffix)
        target = tree / "modules" / (file.stem if unpack else file.name)
        command = (unpack, "-dc", file) if unpack else ("cat", file)
        with target.open("wb") as content:
            subprocess.run(command, stdout=content, check=True)
        with (tree / "modules" / "order").open("a") as order:
            order.write(f"{target.name}\n")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    pack = f"find . | cpio --quiet -o -H newc >{shlex.quote(str(archive))}"
    subprocess.run(pack, shell=True, cwd=tree, check=True)


def run(package: str, command: Sequence[str], seconds: float, memory: str, append: str) -> int:
    """Boots a guest, runs the command there, and returns its exit status."""
    kernel = prepare(package)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".run-") as folder:
        answer = Path(folder)
        settings = {
            "project": PROJECT,
            "version": _version(kernel),
            "modules": kernel / "lib" / "modules" / _version(kernel),
        }
        (answer / "settings").write_text(
            "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
        )
        passed = {name: os.environ[name] for name in os.environ if name.startswith("ATOMIK_")}
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **passed,
        }
        exports = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
        (answer / "command").write_text(
            f"cd {shlex.quote(str(PROJECT))} && exec env -i {exports} {shlex.join(command)}\n"
        )
        (answer / "second").write_text(_SECOND)
        _make_first_tree(kernel, answer / "first")
        log = answer / "console"
        machine = [
            *("setpriv", "--pdeathsig", "KILL"),  # no guest outlives this program
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-m", memory, "-smp", "2", "-nodefaults", "-no-reboot", "-display", "none"),
            *("-kernel", str(next((kernel / "boot").glob("vmlinuz-*")))),
            *("-initrd", str(answer / "first")),
            *("-append", f"console=ttyS0 panic=-1 loglevel=4 {append}".strip()),
            *("-chardev", f"file,id=log,path={log}", "-serial", "chardev:log"),
            *("-device", "virtio-serial", "-chardev", "stdio,id=out,signal=off"),
            *("-device", "virtconsole,chardev=out"),
            *("-device", "virtio-rng-pci"),
            *_share("host", "/", "readonly=on,multidevs=remap"),
            *_share("answer", str(answer), "multidevs=remap"),
        ]
        guest = subprocess.Popen(
            machine, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _, complaints = guest.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            print(f"guest: the command has not ended in {seconds:.0f} s", file=sys.stderr)
            return TOO_LATE
        finally:
            guest.kill()
            guest.wait()
        status = answer / "status"
        if status.exists() and status.read_text().strip():
            return int(status.read_text())
        console = log.read_text(errors="replace") if log.exists() else ""
        print("\n".join(console.splitlines()[-15:]), complaints, sep="\n", file=sys.stderr)
        print("guest: it has ended without an answer", file=sys.stderr)
        return NO_ANSWER


def _share(tag: str, path: str, options: str) -> tuple[str, str]:
    escaped = path.replace(",", ",,")
    return "-virtfs", f"local,path={escaped},mount_tag={tag},security_model=none,{options}"


def _version(kernel: Path) -> str:
    (modules,) = (kernel / "lib" / "modules").iterdir()
    return modules.name


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    except FileNotFoundError as error:
        raise MissingHere(f"{command[0]} is missing") from error
    return ended.stdout


def _end(number: int, _frame: object) -> NoReturn:
    # A second one must not interrupt what takes everything back.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--kernel",
        default=os.environ.get("GUEST_KERNEL", ""),
        help="a version (6.1, 6.12) or a package; default: GUEST_KERNEL, else the newest of apt",
    )
    parser.add_argument("--seconds", type=float, default=300, help="how long it may take")
    parser.add_argument("--memory", default="3G", help="of the guest, its files included")
    parser.add_argument("--append", default="", help="more words for the kernel: security=selinux")
    parser.add_argument("command", nargs="+", help="what to run there, in the project's folder")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    try:
        package = newest_package(arguments.kernel)
        print(f"guest: {package}", file=sys.stderr)
        return run(
            package, arguments.command, arguments.seconds, arguments.memory, arguments.append
        )
    except MissingHere as reason:
        print(f"guest: {reason}", file=sys.stderr)
        return MISSING


if __name__ == "__main__":
    sys.exit(main())
