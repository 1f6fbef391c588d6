"""What can be done with a guard, with what its body got, and beside both."""

import copy
import gc
import io
import os
import pickle
import weakref
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import atomik

from fuzz import stage
from fuzz.run import BODY, CALL, GUARD, OBJECT, Errors, Run
from fuzz.versions import in_bytes, in_text

Verb = Callable[[Run, Any, Any, object], object]
"""Does something with a guard and what its body got, and with what the step has besides."""


def _fill(run: Run, guard: Any, body: Any, _: object) -> None:
    payload = run.play.payload
    if isinstance(guard, atomik.Folder):
        _write(body / "inside", in_bytes(payload))
        stage.grow(body, run.play.depth)
    elif isinstance(guard, atomik.Snapshot):
        os.listdir(body)
    elif isinstance(guard, atomik.Entry) and run.play.depth:
        body.mkdir(exist_ok=True)
        stage.grow(body, run.play.depth)
    elif isinstance(guard, atomik.Entry):
        _write(body, in_bytes(payload))
    elif isinstance(body, io.TextIOBase):
        body.write(in_text(payload))
    else:
        # A raw file may write less than it was given.
        rest = memoryview(in_bytes(payload))
        while rest:
            rest = rest[body.write(rest) :]


def _write(path: Path, data: bytes) -> None:
    # A step before may have made it a FIFO, which open(2) would wait at.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)


def _enter(run: Run, guard: Any, _body: Any, _: object) -> None:
    run.body = guard.__enter__()


def _exit(_run: Run, guard: Any, _body: Any, _: object) -> None:
    guard.__exit__(None, None, None)


def _exit_with_an_error(_run: Run, guard: Any, _body: Any, of: object) -> None:
    if of is None:
        guard.__exit__(KeyError, KeyError(), None)
    else:
        guard.__exit__(*of if isinstance(of, tuple) else (of,))


def _async(method: str) -> Verb:
    def make_and_drop(_run: Run, guard: Any, _body: Any, _: object) -> None:
        # Made, never awaited: nothing is entered, nothing ended.
        getattr(guard, method)().close()

    return make_and_drop


def _class(guard: object) -> Any:
    """Returns the class, to be used as no type checker would let it."""
    return type(guard)


def _subclass(_run: Run, guard: Any, _body: Any, _: object) -> None:
    with suppress(TypeError):
        type("Sub", (_class(guard),), {})
        raise AssertionError("a guard's class can be subclassed")


def _look(_run: Run, guard: Any, _body: Any, _: object) -> None:
    _ = (guard.destination, guard.staging, guard.committed)  # looking is the test


def _drop(run: Run, _guard: Any, _body: Any, of: object) -> None:
    if of != "body":
        run.guard = None
    if of != "guard":
        run.body = None


def _nest(run: Run, _guard: Any, _body: Any, of: object) -> None:
    """Publishes the same destination in the body, perhaps with another kind of version."""
    path = run.play.arguments[0]
    if of == "folder":
        with atomik.folder(path, True, durability="none") as inner:  # type: ignore[arg-type]
            (inner / "inside").touch()
    else:
        atomik.write_bytes(path, b"nested", overwrite=True, durability="none")  # type: ignore[arg-type]


def _reenter(_run: Run, guard: Any, _body: Any, _: object) -> None:
    with guard:
        pass


def _in_the_body(name: str) -> Verb:
    def call(_run: Run, _guard: Any, body: Any, of: object) -> None:
        getattr(body, name)(*(of if isinstance(of, tuple) else ()))

    return call


def _layer(*names: str) -> Verb:
    def call(_run: Run, _guard: Any, body: Any, _: object) -> None:
        *layers, method = names
        for layer in layers:
            body = getattr(body, layer)
        getattr(body, method)()

    return call


def _cycle(run: Run, guard: Any, body: Any, _: object) -> None:
    # Only the garbage collector ends this guard.
    ring: list[object] = [guard, body]
    ring.append(ring)
    with suppress(AttributeError):
        body.ring = ring
    run.guard = run.body = None


def _staged(change: Callable[[Path], object]) -> Verb:
    def on_the_path(_run: Run, _guard: Any, body: Any, _: object) -> None:
        if isinstance(body, Path):
            change(body)

    return on_the_path


def _swap_for_a_link(body: Path) -> None:
    if body.is_dir():
        body.rename(body.with_name("elsewhere"))
    body.symlink_to("elsewhere")


def _remove(body: Path) -> None:
    if body.is_dir():
        stage.raze(body)
    else:
        body.unlink(missing_ok=True)


def _close_folder(body: Path) -> None:
    (body / "deep").mkdir()
    (body / "deep" / "file").touch()
    (body / "deep").chmod(0)


