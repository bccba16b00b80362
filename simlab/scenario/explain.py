"""Turns what pydantic finds into problems a person can repair: where, what was read, what is allowed, nearest key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from simlab.errors import Problem
from simlab.names import likeness, nearest
from simlab.scenario.base import CHECKS, Fault
from simlab.scenario.tree import Key, Node

Loc = tuple[Key, ...]

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "list_type": "a list",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("gt", "must be above {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be below {}"),
    "less_than_equal": ("le", "must be at most {}"),
}


def problems(error: ValidationError, model: type[BaseModel], root: Node) -> list[Problem]:
    """Every problem in a failed validation of ``root``, in the order of the file."""
    found: list[tuple[Loc, Problem]] = []
    misspelt: set[Loc] = set()
    for detail in error.errors(include_url=False):
        loc = tuple(detail["loc"])
        path = _data_path(loc, root, missing=detail["type"] == "missing")
        if detail["type"] == CHECKS:
            found += [((*path, *fault.path), at(root, path, fault)) for fault in detail["ctx"]["faults"]]
        elif detail["type"] == "extra_forbidden":
            fields = _fields(model, loc[:-1])
            message, meant = _unknown_key(str(loc[-1]), fields, root, path)
            if meant is not None:
                misspelt.add((*path[:-1], meant))
            found.append((path, Problem(_where(root, path, key=True), _dotted(path), message)))
        elif loc[-1:] == ("[key]",) and detail["type"].startswith("string_"):
            message = f"read the name {path[-1]!r}; names start with a letter or digit, then letters, digits and ._:/- "
            found.append((path, Problem(_where(root, path, key=True), _dotted(path), f"{message}(at most 80)")))
        else:
            is_key = loc[-1:] == ("[key]",)
            raw = path[-1] if is_key else _raw(root, path)
            message = _message(dict(detail), raw, _kinds(model, loc)) + _described(model, loc, detail["type"])
            found.append((path, Problem(_where(root, path, key=is_key), _dotted(path), message)))
    # A misspelt key is one mistake, though pydantic also misses the right one.
    return [problem for path, problem in found if not (path in misspelt and "missing" in problem.message)]


def at(root: Node, path: Loc, fault: Fault) -> Problem:
    """A fault of the model at ``path`` as a problem with its place."""
    full = (*path, *fault.path)
    return Problem(_where(root, full), _dotted(full), fault.message)


def in_order(found: Sequence[Problem]) -> list[Problem]:
    """Problems sorted by line and column, file by file in order of first mention; doubles are dropped."""
    files: dict[str, int] = {}

    def place(problem: Problem) -> tuple[int, int, int]:
        match = re.fullmatch(r"(.*?)(?::(\d+))?(?::(\d+))?", problem.where)
        name, line, column = match.groups() if match else (problem.where, None, None)
        return files.setdefault(name, len(files)), int(line or 0), int(column or 0)

    return sorted(dict.fromkeys(found), key=place)


def _data_path(loc: Loc, root: Node, *, missing: bool) -> Loc:
    """The part of a pydantic location that exists in the data: tags of unions and of keys are left out."""
    path: list[Key] = []
    node: Node | None = root
    for i, part in enumerate(loc):
        child = node.child(part) if node is not None else None
        if child is not None:
            path.append(part)
            node = child
        elif missing and i == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _where(root: Node, path: Loc, *, key: bool = False) -> str:
    """Where a path was written; of one that is missing, where the mapping it is missing from begins."""
    node = root
    for i, part in enumerate(path):
        child = node.child(part)
        if child is None:
            return node.key_where if i > 0 and node.key_where else node.where
        node = child
    return node.key_where if key and node.key_where else node.where


def _raw(root: Node, path: Loc) -> Any:
    node = root
    for part in path:
        child = node.child(part)
        if child is None:
            return None
        node = child
    return node.plain()


def _dotted(path: Loc) -> str:
    return ".".join(str(part) for part in path)


def _shown(raw: Any) -> str:
    if raw is None:
        return "nothing"
    if isinstance(raw, dict):
        return f"a mapping ({', '.join(list(raw)[:4])}{', …' if len(raw) > 4 else ''})" if raw else "an empty mapping"
    if isinstance(raw, list):
        return f"a list of {len(raw)}"
    text = str(raw).lower() if isinstance(raw, bool) else repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _message(detail: dict[str, Any], raw: Any, kinds: Sequence[str]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    read = f"read {_shown(raw)}"
    if kind == "missing":
        return f"missing: give {detail['loc'][-1]}"
    if kind == "quantity":
        return f"{read}: {detail['msg']}"
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        # A share is the one quantity with the upper limit 1, and "95" for 95% the usual slip.
        hint = ": write e.g. 0.95 or 95%" if context[name] == 1 and name == "le" else ""
        return f"{read}; it {text.format(_plain_number(context[name]))}{hint}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        return f"{read}; {_choice(raw, allowed)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        if kind == "union_tag_invalid":
            return f"read kind {context['tag']!r}; {_choice(context['tag'], kinds)}"
        return f"{read}; it needs a kind: {', '.join(kinds)}"
    if kind in _TYPES:
        return f"{read}; it must be {_TYPES[kind]}"
    if kind in ("string_too_short", "too_short"):
        return f"{read}; it needs at least {context['min_length']} {_unit_of_length(kind, context['min_length'])}"
    if kind in ("string_too_long", "too_long"):
        return f"{read}; at most {context['max_length']} {_unit_of_length(kind, context['max_length'])}"
    message = str(detail["msg"])
    return f"{read}; {message[0].lower()}{message[1:]}"


def _unit_of_length(kind: str, count: int) -> str:
    noun = "character" if kind.startswith("string") else "entry"
    return noun if count == 1 else "characters" if noun == "character" else "entries"


def _choice(raw: Any, allowed: Sequence[str]) -> str:
    near = nearest(str(raw), list(allowed), count=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}{'Allowed' if hint else 'allowed'}: {', '.join(allowed)}"


def _plain_number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unknown_key(key: str, fields: dict[str, FieldInfo], root: Node, path: Loc) -> tuple[str, str | None]:
    """The message for a key the model does not have, and the key that was probably meant."""
    written = _raw(root, path[:-1])
    free = [name for name in fields if not (isinstance(written, dict) and name in written)]
    best = nearest(key, list(fields), count=1)
    # Of names about as near, one that is not there yet is more likely to be meant.
    near = [name for name in nearest(key, free, count=1) if likeness(key, name) > likeness(key, best[0]) - 0.1] or best
    hint = f"did you mean {near[0]!r}? Allowed" if near else "allowed"
    return f"unknown key {key!r}; {hint}: {', '.join(fields)}", near[0] if near else None


def _described(model: type[BaseModel], loc: Loc, kind: str) -> str:
    """What the field is, to add to a message; of the innermost field on the way that is described."""
    text = ""
    for end in range(1, len(loc) + 1):
        fields = _fields(model, loc[: end - 1])
        info = fields.get(str(loc[end - 1]))
        if info is not None and info.description and not (text and str(loc[end - 1]) == "value"):
            text = info.description
    return f" ({text})" if text else ""


def _fields(model: type[BaseModel], loc: Loc) -> dict[str, FieldInfo]:
    """The fields, by the name they are written with, of the model a pydantic location leads to."""
    current: Any = model
    for part in loc:
        current = _step(current, part)
    for candidate in _models(current):
        return {info.alias or name: info for name, info in candidate.model_fields.items()}
    return {}


def _kinds(model: type[BaseModel], loc: Loc) -> list[str]:
    """The kinds of the union a pydantic location leads to; none when it leads to something else."""
    current: Any = model
    for part in loc:
        current = _step(current, part)
    if get_origin(_strip(current)) not in (Union, UnionType):
        return []
    tags = [_tag(candidate) for candidate in _models(current)]
    return [tag for tag in tags if tag is not None]


def _step(annotation: Any, part: Key) -> Any:
    """The type one step of a location further in."""
    annotation = _strip(annotation)
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        tagged = [arm for arm in arms if _tag(arm) == part]
        if tagged:
            return tagged[0]
        inner = [_step(arm, part) for arm in arms]
        return next((step for step in inner if step is not None), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        info = next((i for name, i in annotation.model_fields.items() if (i.alias or name) == part), None)
        return None if info is None else info.annotation
    if origin is dict:
        return get_args(annotation)[1]
    if origin is list:
        return get_args(annotation)[0]
    if origin is tuple and isinstance(part, int):
        return get_args(annotation)[part]
    return None


def _strip(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _tag(arm: Any) -> str | None:
    """What a location calls an arm of a union."""
    if get_origin(arm) is Annotated:
        for extra in get_args(arm)[1:]:
            if isinstance(extra, Tag):
                return extra.tag
    arm = _strip(arm)
    if isinstance(arm, type) and issubclass(arm, BaseModel) and "kind" in arm.model_fields:
        kind = arm.model_fields["kind"].annotation
        if get_origin(kind) is Literal:
            return str(get_args(kind)[0])
    return None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    annotation = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            yield from _models(arm)
