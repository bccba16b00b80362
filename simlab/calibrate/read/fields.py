"""Fields of a JSON object, each checked: what is not a number where one belongs is a problem, what is absent is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.problems import Problems

Floats = NDArray[np.float64]


def shown(value: Any) -> str:
    """A value as it was read, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


class Fields:
    """The fields of one object.

    Args:
        data: the object.
        where: its file, and line where there are several.
        problems: gets what is wrong.
    """

    def __init__(self, data: Mapping[str, Any], where: str, problems: Problems) -> None:
        self.data, self.where, self.problems = data, where, problems

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.data.get(name) is not None

    def wrong(self, name: str, message: str) -> None:
        """Adds a problem of a field."""
        self.problems.add(self.where, name, message)

    def number(self, name: str, *, least: float = 0.0, infinite: bool = False) -> float | None:
        """A number, None where absent or wrong.

        Args:
            name: the field.
            least: smallest allowed.
            infinite: infinity (also as text, ``"inf"``) is allowed.
        """
        value = self.data.get(name)
        if value is None:
            return None
        number = math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
        elif isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                number = math.nan
        fine = number >= least and (infinite or math.isfinite(number))
        if not fine:
            allowed = f"a number of {least:g} or more" + (', or "inf"' if infinite else "")
            self.wrong(name, f"read {shown(value)}; allowed: {allowed}; correct it, or measure again")
            return None
        return number

    def whole(self, name: str, *, least: int = 0) -> int | None:
        """A whole number, None where absent or wrong."""
        number = self.number(name, least=least)
        if number is None:
            return None
        if number != int(number):
            self.wrong(name, f"read {shown(self.data[name])}; allowed: a whole number; correct it, or measure again")
            return None
        return int(number)

    def text(self, name: str) -> str | None:
        """A text, None where absent."""
        value = self.data.get(name)
        return None if value is None else str(value)

    def numbers(self, name: str, *, count: int | None = None, least: float = 0.0) -> Floats | None:
        """A list of numbers [n]; None where absent or wrong.

        Args:
            name: the field.
            count: how many there must be.
            least: smallest allowed.
        """
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str):
            self.wrong(name, f"read {shown(value)}; allowed: a list of numbers")
            return None
        if count is not None and len(value) != count:
            self.wrong(name, f"has {len(value)} items, other lists of the file have {count}; the file was changed")
            return None
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.array([])
        if array.ndim != 1 or len(array) != len(value):
            odd = next((i for i, item in enumerate(value) if not isinstance(item, (int, float))), 0)
            self.wrong(f"{name}[{odd}]", f"read {shown(value[odd])}; allowed: a number of {least:g} or more")
            return None
        bad = np.flatnonzero(~(array >= least) | ~np.isfinite(array))
        if len(bad):
            i = int(bad[0])
            message = f"read {value[i]}; allowed: a number of {least:g} or more; correct it, or measure again"
            self.wrong(f"{name}[{i}]", message + (f" ({len(bad)} such items)" if len(bad) > 1 else ""))
            return None
        return array
