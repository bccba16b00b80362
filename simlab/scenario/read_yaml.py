"""Reads YAML 1.2 text into a tree; refuses what a scenario cannot mean: duplicate keys, tags, bombs, broken text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from simlab.errors import Problem, ScenarioError
from simlab.scenario.tree import Node

MAX_BYTES = 2_000_000
MAX_NODES = 200_000
MAX_DEPTH = 60

_TAG = "tag:yaml.org,2002:"


def read_file(path: Path, shown: str, found: list[Problem] | None = None) -> Node:
    """The tree of a file.

    Args:
        path: the file.
        shown: its name in messages.
        found: takes keys that are written twice, so that they are reported beside what else is wrong; without it they
            are raised.

    Raises:
        ScenarioError: it cannot be read, is too large, is not UTF-8, or is not YAML with a mapping at its top.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ScenarioError([Problem(shown, "", f"cannot be read: {(error.strerror or str(error)).lower()}")]) from None
    if size > MAX_BYTES:
        message = f"is {size:,} bytes; a scenario may have {MAX_BYTES:,}. Keep data in a trace or table file it names"
        raise ScenarioError([Problem(shown, "", message)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ScenarioError([Problem(f"{shown}:{line}:{column}", "", message)]) from None
    node = read_text(text, shown, found)
    if not isinstance(node.value, dict):
        kind = "nothing" if node.value is None else "a list" if isinstance(node.value, list) else repr(node.value)
        message = f"read {kind}; a scenario is a mapping of keys to values (see `simlab new quickstart`)"
        raise ScenarioError([Problem(node.where, "", message)])
    return node


def read_text(text: str, shown: str, found: list[Problem] | None = None) -> Node:
    """The tree of YAML text; an empty text is a null. ``found`` is as for `read_file`.

    Raises:
        ScenarioError: the text is not YAML, or holds what a scenario must not; all such places at once.
    """
    try:
        root = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark is not None else shown
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ScenarioError([Problem(where, "", f"not valid YAML: {what}")]) from None
    except YAMLError as error:
        position = getattr(error, "position", None)
        where = shown if position is None else f"{shown}:{text.count(chr(10), 0, position) + 1}:1"
        message = " ".join(str(error).split("\n")[0].split())
        raise ScenarioError([Problem(where, "", f"not valid YAML: {message}")]) from None
    except RecursionError:
        raise ScenarioError([Problem(shown, "", f"nested too deeply; at most {MAX_DEPTH} levels are read")]) from None
    if root is None:
        return Node(None, f"{shown}:1:1", f"{shown}:1:1")
    builder = _Builder(shown)
    tree = builder.build(root, "", 0)
    problems = [*builder.problems, *builder.doubles]
    if builder.problems or (problems and found is None):
        raise ScenarioError(problems)
    if found is not None:
        found += builder.doubles
    return tree


class _Builder:
    """Turns composed YAML nodes into a tree, counting what aliases expand to."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.problems: list[Problem] = []
        self.doubles: list[Problem] = []
        self._count = 0
        self._full = False

    def build(self, node: YamlNode, path: str, depth: int) -> Node:
        where = self._where(node)
        self._count += 1
        if self._full:
            return Node(None, where, where)
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            # Stops here for good: an alias bomb would otherwise be reported once for each of its copies.
            self._full = True
            what = "levels deep" if depth > MAX_DEPTH else "values"
            limit = MAX_DEPTH if depth > MAX_DEPTH else f"{MAX_NODES:,}"
            message = f"expands (with its aliases) to more than {limit} {what}; write it out, or move data to a file"
            self.problems.append(Problem(where, "", message))
            return Node(None, where, where)
        if isinstance(node, ScalarNode):
            return Node(self._scalar(node, path), where, where)
        self._refuse_tag(node, path, "map" if isinstance(node, MappingNode) else "seq")
        if not isinstance(node, MappingNode):
            items = [self.build(item, f"{path}.{i}", depth + 1) for i, item in enumerate(node.value)]
            return Node(items, where, where)
        return Node(self._mapping(node, path, depth), where, where)

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if str(key_node.tag) == f"{_TAG}merge":
                for merged in self._merged(key_node, value_node, path, depth):
                    inherited = merged | inherited
                continue
            if not isinstance(key_node, ScalarNode):
                self.problems.append(Problem(where, path.lstrip("."), "a key must be text, not a list or mapping"))
                continue
            key = str(key_node.value)
            here = f"{path}.{key}"
            child = self.build(value_node, here, depth + 1)
            if key in children:
                first = children[key].key_where.removeprefix(self.shown + ":")
                self.doubles.append(
                    Problem(where, here.lstrip("."), f"{key!r} is written twice (first at {first}); keep one of them")
                )
                continue
            child.key_where = where
            if isinstance(value_node, ScalarNode) and not value_node.value:
                child.where = where  # nothing after the colon: YAML would place it where the next thing begins
            children[key] = child
        return inherited | children

    def _merged(self, key: YamlNode, value: YamlNode, path: str, depth: int) -> Iterator[dict[str, Node]]:
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if isinstance(source, MappingNode):
                merged = self.build(source, path, depth + 1).value
                if isinstance(merged, dict):
                    yield merged
            else:
                message = "<< needs a mapping, e.g. `<<: *base`"
                self.problems.append(Problem(self._where(key), path.lstrip("."), message))

    def _scalar(self, node: ScalarNode, path: str) -> str | int | float | bool | None:
        tag, text = str(node.tag).removeprefix(_TAG), str(node.value)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int":
            return _integer(text)
        if tag == "float":
            return _real(text)
        if tag not in ("str", "timestamp", "merge", "value"):
            self._refuse_tag(node, path, "str")
        return text

    def _refuse_tag(self, node: YamlNode, path: str, usual: str) -> None:
        tag = str(node.tag)
        if tag != f"{_TAG}{usual}":
            shown = tag.replace(_TAG, "!!")
            message = f"read the tag {shown}; scenarios have no tags: write the plain value"
            self.problems.append(Problem(self._where(node), path.lstrip("."), message))

    def _where(self, node: YamlNode) -> str:
        mark = node.start_mark
        return f"{self.shown}:{mark.line + 1}:{mark.column + 1}"


def _integer(text: str) -> int | str:
    digits = text.replace("_", "")
    sign, body = (digits[0], digits[1:]) if digits[:1] in ("+", "-") else ("", digits)
    base = {"0x": 16, "0o": 8, "0b": 2}.get(body[:2].lower(), 10)
    if len(body) > 4000 or re.fullmatch(r"[0-9a-fA-FxXoObB]+", body) is None:
        return text  # left as it was written, for the field to refuse
    return int(sign + (body[2:] if base != 10 else body), base)


def _real(text: str) -> float | str:
    body = text.replace("_", "").lower()
    if body.lstrip("+-") == ".inf":
        return -math.inf if body.startswith("-") else math.inf
    if body == ".nan":
        return math.nan
    try:
        return float(body)
    except ValueError:
        return text
