"""How plays are made: mostly right, with few things wrong at a time, since the first wrong one ends a call."""

from typing import Final

from hypothesis import strategies as st

from fuzz.arguments import BUFFERS, DESCRIPTORS, WRONG
from fuzz.plays import MAKING, PLAIN, WRITING, Made, Play, Step
from fuzz.stage import AROUND, THERE
from fuzz.verbs import verbs

# --- Paths ---


def _repeated(byte: bytes, count: int) -> bytes:
    return byte * count


_PARTS: Final = st.one_of(
    st.sampled_from(
        [b"dest", b"sub", b"link", b"other", b"bystander", b"new", b".", b"..", b"", b"chain1"]
    ),
    st.sampled_from(
        [
            b".atomik-0.dest~",
            b".atomik-u64101.dest~",
            b".atomik-lock.dest~",
            b".atomik-0-0123456789abcdef.dest~",
            b".atomik-sweep.dest~",
            b".atomik-0.dest",
            b".atomik-",
        ]
    ),
    st.binary(max_size=6),
    # Around NAME_MAX, and where the name of a slot is shortened.
    st.builds(_repeated, st.sampled_from([b"n", b"\xff", b"\xc3"]),
              st.one_of(st.integers(101, 107), st.integers(238, 257))),
)  # fmt: skip
_SOME_BYTES: Final = st.one_of(
    st.just(b"dest"),
    st.lists(_PARTS, min_size=1, max_size=4).map(b"/".join),
    # Around PATH_MAX.
    st.integers(2030, 2060).map(lambda count: b"./" * count + b"dest"),
    st.sampled_from(
        [b"/", b"//", b"/etc/passwd", b"/proc/self/fd/0", b"/proc/self/cwd/dest", b"/dev/null"]
    ),
)
_TEXTS: Final = st.one_of(
    _SOME_BYTES.map(lambda path: path.decode(errors="surrogateescape")),
    st.text(max_size=8),
    # A surrogate that stands for no byte.
    st.sampled_from(["dest", "new", "sub/new", "\ud800"]),
)
_PLAIN_PATHS: Final = st.one_of(
    st.just("dest"),
    _TEXTS,
    _SOME_BYTES,
    st.builds(Made, st.just("absolute"), st.one_of(_TEXTS, _SOME_BYTES)),
)
PATHS: Final = st.one_of(
    st.sampled_from(["dest", b"dest", "new", "sub/new", "../above", "dest/below"]),
    _PLAIN_PATHS,
    st.builds(Made, st.just("path"), _PLAIN_PATHS),
    st.builds(Made, st.just("text"), _TEXTS),
)

# --- Wrong values ---

_WRONG: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**63, 2**64, -1, -100, -2]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
    st.builds(Made, st.sampled_from([*WRONG, *BUFFERS, *DESCRIPTORS])),
    st.builds(Made, st.just("path"), st.one_of(st.none(), st.integers(), st.just(Made("raising")))),
    st.builds(Made, st.just("number"), st.integers()),
)

# --- Options ---

