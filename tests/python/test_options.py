"""Options: a call takes those that its signature names, and no others."""

import inspect
from collections.abc import Callable
from typing import Any, Final

import atomik
import pytest

FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "file": ("x",),
    "folder": ("x",),
    "path": ("x",),
    "write_bytes": ("x", b""),
    "write_text": ("x", ""),
    "rename": ("x", "y"),
    "exchange": ("x", "y"),
    "sweep": ("x",),
    "group": (),
    "Group.file": ("x",),
    "Group.folder": ("x",),
    "Group.path": ("x",),
    "Group.write_bytes": ("x", b""),
    "Group.write_text": ("x", ""),
}
"""Each function with options, and arguments for its parameters without a default."""


def named(name: str) -> Callable[..., Any]:
    method = name.removeprefix("Group.")
    found: Callable[..., Any] = getattr(atomik if method == name else atomik.Group, method)
    return found


def options(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(named(name)).parameters
    return {it: found for it, found in parameters.items() if found.default is not found.empty}


ALL: Final = sorted({option for name in FUNCTIONS for option in options(name)})


@pytest.fixture
def call(name: str) -> Callable[..., Any]:
    """The function with its arguments; a method with a group that nothing else uses."""
    function = named(name)

    def alone(**given: Any) -> None:
        function(*FUNCTIONS[name], **given)

    def of_a_group(**given: Any) -> None:
        with atomik.group() as group:
            function(group, *FUNCTIONS[name], **given)

    return of_a_group if name.startswith("Group.") else alone


@pytest.mark.parametrize("option", ALL)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_takes_the_options_of_its_signature_and_no_others(
    name: str, call: Callable[..., Any], option: str
) -> None:
    with pytest.raises(TypeError) as caught:
        call(**{option: object()})
    if option in options(name):
        assert caught.value.__notes__ == [f"while processing '{option}'"]
    else:
        assert str(caught.value) == f"{name}() got an unexpected keyword argument '{option}'"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_options_of_all_functions_but_the_oldest_are_given_by_name(name: str) -> None:
    by_position = [
        it for it, found in options(name).items() if found.kind is not found.KEYWORD_ONLY
    ]
    first_release = {
        "file": ["mode", "overwrite", "tmp_dir"],
        "folder": ["overwrite", "tmp_dir"],
        "Group.file": ["mode", "overwrite"],
        "Group.folder": ["overwrite"],
    }
    assert by_position == first_release.get(name, [])
