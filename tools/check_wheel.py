"""Checks that a wheel is what it says: stable ABI, no newer glibc than manylinux2014's 2.17, one unwinder."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIMITS = {"GLIBC": (2, 17), "GCC": (4, 8)}
"""The newest symbol versions that manylinux2014 allows."""


def symbol_versions(library: Path) -> set[tuple[str, tuple[int, ...]]]:
    """The versions of all symbols that the library takes from others."""
    symbols = subprocess.run(
        ["objdump", "--dynamic-syms", library], check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"\*UND\*.*\(?\b([A-Z]+)_([0-9.]+)\b\)?", symbols)
    return {(family, tuple(map(int, version.split(".")))) for family, version in found}


def problems(wheel: Path) -> list[str]:
    """All that is wrong with the wheel."""
    found: list[str] = []
    _, _, interpreter, abi, platform = wheel.stem.split("-")
    if (interpreter, abi) != ("cp311", "abi3"):
        found.append(f"the tag is {interpreter}-{abi}, not cp311-abi3")
    if "manylinux_2_17" not in platform:
        found.append(f"the platform tag {platform} has no manylinux_2_17")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = [name for name in names if name.endswith(".so")]
        if libraries != ["atomik/_atomik.abi3.so"]:
            found.append(f"the libraries are {libraries}")
        found += [
            f"{name} is missing"
            for name in ("atomik/__init__.py", "atomik/_atomik.pyi", "atomik/py.typed")
            if name not in names
        ]
        if not any(re.fullmatch(r".*\.dist-info/licenses/LICENSE", name) for name in names):
            found.append("the licence is missing")
        for name in libraries:
            versions = symbol_versions(Path(archive.extract(name, folder)))
            found += [
                f"{name} needs {family} {'.'.join(map(str, version))}"
                for family, version in sorted(versions)
                if version > LIMITS.get(family, (0,))
            ]
            if not any(family == "GCC" for family, _ in versions):
                found.append(f"{name} does not unwind by the shared libgcc_s (see the Makefile)")
            if not versions:
                found.append(f"no symbol versions found in {name}")
            newest = max((v for family, v in versions if family == "GLIBC"), default=())
            print(f"{wheel.name}: needs glibc {'.'.join(map(str, newest))}")
    return found


def main() -> int:
    """Checks the wheels that are named on the command line."""
    found = [f"{wheel}: {problem}" for wheel in sys.argv[1:] for problem in problems(Path(wheel))]
    for problem in found:
        print(problem, file=sys.stderr)
    return bool(found) or len(sys.argv) == 1


if __name__ == "__main__":
    sys.exit(main())
