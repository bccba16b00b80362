"""YAML 1.2 as a tree that knows the line and column of everything in it, and may be merged and overridden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from simlab.errors import Problem
from simlab.names import nearest

Scalar = str | int | float | bool | None
Key = str | int

NAMED_SECTIONS = ("workload", "pools", "apis", "variants")
"""Top-level mappings whose keys are the user's own names."""


@dataclass
class Node:
    """A value and where it was written.

    Attributes:
        value: a scalar, a list of nodes, or a mapping of text keys to nodes.
        where: ``file:line:column`` of the value, or the command-line option it came from.
        key_where: the same of its key; `where` when it has none.
    """

    value: Scalar | list[Node] | dict[str, Node]
    where: str
    key_where: str = field(default="")

    def plain(self) -> Any:
        """The value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: Key) -> Node | None:
        """The node under a key or index; None when there is none."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None


def from_plain(data: Any, where: str) -> Node:
    """A tree of plain data, all of it written at the same place."""
    if isinstance(data, Mapping):
        return Node({str(key): from_plain(value, where) for key, value in data.items()}, where, where)
    if isinstance(data, list | tuple):
        return Node([from_plain(value, where) for value in data], where, where)
    return Node(data, where, where)


def merge(base: Node, over: Node) -> Node:
    """``over`` on top of ``base``: mappings merge key by key, anything else replaces."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, over.where, over.key_where)


def drop_removed(root: Node) -> Node:
    """The tree without the named entries (class, pool, api, variant) that were set to null to remove them."""
    if not isinstance(root.value, dict):
        return root
    kept = dict(root.value)
    for section in NAMED_SECTIONS:
        node = kept.get(section)
        if node is not None and isinstance(node.value, dict):
            entries = {name: entry for name, entry in node.value.items() if entry.value is not None}
            kept[section] = Node(entries, node.where, node.key_where)
    return Node(kept, root.where, root.key_where)


def override(root: Node, path: str, value: Node) -> Iterator[Problem]:
    """Replaces what stands at a dotted path; yields what is wrong with the path (nothing when it was done).

    A key that holds dots itself (``gpt-4.1``) is found when it is there; list items are named by their index.
    """
    parts = path.split(".")
    if not all(parts):
        yield Problem(value.key_where, path, "the path has an empty part; write keys and list indices joined by dots")
        return
    node, done, depth = root, list[str](), 0
    while True:
        key, parts = _next_key(node, parts)
        if not parts:
            break
        child = _descend(node, key)
        if child is None:
            problem, child = _missing(node, key, done, depth, value)
            if problem is not None or child is None:
                yield problem or Problem(value.key_where, path, "there is nothing here")
                return
        node, depth = child, depth + 1
        done.append(key)
    yield from _replace(node, key, ".".join(done), value)


def _next_key(node: Node, parts: list[str]) -> tuple[str, list[str]]:
    if isinstance(node.value, dict):
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if key in node.value:
                return key, parts[length:]
    return parts[0], parts[1:]


def _descend(node: Node, key: str) -> Node | None:
    return node.child(int(key)) if isinstance(node.value, list) and key.isdecimal() else node.child(key)


def _missing(node: Node, key: str, done: list[str], depth: int, value: Node) -> tuple[Problem | None, Node | None]:
    """Makes room for a key that is not there, or says why that cannot be meant."""
    here = ".".join(done)
    if isinstance(node.value, dict) and not (depth == 1 and done[0] in NAMED_SECTIONS):
        child = Node({}, value.where, value.key_where)
        node.value[key] = child
        return None, child
    return _nothing_there(node, key, here, value), None


def _nothing_there(node: Node, key: str, here: str, value: Node) -> Problem:
    where, path = value.key_where, f"{here}.{key}" if here else key
    if isinstance(node.value, dict):
        near = nearest(key, list(node.value), count=1)
        known = ", ".join(node.value) or "nothing"
        hint = f"did you mean {near[0]!r}? " if near else ""
        return Problem(where, path, f"there is no {key!r} in {here}; {hint}There is: {known}")
    if isinstance(node.value, list):
        return Problem(where, path, f"read {key!r}; {here} is a list of {len(node.value)}: give an index from 0")
    return Problem(where, path, f"{here} holds {node.value!r}, which has no parts; set {here} as a whole")


def _replace(node: Node, key: str, here: str, value: Node) -> Iterator[Problem]:
    if isinstance(node.value, dict):
        node.value[key] = value
    elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
        node.value[int(key)] = value
    else:
        yield _nothing_there(node, key, here, value)


def place(root: Node, path: str) -> str:
    """Where a dotted path was written; of one that was left out, where the nearest thing around it begins."""
    node, parts = root, path.split(".")
    while parts:
        key, parts = _next_key(node, parts)
        child = _descend(node, key)
        if child is None:
            return node.key_where or node.where
        node = child
    return node.where


def copy(node: Node) -> Node:
    """A tree of its own, to be overridden without touching this one."""
    if isinstance(node.value, dict):
        return Node({key: copy(child) for key, child in node.value.items()}, node.where, node.key_where)
    if isinstance(node.value, list):
        return Node([copy(child) for child in node.value], node.where, node.key_where)
    return Node(node.value, node.where, node.key_where)
