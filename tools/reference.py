"""Makes the stub readable for the page "Python reference". An extension of Griffe, which mkdocstrings reads with."""

import re

import griffe


class Reference(griffe.Extension):
    """Joins overloads into one function, and names the sections of docstrings as Griffe knows them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Mends the docstring of anything, also of an overload."""
        del kwargs
        mend_docstring(obj)

    def on_module_members(self, *, mod: griffe.Module, **kwargs: object) -> None:
        """Adds the functions of a stub that are overloads only."""
        del kwargs
        add_overloaded(mod)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: object) -> None:
        """Adds the methods of a class that are overloads only, at their place."""
        del kwargs
        add_overloaded(cls)
        in_order = sorted(cls.members.items(), key=lambda member: member[1].lineno or 0)
        cls.members.clear()
        cls.members.update(in_order)


def mend_docstring(thing: griffe.Object) -> None:
    """Gives examples the title that Griffe knows, each parameter its line, and the sources their own paragraph."""
    if thing.docstring is not None:
        text = re.sub(r"(?m)^Example:$", "Examples:", thing.docstring.value)
        text = re.sub(r"(?m)^Source:", "\nSource:", text)
        thing.docstring.value = re.sub(SEVERAL, each_by_itself, text)


SEVERAL = re.compile(r"^    (\w+(?:,\s+\w+)+):(.*(?:\n {8}.*)*)$", re.MULTILINE)
"""Parameters that share a line of `Args:`, and what is said of them."""


def each_by_itself(line: re.Match[str]) -> str:
    """The line once for each of its parameters."""
    return "\n".join(f"    {name}:{line[2]}" for name in re.split(r",\s+", line[1]))


def add_overloaded(owner: griffe.Module | griffe.Class) -> None:
    """Adds each function that has overloads and no implementation: Griffe leaves it out."""
    for name, overloads in owner.overloads.items():
        if name not in owner.members:
            owner.set_member(name, joined(overloads))


def joined(overloads: list[griffe.Function]) -> griffe.Function:
    """One function that takes and returns what any of its overloads does; the first has defaults and docstring."""
    first = overloads[0]
    parameters = [
        griffe.Parameter(
            parameter.name,
            kind=parameter.kind,
            annotation=union(
                [overload.parameters[parameter.name].annotation for overload in overloads]
            ),
            default=parameter.default,
        )
        for parameter in first.parameters
    ]
    return griffe.Function(
        first.name,
        lineno=first.lineno,
        endlineno=overloads[-1].endlineno,
        parameters=griffe.Parameters(*parameters),
        returns=union([overload.returns for overload in overloads]),
        docstring=first.docstring,
    )


def union(annotations: list[str | griffe.Expr | None]) -> griffe.Expr | str | None:
    """The annotations joined by `|`, each once; `str` or `int` by itself takes what literals beside it take."""
    parts: dict[str, griffe.Expr | str] = {}
    for annotation in annotations:
        for part in members(annotation):
            parts.setdefault(str(part), part)
    for plain in ("str", "int"):
        if plain in map(str, annotations):
            return parts[plain]
    result: griffe.Expr | str | None = None
    for part in parts.values():
        result = part if result is None else griffe.ExprBinOp(result, "|", part)
    return result


def members(annotation: str | griffe.Expr | None) -> list[griffe.Expr | str]:
    """The types of a union."""
    if annotation is None:
        return []
    if isinstance(annotation, griffe.ExprBinOp) and annotation.operator == "|":
        return [*members(annotation.left), *members(annotation.right)]
    return [annotation]
