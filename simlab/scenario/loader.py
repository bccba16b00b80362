"""From files to a `Scenario`: extends, variants and --set applied, every problem reported with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from simlab.errors import Problem, ScenarioError
from simlab.names import nearest
from simlab.scenario import tree
from simlab.scenario.bundled import bundled, locate
from simlab.scenario.caches import Caches
from simlab.scenario.explain import at, in_order, problems
from simlab.scenario.limits import Limit
from simlab.scenario.offline import BATCH
from simlab.scenario.operations import Operation
from simlab.scenario.outline import Outline, faults, keys, suggest
from simlab.scenario.read_yaml import read_file, read_text
from simlab.scenario.routing import Route
from simlab.scenario.scenario import Scenario
from simlab.scenario.tree import Node
from simlab.scenario.units import Seconds


def load(path: str | Path, *, variant: str | None = None, sets: Sequence[str] = ()) -> Scenario:
    """Reads a scenario file.

    Args:
        path: the file, or the bare name of a bundled scenario (``"quickstart"``).
        variant: name of one of its variants, to apply.
        sets: changes as on the command line, ``"dotted.path=value"`` with the value in YAML; applied on top of the
            variant, in order. One that changes something the variant has removed is not an error.

    Raises:
        ScenarioError: with all the problems of the file, its bases, the variant and the changes at once.
    """
    found: list[Problem] = []
    root, source = _read(path, found)
    scenario = _finish(root, variant, sets, str(path), found)
    scenario._source = source
    return scenario


def variants_of(path: str | Path) -> list[str]:
    """The names of a scenario file's variants, in file order.

    Raises:
        ScenarioError: the file cannot be read as YAML.
    """
    root, _ = _read(path, [])
    node = root.child("variants")
    return list(node.value) if node is not None and isinstance(node.value, dict) else []


def scenario_from_dict(data: Mapping[str, Any], *, variant: str | None = None, sets: Sequence[str] = ()) -> Scenario:
    """A scenario from plain data, such as the one stored in a result.

    Args:
        data: what the YAML file would hold; quantities as numbers or as people write them.
        variant: as for `load`.
        sets: as for `load`.

    Raises:
        ScenarioError: with all problems at once (without line numbers: there are none).
    """
    return _finish(tree.from_plain(data, ""), variant, sets, "", [])


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file, with units (``x-unit``), descriptions and defaults."""
    schema = _with_short_names(Scenario.model_json_schema(by_alias=True))
    schema["properties"]["extends"] = {
        "type": "string",
        "title": "Extends",
        "description": "another scenario file (relative to this one) this one is merged onto: mappings key by key, "
        "lists and values replaced, a named entry set to null removed",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "simlab scenario"}


