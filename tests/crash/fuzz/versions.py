"""What `io` and a plain `mkdir` make of a payload: the version that must be found after a commit."""

import io
import os
from contextlib import ExitStack
from typing import Any, TypeAlias

from fuzz import stage
from fuzz.arguments import made
from fuzz.plays import Play

Version: TypeAlias = "bytes | dict[bytes, bytes | None] | None"
"""A file's content, that of each thing below a folder, or nothing."""


def expected(play: Play, present: Version) -> Version:
    """Returns what `io` and a plain `mkdir` would have made of the payload, and of what was there before."""
    base = present if isinstance(present, dict) and play.options.get("update") else {}
    payload = play.payload
    match play.call:
        case "folder":
            return {**base, b"/inside": in_bytes(payload), **_grown(play.depth)}
        case "path" if play.depth:
            return {**base, **_grown(play.depth)}
        case "path":
            return in_bytes(payload)
        case "write_bytes":
            data: Any = _plain(play.arguments[1])
            return memoryview(data).tobytes()
        case "write_text":
            text: Any = _plain(play.arguments[1])
            return _encoded(str.__str__(text), play, io.BytesIO())
        case _:
            mode = play.options.get("mode", "w")
            assert isinstance(mode, str)
            buffer = io.BytesIO()
            if isinstance(present, bytes) and ("a" in mode or "r" in mode):
                buffer = io.BytesIO(present)
            buffer.seek(0, io.SEEK_END if "a" in mode else io.SEEK_SET)
            if "b" not in mode:
                return _encoded(in_text(payload), play, buffer)
            buffer.write(in_bytes(payload))
            return buffer.getvalue()


def _grown(depth: int) -> dict[bytes, None]:
    if depth == 0:
        return {}
    folders = [*stage.chain(depth), *stage.ends(depth)]
    return {b"/" + os.fsencode(folder): None for folder in folders}


def _encoded(text: str, play: Play, buffer: io.BytesIO) -> bytes:
    options = {name: play.options.get(name) for name in ("encoding", "errors", "newline")}
    with io.TextIOWrapper(buffer, **options) as wrapper:  # type: ignore[arg-type]
        wrapper.write(text)
        wrapper.flush()
        return buffer.getvalue()


def in_bytes(payload: object) -> bytes:
    payload = _plain(payload)
    return payload if isinstance(payload, bytes) else str(payload).encode(errors="replace")


def in_text(payload: object) -> str:
    payload = _plain(payload)
    return payload if isinstance(payload, str) else repr(payload)


def _plain(payload: object) -> object:
    with ExitStack() as undo:
        return made(payload, undo)
