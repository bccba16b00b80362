"""Quantities as people write them: "800ms", "80GiB", "$3.50/h", "12/s", "3M", "70%"; stored as SI numbers.

Every type here is a number after parsing: seconds, bytes, 1/s, USD, USD per hour, plain counts. A bare number is in the
unit the type is stored in. A month is 730 hours (a twelfth of 8760), a day 86 400 s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

MINUTE_S, HOUR_S, DAY_S, WEEK_S = 60.0, 3600.0, 86400.0, 604800.0
MONTH_H = 730.0
MONTH_S = MONTH_H * HOUR_S

_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.DOTALL)
_COMPOUND = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµμ]+)\s*")
_COMPOUND_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?\s*[a-zµμ]+\s*){2,}")
_MULTIPLIERS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "bn": 1e9, "T": 1e12}

_PERIODS = {
    "s": 1.0, "sec": 1.0, "second": 1.0,
    "min": MINUTE_S, "minute": MINUTE_S,
    "h": HOUR_S, "hr": HOUR_S, "hour": HOUR_S,
    "d": DAY_S, "day": DAY_S,
    "week": WEEK_S,
    "month": MONTH_S, "mo": MONTH_S,
}  # fmt: skip
_DURATIONS = {
    "": 1.0, "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3,
    **_PERIODS, "m": MINUTE_S, "secs": 1.0, "seconds": 1.0, "mins": MINUTE_S, "minutes": MINUTE_S, "hrs": HOUR_S,
    "hours": HOUR_S, "days": DAY_S, "w": WEEK_S, "weeks": WEEK_S, "months": MONTH_S,
}  # fmt: skip
_SIZES = {"": 1.0, "B": 1.0} | {
    f"{prefix}{infix}B": (1024.0 if infix else 1000.0) ** power
    for power, prefixes in enumerate(("kK", "M", "G", "T"), start=1)
    for prefix in prefixes
    for infix in ("", "i")
}
_TOKENS_OF_PRICE = {"Mtok": 1.0, "mtok": 1.0, "M": 1.0, "1M": 1.0, "MTok": 1.0, "ktok": 1e3, "k": 1e3, "1k": 1e3}


@dataclass(frozen=True)
class Notation:
    """How one kind of quantity is written.

    Attributes:
        noun: what it is, for messages: ``"a duration"``.
        unit: the unit it is stored in, as shown to people: ``"s"``.
        examples: ways to write it, shown in messages and in the JSON Schema.
        suffixes: what may follow the number (after an optional multiplier k, M, G/B, T when `scaled`), and its factor.
        scaled: whether ``"1.5k"`` and ``"3M"`` are understood.
        dollar: whether a dollar sign (or "USD") may be written.
        whole: whether the value must be a whole number.
        compound: whether ``"1h30m"`` is the sum of its parts.
    """

    noun: str
    unit: str
    examples: tuple[str, ...]
    suffixes: Mapping[str, float]
    scaled: bool = False
    dollar: bool = False
    whole: bool = False
    compound: bool = False

    def parse(self, raw: Any) -> float | int:
        """The number meant by ``raw``, in `unit`.

        Raises:
            PydanticCustomError: ``raw`` is no such quantity, is not finite, or is not whole where it must be.
        """
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise self._refuse()
        value = self._from_text(raw) if isinstance(raw, str) else float(raw)
        if not math.isfinite(value):
            raise PydanticCustomError("quantity", "it must be finite: {how}", {"how": self._how()})
        if not self.whole:
            return value
        if abs(value - round(value)) > 1e-6:
            raise PydanticCustomError("quantity", "it must be a whole number, e.g. {near}", {"near": str(round(value))})
        return round(value)

    def _from_text(self, text: str) -> float:
        body = text.strip()
        if self.dollar:
            body = re.sub(r"^([+-]?)\s*(?:\$|USD)\s*", r"\1", body)
        if body.lower().lstrip("+-.") in ("inf", "infinity", "nan"):
            return math.nan
        parts = _COMPOUND.findall(body) if self.compound and _COMPOUND_WHOLE.fullmatch(body) else []
        if parts and all(unit in self.suffixes for _, unit in parts):
            return math.fsum(self._from_text(f"{number}{unit}") for number, unit in parts)
        match = _NUMBER.fullmatch(body)
        if match is None:
            raise self._refuse()
        factor = self._factor(match[2].strip())
        if factor is None:
            raise self._refuse()
        # In decimal, so that "95%" is 0.95 and "800ms" is 0.8 to the last digit.
        try:
            return float(Decimal(match[1].replace("_", "")) * Decimal(repr(factor)))
        except ArithmeticError:
            return math.inf

    def _factor(self, suffix: str) -> float | None:
        if self.dollar:
            suffix = re.sub(r"\s*(?:\$|USD)\s*(?=/|$)", "", suffix)
        for multiplier in sorted(_MULTIPLIERS, key=len) if self.scaled else [""]:
            if suffix.startswith(multiplier):
                rest = suffix[len(multiplier) :].strip()
                # "3M", "3 M tokens" and "40k/min": the multiplier stands before the unit.
                if rest in self.suffixes:
                    return _MULTIPLIERS[multiplier] * self.suffixes[rest]
        return None

    def _how(self) -> str:
        *first, last = [repr(example) for example in self.examples]
        text = f"write {', '.join(first)} or {last}" if first else f"write {last}"
        return text if self.unit == "1" else f"{text}; a bare number is in {self.unit}"

    def _refuse(self) -> PydanticCustomError:
        return PydanticCustomError("quantity", "not {noun}: {how}", {"noun": self.noun, "how": self._how()})


def _per(periods: Mapping[str, float], *, stored_s: float) -> dict[str, float]:
    return {f"/{name}": stored_s / seconds for name, seconds in periods.items()}


NOTATIONS: dict[str, Notation] = {
    "Seconds": Notation("a duration", "s", ("800ms", "30s", "2h", "3d"), _DURATIONS, compound=True),
    "Bytes": Notation("a size", "B", ("512MiB", "80GiB", "80GB"), _SIZES),
    "Rate": Notation(
        "a rate", "1/s", ("12/s", "40/min", "3M/day"),
        {"": 1.0, "rps": 1.0, "qps": 1.0, "Hz": 1.0, "req/s": 1.0, **_per(_PERIODS, stored_s=1.0)}, scaled=True,
    ),
    "PerMinute": Notation(
        "a limit per minute", "1/min", ("500/min", "30k/min", "10/s"),
        {"": 1.0, "rpm": 1.0, "tpm": 1.0, **_per(_PERIODS, stored_s=MINUTE_S)}, scaled=True,
    ),
    "Usd": Notation("an amount of money", "USD", ("$3.50", "1200", "$20k"), {"": 1.0}, scaled=True, dollar=True),
    "UsdPerHour": Notation(
        "a price per hour", "USD/h", ("$3.50/h", "$2500/month"),
        {"": 1.0, **_per(_PERIODS, stored_s=HOUR_S)}, scaled=True, dollar=True,
    ),
    "UsdPerMonth": Notation(
        "an amount per month", "USD/month", ("$20k/month", "$3000", "$1.20/h"),
        {"": 1.0, **_per(_PERIODS, stored_s=MONTH_S)}, scaled=True, dollar=True,
    ),
    "UsdPerMtok": Notation(
        "a price per million tokens", "USD per million tokens", ("$0.25", "$3/Mtok", "$0.003/ktok"),
        {"": 1.0, **{f"/{name}": factor for name, factor in _TOKENS_OF_PRICE.items()}}, dollar=True,
    ),
    "Tokens": Notation(
        "a number of tokens", "tokens", ("350", "1.5k", "3M"),
        {"": 1.0, "tok": 1.0, "tokens": 1.0}, scaled=True, whole=True,
    ),
    "TokenCount": Notation(
        "a number of tokens", "tokens", ("350", "1.5k", "3M"), {"": 1.0, "tok": 1.0, "tokens": 1.0}, scaled=True,
    ),
    "Count": Notation("a whole number", "1", ("4", "256", "2k"), {"": 1.0}, scaled=True, whole=True),
    "Repeat": Notation("a whole number or forever", "1", ("1", "30", "forever"), {"": 1.0}, whole=True),
    "Number": Notation("a number", "1", ("3", "2.5"), {"": 1.0, "x": 1.0}, scaled=True),
    "Factor": Notation("a factor", "1", ("1.5", "150%", "0.2"), {"": 1.0, "x": 1.0, "%": 0.01}),
    "Ratio": Notation("a ratio from 0 to 1", "1", ("0.7", "70%"), {"": 1.0, "%": 0.01}),
}  # fmt: skip
"""How each quantity type of this module is written, by the name of the type."""


class Quantity(NamedTuple):
    """Marks an annotated type with the name of its notation.

    Attributes:
        name: a key of `NOTATIONS`.
    """

    name: str


def _probability(raw: Any) -> Any:
    # "p95" reads better than 0.95 in a table of quantiles.
    if isinstance(raw, str) and re.fullmatch(r"p\d+(\.\d+)?", raw.strip()):
        return f"{raw.strip()[1:]}%"
    return raw


def _parser(name: str) -> Callable[[Any], float | int]:
    notation = NOTATIONS[name]

    def parse(raw: Any) -> float | int:
        return notation.parse(raw)

    return parse


def _schema(name: str, **limits: float) -> WithJsonSchema:
    notation = NOTATIONS[name]
    number = {"type": "integer" if notation.whole else "number", **limits}
    text = {"type": "string", "examples": list(notation.examples)}
    return WithJsonSchema({"anyOf": [number, text], "x-unit": notation.unit})


Seconds = Annotated[float, BeforeValidator(_parser("Seconds")), _schema("Seconds"), Quantity("Seconds")]
Bytes = Annotated[float, BeforeValidator(_parser("Bytes")), _schema("Bytes"), Quantity("Bytes")]
Rate = Annotated[float, BeforeValidator(_parser("Rate")), _schema("Rate"), Quantity("Rate")]
PerMinute = Annotated[float, BeforeValidator(_parser("PerMinute")), _schema("PerMinute"), Quantity("PerMinute")]
Usd = Annotated[float, BeforeValidator(_parser("Usd")), _schema("Usd"), Quantity("Usd")]
UsdPerHour = Annotated[float, BeforeValidator(_parser("UsdPerHour")), _schema("UsdPerHour"), Quantity("UsdPerHour")]
UsdPerMonth = Annotated[float, BeforeValidator(_parser("UsdPerMonth")), _schema("UsdPerMonth"), Quantity("UsdPerMonth")]
UsdPerMtok = Annotated[float, BeforeValidator(_parser("UsdPerMtok")), _schema("UsdPerMtok"), Quantity("UsdPerMtok")]
Tokens = Annotated[int, BeforeValidator(_parser("Tokens")), _schema("Tokens"), Quantity("Tokens")]
TokenCount = Annotated[float, BeforeValidator(_parser("TokenCount")), _schema("TokenCount"), Quantity("TokenCount")]
"""Tokens that need not be whole: the mean of a distribution, a quantile."""
Count = Annotated[int, BeforeValidator(_parser("Count")), _schema("Count"), Quantity("Count")]
Number = Annotated[float, BeforeValidator(_parser("Number")), _schema("Number"), Quantity("Number")]
Factor = Annotated[float, BeforeValidator(_parser("Factor")), _schema("Factor"), Quantity("Factor")]
Ratio = Annotated[
    float, BeforeValidator(_parser("Ratio")), _schema("Ratio", minimum=0, maximum=1), Field(ge=0.0, le=1.0)
]
Probability = Annotated[float, BeforeValidator(_parser("Ratio")), BeforeValidator(_probability), Field(ge=0.0, le=1.0)]
"""A ratio that may also be written "p95"."""