_DESCRIPTOR: Final = st.one_of(st.none(), st.builds(Made, st.sampled_from(DESCRIPTORS)))
_OPTION: Final[dict[str, st.SearchStrategy[object]]] = {
    "mode": st.one_of(
        st.sampled_from(["w", "wb", "x", "xb", "w+", "w+b", "wt", "a", "ab", "a+", "r+", "rb+"]),
        st.sampled_from(["w", "wb", "x", "xb", "r", "ra", "r+a", "", "wx", "bb", "U"]),
        st.text(alphabet="rwaxbt+U \0", max_size=4),
    ),
    "overwrite": st.booleans(),
    "tmp_dir": st.one_of(st.none(), st.sampled_from(["sub", "other", "..", "dest", "/", "/proc"]), PATHS),
    "durability": st.sampled_from(
        ["full", "ordered", "none", "full", "ordered", "none", "FULL", "", "none\0", "\ud800"]
    ),
    "encoding": st.sampled_from(
        [None, "utf-8", "UTF-8", "utf8", "latin-1", "utf-16", "utf-8-sig", "utf-7", "ascii", "idna", "hex", "?", "\0"]
    ),
    "errors": st.sampled_from([None, "strict", "ignore", "surrogateescape", "replace", "no such", ""]),
    "newline": st.sampled_from([None, "", "\n", "\r", "\r\n", "x", "\0"]),
    "buffering": st.sampled_from([-1, 0, 1, 2, 7, 8192, 1 << 20, -2, -(2**31)]),
    "permissions": st.one_of(st.none(), st.integers(0, 0o7777), st.integers(-1, 0o10000)),
    "preserve": st.booleans(),
    "follow_symlinks": st.booleans(),
    "dir_fd": _DESCRIPTOR,
    "whiteout": st.booleans(),
    "src_dir_fd": _DESCRIPTOR,
    "dst_dir_fd": _DESCRIPTOR,
    "a_dir_fd": _DESCRIPTOR,
    "b_dir_fd": _DESCRIPTOR,
    "backup": st.one_of(
        st.none(),
        st.sampled_from(["before", "before", "./before", "bystander", "other", "dest", "link", "sub/before"]),
        st.sampled_from([".atomik-0.dest~", ".atomik-u0.dest~", ".atomik-lock.dest~", ".", "..", "", "/", "n" * 256]),
        PATHS,
    ),
    "update": st.booleans(),
    "cleanup": st.sampled_from(["inline", "background", "inline", "background", "", "background\0"]),
    "recursive": st.booleans(),
    "dry_run": st.booleans(),
    "older_than": st.sampled_from([None, 0, 0.0, -1, 1e-9, 3600, 1e300, float("nan"), float("inf"), -0.0]),
    "": st.none(),
}  # fmt: skip
_COMMON: Final = (
    "overwrite",
    "durability",
    "permissions",
    "preserve",
    "follow_symlinks",
    "tmp_dir",
    "dir_fd",
    "backup",
)
_TEXT_LAYER: Final = ("encoding", "errors", "newline")
_OPTIONS: Final = {
    "file": (*_COMMON, *_TEXT_LAYER, "mode", "buffering"),
    "folder": (*_COMMON, "update", "cleanup"),
    "path": (*_COMMON, "update", "cleanup"),
    "write_bytes": _COMMON,
    "write_text": (*_COMMON, *_TEXT_LAYER),
    "rename": ("overwrite", "whiteout", "src_dir_fd", "dst_dir_fd"),
    "exchange": ("a_dir_fd", "b_dir_fd"),
    "swap": ("a_dir_fd", "b_dir_fd"),
    "renameat2": (),
    "snapshot": (),
    "sweep": ("recursive", "dry_run", "older_than"),
    "probe": (),
}

_FLAGS: Final = st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1))
_DIRECTORY: Final = st.one_of(st.just(-100), st.builds(Made, st.sampled_from(DESCRIPTORS)))
_DATA: Final = st.one_of(
    st.binary(max_size=20),
    st.builds(Made, st.just("bytes"), st.integers(0, 1 << 17)),
    st.binary(max_size=20).map(bytearray),
    st.builds(Made, st.sampled_from(BUFFERS)),
)
_TEXT: Final = st.one_of(
    st.text(max_size=20), st.just("\udcff"), st.builds(Made, st.just("text"), st.just("a\nb"))
)
# None above the stage: to look through all that this machine has takes too long.
_SWEPT: Final = st.one_of(
    st.sampled_from([".", b".", "dest", "sub", "link", "other", "..", "bystander", "new", "", "\0", "\ud800"]),
    st.builds(Made, st.just("path"), st.sampled_from([".", b"sub", "dest"])),
    st.builds(Made, st.just("absolute"), st.sampled_from([".", b"dest"])),
)  # fmt: skip
_PAYLOADS: Final = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.builds(Made, st.sampled_from(["letters", "bytes"]), st.integers(0, 1 << 17)),
)
# Around 32, where walks change from the stack to a table.
_DEPTHS: Final = st.one_of(st.just(0), st.just(0), st.integers(1, 3), st.integers(28, 70))


def _arguments(call: str) -> st.SearchStrategy[tuple[object, ...]]:
    match call:
        case "write_bytes":
            return st.tuples(PATHS, _DATA)
        case "write_text":
            return st.tuples(PATHS, _TEXT)
        case "rename" | "exchange" | "swap":
            return st.tuples(PATHS, PATHS)
        case "sweep":
            return st.tuples(_SWEPT)
        case "renameat2":
            return st.tuples(_DIRECTORY, PATHS, _DIRECTORY, PATHS, _FLAGS)
        case _:
            return st.tuples(PATHS)


# --- Plays ---

_LITTER: Final = st.lists(st.sampled_from(sorted(THERE)), max_size=6).map(tuple)


def _one_in(times: int) -> st.SearchStrategy[bool]:
    # integers() would prefer its ends.
    return st.sampled_from([*[False] * (times - 1), True])