_ON_THE_OBJECT: Final[Mapping[str, Verb]] = {
    "copy": lambda _r, guard, _b, _: copy.copy(guard),
    "deepcopy": lambda _r, guard, _b, _: copy.deepcopy(guard),
    "pickle": lambda _r, guard, _b, of: pickle.dumps(guard, of if isinstance(of, int) else 2),
    "getattr": lambda _r, guard, _b, of: getattr(guard, str(of)),
    "setattr": lambda _r, guard, _b, of: setattr(guard, str(of), of),
    "delattr": lambda _r, guard, _b, of: delattr(guard, str(of)),
    "repr": lambda _r, guard, _b, _: (repr(guard), str(guard), hash(guard), dir(guard)),
    "compare": lambda _r, guard, _b, of: (guard == of, guard != guard, guard < of),
    "call it": lambda _r, guard, _b, of: guard(of),
    "iterate": lambda _r, guard, _b, _: list(guard),
    "instantiate": lambda _r, guard, _b, of: _class(guard)(of),
    "new": lambda _r, guard, _b, _: object.__new__(_class(guard)),
    "reinitialise": lambda _r, guard, _b, of: guard.__init__(of),
    "reduce": lambda _r, guard, _b, of: guard.__reduce_ex__(of),
    "change its class": lambda _r, guard, _b, _: setattr(guard, "__class__", atomik.Folder),
    "weak reference": lambda _r, guard, _b, _: weakref.ref(guard),
    "generic": lambda _r, guard, _b, of: _class(guard)[of],
    "subclass": _subclass,
}
_ON_A_FILE: Final[Mapping[str, Verb]] = {
    **{
        name: _in_the_body(name)
        for name in (
            "write",
            "writelines",
            "read",
            "readline",
            "seek",
            "tell",
            "truncate",
            "flush",
            "detach",
            "close",
            "fileno",
            "isatty",
            "reconfigure",
            "__exit__",
            "__del__",
            "__next__",
            "__reduce_ex__",
        )
    },
    "close the buffer": _layer("buffer", "close"),
    "detach the buffer": _layer("buffer", "detach"),
    "close the raw file": _layer("raw", "close"),
    "close the innermost": _layer("buffer", "raw", "close"),
}
_ON_A_PATH: Final[Mapping[str, Verb]] = {
    "make it a folder": _staged(Path.mkdir),
    "make it a file": _staged(lambda body: body.touch()),
    "make it a FIFO": _staged(os.mkfifo),
    "make it a link": _staged(_swap_for_a_link),
    "remove it": _staged(_remove),
    "rename it": _staged(lambda body: body.rename(body.with_name("moved"))),
    "close it to all": _staged(lambda body: body.chmod(0)),
    "close a folder in it": _staged(_close_folder),
    "remove its slot": _staged(lambda body: stage.raze(body.parent)),
    "go into it": _staged(os.chdir),
    "leave something beside it": _staged(lambda body: (body.parent / "beside").touch()),
}
ON_THE_BODY: Final = {"fill": _fill, "cycle": _cycle, **_ON_A_FILE, **_ON_A_PATH}
_ON_THE_GUARD: Final[Mapping[str, Verb]] = {
    "enter": _enter,
    "exit": _exit,
    "exit with an error": _exit_with_an_error,
    "commit": lambda _r, guard, _b, _: guard.commit(),
    "rollback": lambda _r, guard, _b, _: guard.rollback(),
    "let go": lambda _r, guard, _b, _: guard.close(),
}
_OF_A_NEW_VERSION: Final = {"commit", "rollback", "look", *_ON_A_FILE, *_ON_A_PATH}
VERBS: Final[Mapping[str, Verb]] = {
    **_ON_THE_GUARD,
    "look": _look,
    "enter later": _async("__aenter__"),
    "exit later": _async("__aexit__"),
    "with": _reenter,
    "drop": _drop,
    "collect garbage": lambda _r, _g, _b, _: gc.collect(),
    "nest": _nest,
    **_ON_THE_OBJECT,
    **ON_THE_BODY,
}


def verbs(call: str) -> list[str]:
    """Lists what can be done with the guard that a call returns."""
    others: Container[str]
    match call:
        case "snapshot":
            # What is read is the destination itself: what the body does to it, it has done to that.
            others = _OF_A_NEW_VERSION
        case "file":
            others = {"let go", *_ON_A_PATH}
        case _:
            others = {"let go", *_ON_A_FILE}
    return [verb for verb in VERBS if verb not in others]


def may_raise(verb: str) -> Errors:
    """Says which errors are documented answers to a verb."""
    if verb == "nest":
        return CALL
    if verb in _ON_THE_GUARD:
        return GUARD
    return OBJECT if verb in _ON_THE_OBJECT else BODY