def _with_short_names(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with each definition under its title: pydantic spells out the arguments of generic ones."""
    names = {name: definition["title"] for name, definition in schema["$defs"].items()}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(child) for key, child in value.items()}
        if isinstance(value, list):
            return [renamed(child) for child in value]
        if isinstance(value, str) and value.startswith("#/$defs/"):
            return f"#/$defs/{names[value.removeprefix('#/$defs/')]}"
        return value

    definitions = {names[name]: renamed(definition) for name, definition in schema["$defs"].items()}
    return {**renamed({key: value for key, value in schema.items() if key != "$defs"}), "$defs": definitions}


def _read(path: str | Path, found: list[Problem]) -> tuple[Node, Path]:
    file = locate(path)
    if not file.exists():
        name = Path(path).stem
        near = nearest(name, list(bundled()), count=1)
        hint = f"did you mean the bundled {near[0]!r}? " if near else ""
        message = f"there is no such file; {hint}Bundled scenarios: {', '.join(bundled()) or 'none'}"
        raise ScenarioError([Problem(str(path), "", message)])
    root = _with_base(file, str(path), (), found)
    if isinstance(root.value, dict) and "name" not in root.value:
        root.value["name"] = Node(file.stem, root.where, root.where)
    return root, file


def _with_base(file: Path, shown: str, above: tuple[Path, ...], found: list[Problem]) -> Node:
    """The tree of a file, merged onto what it extends."""
    root = read_file(file, shown, found)
    base = root.value.pop("extends", None) if isinstance(root.value, dict) else None
    if base is None:
        return root
    if not isinstance(base.value, str) or not base.value:
        message = f"read {base.plain()!r}; it must be the path of a scenario file, relative to this one"
        raise ScenarioError([Problem(base.where, "extends", message)])
    target, stack = file.parent / base.value, (*above, file.resolve())
    if target.resolve() in stack:
        names = " -> ".join(path.name for path in (*stack, target))
        raise ScenarioError([Problem(base.where, "extends", f"goes round in a circle: {names}; take one of them out")])
    if not target.is_file():
        message = f"read {base.value!r}; there is no such file beside {shown} (the path is relative to this file)"
        raise ScenarioError([Problem(base.where, "extends", message)])
    return tree.merge(_with_base(target, str(Path(shown).parent / base.value), stack, found), root)


def _apply_variant(root: Node, variant: str, shown: str) -> list[Problem]:
    node = root.child("variants")
    changes = node.child(variant) if node is not None else None
    if changes is None:
        names = list(node.value) if node is not None and isinstance(node.value, dict) else []
        where = node.where if node is not None else shown
        return [Problem(where, "variants", f"there is no variant {variant!r}; {suggest(variant, names)}")]
    found: list[Problem] = []
    # Items of another shape are left for the model to report, which it does with or without a variant chosen.
    for item in changes.value if isinstance(changes.value, list) else []:
        if isinstance(item.value, dict) and len(item.value) == 1:
            [(path, value)] = item.value.items()
            found += tree.override(root, path, tree.copy(value))
    return found


def _apply_sets(root: Node, sets: Sequence[str]) -> list[list[Problem]]:
    """Applies each change; gives what is wrong with each."""
    return [_apply_set(root, item) for item in sets]


def _apply_set(root: Node, item: str) -> list[Problem]:
    where = f"--set {item}"
    path, equals, text = item.partition("=")
    if not equals or not path.strip():
        return [Problem(where, "", "write path=value, e.g. --set workload.chat.arrivals.rate=20/s")]
    try:
        value = read_text(text, "value").plain()
    except ScenarioError as error:
        return [Problem(where, path, problem.message) for problem in error.problems]
    return list(tree.override(root, path.strip(), tree.from_plain(value, where)))


def _finish(root: Node, variant: str | None, sets: Sequence[str], shown: str, found: list[Problem]) -> Scenario:
    """Applies the variant and the changes, and reads what comes out; ``found`` holds what is known to be wrong."""
    before = _apply_sets(root, sets)
    if variant is None:
        found += chain.from_iterable(before)
    else:
        found += _apply_variant(root, variant, shown)
        # A change may be about what the variant has just removed, or about what only the variant brings: it is wrong
        # when it fits neither without the variant nor with it.
        after = _apply_sets(root, sets)
        found += chain.from_iterable(late for early, late in zip(before, after, strict=True) if early and late)
    root = tree.drop_removed(root)
    data = root.plain()
    scenario: Scenario | None = None
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        found += problems(error, Scenario, root)
        said = {problem.path for problem in found}
        references = [at(root, (), fault) for fault in faults(_readable(_respelt(data)))]
        found += [problem for problem in references if problem.path not in said]
    if scenario is None or found:
        raise ScenarioError(in_order(found))
    scenario._variant = variant
    scenario._tree = root
    return scenario


def _readable(data: Mapping[str, Any]) -> Outline:
    """The outline of a broken scenario, from those of its parts that are valid by themselves."""
    gateway = data.get("gateway")
    routes = gateway.get("routes") if isinstance(gateway, Mapping) else None
    limits = gateway.get("limits") if isinstance(gateway, Mapping) else None
    operations = data.get("operations")
    horizon_s = _valid(Seconds, data.get("horizon", Scenario.model_fields["horizon"].default))
    return Outline(
        classes=keys(data, "workload"),
        pools=keys(data, "pools"),
        apis=keys(data, "apis"),
        batches=[f"{name}{BATCH}" for name in keys(data, "apis") if "batch" in keys(data["apis"], name)],
        routes=[_valid(Route, route) for route in routes] if isinstance(routes, list) else [],
        aliases=_valid(dict[str, str], gateway.get("aliases", {})) or {} if isinstance(gateway, Mapping) else {},
        tiers=[],
        fallback=_valid(dict[str, str], gateway.get("fallback", {})) or {} if isinstance(gateway, Mapping) else {},
        answers=keys(gateway, "answers") if isinstance(gateway, Mapping) else [],
        hedge_to=None,
        operations=[_valid(Operation, item) for item in operations] if isinstance(operations, list) else [],
        horizon_s=horizon_s if horizon_s is not None and horizon_s > 0 else None,
        warmup_s=_valid(Seconds, data.get("warmup", 0.0)),
        window_s=_valid(Seconds, data["window"]) if data.get("window") is not None else None,
        limits=[_valid(Limit, limit) for limit in limits] if isinstance(limits, list) else [],
        caches=_valid(Caches, gateway.get("caches", {})) if isinstance(gateway, Mapping) else None,
    )


def _respelt(data: Mapping[str, Any]) -> dict[str, Any]:
    """Raw data with misspelt sections under their right names: what they define is not missing, too."""
    sections = [name for name in Scenario.model_fields if name not in data]
    meant = {key: nearest(key, sections, count=1) for key in data if key not in Scenario.model_fields}
    return {(meant[key] or [key])[0] if key in meant else key: value for key, value in data.items()}


def _valid(kind: Any, raw: Any) -> Any:
    """``raw`` as ``kind``; None when it is not."""
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError:
        return None