@st.composite
def calls(draw: st.DrawFn) -> Play:
    """Any call with any arguments; what it makes is entered, filled and published."""
    call = draw(st.sampled_from(sorted(_OPTIONS)))
    arguments = list(draw(_arguments(call)))
    options: dict[str, object] = {}
    for name in draw(
        st.sets(st.sampled_from([*_OPTIONS[call], *_OPTIONS[call], *_OPTION]), max_size=5)
    ):
        # A name that the call does not have is wrong itself.
        if name in _OPTIONS[call] or draw(_one_in(40)):
            options[name] = draw(_OPTION[name])
    if draw(_one_in(4)):
        wrong = draw(st.integers(0, len(arguments) + len(options) - 1))
        if wrong < len(arguments):
            arguments[wrong] = draw(_WRONG)
        else:
            options[list(options)[wrong - len(arguments)]] = draw(_WRONG)
    if draw(_one_in(40)):
        del arguments[draw(st.integers(0, len(arguments) - 1))]
    return Play(
        call,
        tuple(arguments),
        options,
        payload=draw(_PAYLOADS),
        depth=draw(_DEPTHS),
        there=draw(st.sampled_from(sorted(THERE))),
        around=draw(st.one_of(st.just("nothing"), st.sampled_from(sorted(AROUND)))),
        litter=draw(_LITTER),
        threads=(PLAIN,),
        warnings_are_errors=draw(st.booleans()),
    )  # fmt: skip


_NAMES: Final = st.sampled_from(
    ["destination", "staging", "committed", "__dict__", "__class__", "__doc__", "__enter__", "ring", "", "\0", "\ud800"]
)  # fmt: skip
_OF: Final[dict[str, st.SearchStrategy[object]]] = {
    "exit with an error": st.one_of(
        st.none(), st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=2)), max_size=4).map(tuple)
    ),
    "pickle": st.integers(0, 6),
    "reduce": st.integers(0, 5),
    "drop": st.sampled_from(["both", "body", "guard"]),
    "nest": st.sampled_from(["file", "folder"]),
    "getattr": _NAMES,
    "setattr": _NAMES,
    "delattr": _NAMES,
    "write": st.one_of(st.text(max_size=5), st.binary(max_size=5), st.none()).map(lambda it: (it,)),
    "writelines": st.lists(st.one_of(st.text(max_size=2), st.binary(max_size=2)), max_size=3).map(lambda it: (it,)),
    "read": st.lists(st.integers(-2, 5), max_size=1).map(tuple),
    "seek": st.tuples(st.one_of(st.integers(-5, 50), st.sampled_from([2**31, 2**62, 2**63])), st.integers(-1, 4)),
    "truncate": st.lists(st.one_of(st.integers(-2, 1 << 16), st.just(2**63)), max_size=1).map(tuple),
    "__exit__": st.just((None, None, None)),
    "__reduce_ex__": st.integers(0, 5).map(lambda protocol: (protocol,)),
}  # fmt: skip
_OFTEN: Final = (
    "fill",
    "fill",
    "commit",
    "rollback",
    "exit",
    "exit with an error",
    "drop",
    "nest",
    "let go",
)


def _steps(call: str) -> st.SearchStrategy[Step]:
    def steps(verb: str) -> st.SearchStrategy[Step]:
        return st.builds(Step, st.just(verb), _OF.get(verb, st.none()))

    often = [verb for verb in _OFTEN if verb in verbs(call)]
    return st.sampled_from([*often, *verbs(call), *verbs(call)]).flatmap(steps)


_STEPS: Final = {call: _steps(call) for call in MAKING}


@st.composite
def sequences(draw: st.DrawFn) -> Play:
    """A right call, and then anything in any order, in up to four threads."""
    call = draw(st.sampled_from(MAKING))
    options: dict[str, object] = {}
    if call in WRITING:
        options |= {"overwrite": draw(st.booleans()), "durability": "none"}
    if call == "file":
        options["mode"] = draw(
            st.sampled_from(["w", "w+", "wb", "w+b", "x", "a", "ab+", "r+", "r+b"])
        )
        if options["mode"] == "x":
            options["overwrite"] = False
        options["buffering"] = draw(
            st.sampled_from([-1, -1, 1, 2, 0 if "b" in str(options["mode"]) else 8192])
        )
    elif call in WRITING:
        options["update"] = draw(_one_in(3))
        options["cleanup"] = draw(st.sampled_from(["inline", "background"]))
    if call in WRITING and draw(_one_in(4)):
        options["backup"] = draw(st.sampled_from(["before", "other", "link"]))
    elif call in WRITING and draw(_one_in(4)):
        # Staged with a name, which files otherwise have none of.
        options["tmp_dir"] = "other"
    start = [] if draw(_one_in(10)) else [Step("enter")]
    first = (*start, *draw(st.lists(_STEPS[call], max_size=8)))
    others = draw(st.lists(st.lists(_STEPS[call], min_size=1, max_size=5).map(tuple), max_size=4))
    return Play(
        call,
        ("dest",),
        options,
        payload=draw(_PAYLOADS),
        depth=draw(_DEPTHS),
        there=draw(st.sampled_from(["missing", "missing", "file", "folder", "deep folder", "link to a folder"])),
        litter=draw(st.one_of(st.just(()), _LITTER)),
        threads=(first, *others),
        warnings_are_errors=draw(st.booleans()),
    )  # fmt: skip
