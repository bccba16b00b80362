"""The server that a file tells of: names brought to those of the tables, and hints of the user laid over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from simlab.calibrate.read.context import Context
from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.run import Server
from simlab.errors import InputError
from simlab.profiles import gpu, model

_PRECISIONS = {
    "bf16": ("bf16", "bfloat16", "fp16", "float16", "half", "f16"),
    "fp8": ("fp8", "fp8-e4m3", "fp8-dynamic", "fp8-block", "w8a8", "float8"),
    "fp4": ("fp4", "nvfp4", "mxfp4", "w4a4"),
    "int4": ("int4", "awq", "gptq", "w4a16", "gptq-int4", "awq-int4", "awq-4bit", "gptq-marlin", "awq-marlin"),
    "fp32": ("fp32", "float32", "float", "f32"),
}
_PRECISION_OF = {alias: name for name, aliases in _PRECISIONS.items() for alias in aliases}
_IN_NAME = sorted((alias for name in ("fp8", "fp4", "int4") for alias in _PRECISIONS[name]), key=len, reverse=True)
_VARIANT = re.compile(r"-(?:instruct|chat|it|base|thinking|\d{4}|hf)$")
_MEMORY = re.compile(r"-\d+gb(?:-.*)?$")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

WHOLE = ("tp", "dp", "replicas", "max_num_seqs", "max_num_batched_tokens", "kv_blocks", "block_size", "max_model_len")
"""Attributes of `Server` that are whole numbers."""

SWITCHES = ("expert_parallel", "prefix_caching")
"""Attributes of `Server` that are true or false."""

IDENTITY = ("model", "gpu", "tp", "dp", "expert_parallel", "precision")
"""What makes a set-up."""

ASSUMED_PRECISION = "precision bf16 is assumed"


def slug(name: str) -> str:
    """A name no table knows, as part of a file name: without its owner, in small letters.

    >>> slug("moonshotai/Kimi-K2.5")
    'kimi-k2.5'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.strip().lower().rstrip("/").rsplit("/", 1)[-1]).strip("-.")


def precision_in(name: str) -> str | None:
    """The precision that a model's name states.

    >>> precision_in("Qwen/Qwen3-235B-A22B-FP8"), precision_in("nvidia/DeepSeek-R1-0528-NVFP4"), precision_in("gpt2")
    ('fp8', 'fp4', None)
    """
    words = slug(name)
    return next((_PRECISION_OF[alias] for alias in _IN_NAME if re.search(rf"-{alias}(?:-|$)", words)), None)


@cache
def model_name(name: str) -> tuple[str, bool]:
    """A model's name and whether a table knows it: precision and variant endings do not count.

    >>> model_name("Qwen/Qwen3-235B-A22B-FP8"), model_name("deepseek-ai/DeepSeek-V4-Flash")
    (('qwen3-235b-a22b', True), ('deepseek-v4-flash', False))
    """
    bare = name.strip()
    for _ in range(4):
        try:
            return model(bare).name, True
        except InputError:
            pass
        short = slug(bare)
        for alias in _IN_NAME:
            short = re.sub(rf"-{alias}(?=-|$)", "", short)
        shorter = short if short != slug(bare) else _VARIANT.sub("", short)
        if shorter == slug(bare):
            break
        bare = shorter
    plain = slug(name)
    for alias in _IN_NAME:
        plain = re.sub(rf"-{alias}(?=-|$)", "", plain)
    return plain, False


@cache
def gpu_name(name: str) -> tuple[str, bool]:
    """A GPU's name and whether a table knows it.

    >>> gpu_name("NVIDIA H100 80GB HBM3"), gpu_name("A100-SXM4-80GB"), gpu_name("B300-SXM (b300_sxm)")
    (('h100-sxm', True), ('a100-sxm-80gb', True), ('b300-sxm', True))
    >>> gpu_name("two Xeon cores")
    ('two-xeon-cores', False)
    """
    plain = slug(re.sub(r"\(.*?\)", "", name).replace("/", "-"))
    bare = re.sub(r"^(?:\d+x)?(?:nvidia-|amd-|tesla-|geforce-)*", "", plain)
    bare = re.sub(r"sxm\d", "sxm", re.sub(r"-hbm\d\w*", "", bare))
    for spelling in (plain, bare, _MEMORY.sub("", bare)):
        try:
            return gpu(spelling).name, True
        except InputError:
            continue
    return plain, False


def precision_name(name: str) -> str | None:
    """The usual name of a precision; None for ``auto`` or nothing.

    >>> precision_name("bfloat16"), precision_name("NVFP4"), precision_name("auto")
    ('bf16', 'fp4', None)
    """
    plain = slug(name.replace("_", "-"))
    return None if plain in {"auto", "", "none", "nan"} else _PRECISION_OF.get(plain, plain)


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if 1.0 <= number < 1e12 and number == int(number) else None


