"""Makes our docstrings read well as Markdown: they are written to read well in `help()`."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Rewrites docstrings and drops annotations that say nothing, before pages are rendered."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._visit(pkg)

    def _visit(self, module: griffe.Module) -> None:
        for member in module.members.values():
            if member.is_alias:
                continue
            if member.is_module:
                self._visit(member)
            if member.is_class:
                _fields(member)
            if member.docstring:
                member.docstring.value = _markdown(member.docstring.value)
            for parameter in member.parameters if member.is_function else ():
                if str(parameter.annotation) == "Any":
                    parameter.annotation = None


def _markdown(text: str) -> str:
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)  # the indented block is code as it stands
    text = re.sub(r"^( +\w+: )>", r"\1\\>", text, flags=re.MULTILINE)  # "eps: > 0" is no quotation
    return re.sub(r"\bDepartures(:| as\b)", r"**Departures**\1", text)


def _fields(state: griffe.Class) -> None:
    """Lists the fields of a state, each described by the comment behind it."""
    fields = [member for member in state.members.values() if member.is_attribute]
    if state.docstring and fields:
        comments = [field.source.partition("#")[2].strip() or "see above." for field in fields]
        lines = [f"    {f.name}: {comment}" for f, comment in zip(fields, comments, strict=True)]
        state.docstring.value = "\n".join([state.docstring.value, "", "Attributes:", *lines])
