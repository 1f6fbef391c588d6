"""The program in the jail: reads plays from its standard input, writes how each ended to its standard output.

It can write only to the jail, a tmpfs of its own: in its mount namespace all that was mounted before is read-only. The
library's calls with paths of any kind, as root too, can then do no harm, and everything that they can change is
looked at after each play.
"""

import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import resource
import struct
import sys
from pathlib import Path
from typing import Final

from support.kernel import (
    AT_FDCWD,
    LIBC,
    become_dumpable,
    checked,
    enter_private_mount_namespace,
)

from fuzz.perform import perform

_LENGTH: Final = struct.Struct("=Q")
_SECONDS: Final = int(os.environ.get("ATOMIK_FUZZ_PATIENCE", "60"))

# Another user than root may not be able to read where root's Python is.
_NEEDED_LATER: Final = (
    "atomik._async",
    *(f"encodings.{name}" for name in ("ascii", "idna", "latin_1", "utf_7", "utf_8_sig", "utf_16")),
)

# mount_setattr(2), the same number on every architecture; Linux 5.12.
_MOUNT_SETATTR: Final = 442
_AT_RECURSIVE: Final = 0x8000
_RDONLY: Final = 1
_MS_SLAVE: Final = 1 << 19
_MS_NOSUID_NODEV: Final = 2 | 4


def confine(jail: Path, user: int) -> None:
    """Makes `jail` the one place where this program can write, and becomes `user`."""
    enter_private_mount_namespace()
    # A slave: what others unmount goes here too, and does not stay busy for this program.
    attributes = struct.pack("=QQQQ", _RDONLY, 0, _MS_SLAVE, 0)
    size = ctypes.c_size_t(len(attributes))
    checked(LIBC.syscall(_MOUNT_SETATTR, AT_FDCWD, b"/", _AT_RECURSIVE, attributes, size))
    checked(
        LIBC.mount(b"jail", os.fsencode(jail), b"tmpfs", _MS_NOSUID_NODEV, b"size=64m,mode=0755")
    )
    os.chown(jail, user, user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if user:
        become_dumpable()
    os.umask(0o022)


def main() -> None:
    jail, user = Path(sys.argv[1]), int(sys.argv[2])
    for name in _NEEDED_LATER:
        importlib.import_module(name)
    confine(jail, user)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Threads that take turns after every few bytecodes meet in more places.
    sys.setswitchinterval(1e-5)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # What the plays make is all that the collector has to look at after each of them.
    gc.freeze()
    while header := requests.read(_LENGTH.size):
        play = pickle.loads(requests.read(*_LENGTH.unpack(header)))
        # A play that hangs ends this program, with a traceback of every thread.
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        answer = pickle.dumps(perform(play, jail))
        faulthandler.cancel_dump_traceback_later()
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    faulthandler.enable()
    main()