@dataclass
class Facts:
    """What one file says of its server.

    Attributes:
        values: by attribute of `Server`.
        fields: where in the file each is from.
        assumed: attributes that were inferred, which a hint may set otherwise.
        notes: what was inferred.
        wrong: fields with a value that their attribute cannot have, and what is allowed.
    """

    values: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)

    def say(self, attribute: str, value: Any, source: str) -> None:
        """Takes what a field says, of the attribute's type; nothing where it is empty or leaves it to the server."""
        text = "" if value is None else str(value).strip()
        if text.lower() in {"", "nan", "none", "null", "default", "auto"}:
            return
        if attribute in WHOLE:
            value = _whole(text)
        elif attribute in SWITCHES:
            value = _TRUTH.get(text.lower())
        if value is None:
            allowed = "a whole number of 1 or more" if attribute in WHOLE else "true or false"
            self.wrong[source] = f"read {text!r}; allowed: {allowed}; correct it"
            return
        self.values[attribute] = value
        self.fields[attribute] = source
        self.assumed.discard(attribute)

    def copy(self) -> Facts:
        """The same facts, to be changed by themselves."""
        return Facts(dict(self.values), dict(self.fields), set(self.assumed), list(self.notes), dict(self.wrong))

    def assume(self, attribute: str, value: Any, why: str) -> None:
        """Takes what is likely where no field says it."""
        if attribute not in self.values:
            self.values[attribute] = value
            self.assumed.add(attribute)
            self.notes.append(why)


def usual_names(facts: Facts) -> Facts:
    """The same facts with the tables' names; precision from the model's name or its published weights at need."""
    new = facts.copy()
    values = new.values
    if "gpu" in values:
        values["gpu"] = gpu_name(str(values["gpu"]))[0]
    for attribute in ("precision", "kv_precision"):
        if attribute in values:
            plain = precision_name(str(values[attribute]))
            values.pop(attribute)
            if plain is not None:
                values[attribute] = plain
    if "model" in values:
        written = str(values["model"])
        stated = precision_in(written)
        name, known = model_name(written)
        values["model"] = name
        if stated is not None and values.get("precision") in {None, "bf16"}:
            # A quantised checkpoint also has a dtype, that of its activations.
            new.say("precision", stated, facts.fields.get("model", "model"))
        elif known and "precision" not in values:
            precision = model(name).native_precision
            new.assume("precision", precision, f"precision {precision}, that of the published weights, is assumed")
    return new


def told(hints: ServerHints) -> dict[str, Any]:
    """What hints say of `Server`, in the tables' names."""
    names = {entry.name for entry in fields(Server)}
    said = {name: value for name, value in vars(hints).items() if name in names and value is not None}
    if "model" in said:
        written = said["model"]
        said["model"] = model_name(written)[0]
        if precision_in(written) is not None:
            said.setdefault("precision", precision_in(written))
    if "gpu" in said:
        said["gpu"] = gpu_name(said["gpu"])[0]
    if "precision" in said:
        said["precision"] = precision_name(said["precision"]) or "bf16"
    return said


def server_of(
    facts: Facts, context: Context, where: str, *, served_name: bool = False
) -> tuple[Server, tuple[str, ...]] | None:
    """The server that a file and the user's hints describe together, and what had to be assumed.

    Args:
        facts: what the file says.
        context: has the user's hints; gets what is missing or contradicts.
        where: the file, for problems.
        served_name: the file has the name under which the model was served, which may be anything.

    Returns:
        None where something is missing or contradicts; problems says what.
    """
    problems, before = context.problems, len(context.problems)
    for source, message in facts.wrong.items():
        problems.add(where, source, message)
    usual = usual_names(facts)
    values, notes = usual.values, usual.notes
    for attribute, hint in told(context.hints).items():
        stated = values.get(attribute)
        if stated is not None and stated != hint and attribute not in usual.assumed:
            written = facts.values.get(attribute, stated)
            if attribute == "model" and served_name and not model_name(str(written))[1]:
                notes.append(f"served as {written!r}")
            elif attribute != "engine":
                flag = f"--{attribute.replace('_', '-')}"
                repair = f"but {flag} says {hint}; leave out the flag or the file"
                problems.add(where, usual.fields.get(attribute, attribute), f"says {written}, {repair}")
        values[attribute] = hint
    for attribute in ("gpu", "model"):
        if not values.get(attribute):
            message = f"the file does not say which {attribute.replace('gpu', 'GPU')}; give --{attribute}"
            problems.add(where, attribute, message)
    if len(problems) > before:
        return None
    if "precision" not in values:
        values["precision"] = "bf16"
        notes.append(ASSUMED_PRECISION)
    return Server(**values), tuple(dict.fromkeys(notes))


def agrees(facts: Facts, said: Mapping[str, Any]) -> bool:
    """Whether a row of a table is of the set-up that the user names."""
    values = usual_names(facts).values
    return all(values.get(name) in {None, said[name]} for name in IDENTITY if name in said)
