"""A CSV table whose columns are checked as they are asked for."""

from __future__ import annotations

import io
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.problems import Problems

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

UNITS = {"_ms": 1e-3, "_s": 1.0}
"""Factor to seconds by a part of a column's name, usually its end."""

SHOWN = 3
"""Wrong values of one column that are named; the others are counted."""


def plain_column(name: str) -> str:
    """A column's name without what does not matter: case, brackets, spaces, dashes.

    >>> plain_column("Mean TTFT (ms)"), plain_column("max-num-seqs")
    ('mean_ttft_ms', 'max_num_seqs')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def separator(head: str) -> str:
    """What stands between the columns of a table with this first line: comma, semicolon or tab."""
    return max(",;\t", key=head.count)


def column_names(head: str) -> list[str]:
    """Columns of a table with this first line, plain."""
    return [plain_column(name) for name in head.split(separator(head))]


class Table:
    """Rows of a file, and where each is in it.

    Args:
        frame: the rows, with their line in the file as index, and plain columns.
        path: the file.
        problems: gets what is wrong.
        written: columns as the file has them.
    """

    def __init__(self, frame: pd.DataFrame, path: Path, problems: Problems, written: Mapping[str, str]) -> None:
        self.frame, self.path, self.problems, self._written = frame, path, problems, written

    @property
    def columns(self) -> list[str]:
        """Plain names of the columns."""
        return list(self.frame.columns)

    def written(self, name: str) -> str:
        """A column as the file has it."""
        return self._written.get(name, name)

    def __len__(self) -> int:
        return len(self.frame)

    def has(self, name: str) -> bool:
        """Whether there is such a column with anything in it."""
        return name in self.frame.columns and bool(self.frame[name].notna().any())

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.path}:{self.frame.index[row]}"

    def rows(self, keep: NDArray[np.bool_]) -> Table:
        """The table of some of its rows."""
        return Table(self.frame[keep], self.path, self.problems, self._written)

    def texts(self, name: str) -> list[str | None]:
        """A column as text, None where empty."""
        column = self.frame[name]
        return [None if missing else str(value).strip() for value, missing in zip(column, column.isna(), strict=True)]

    def numbers(
        self, name: str, *, required: bool = False, least: float = 0.0, above: bool = False, infinite: bool = False
    ) -> Floats:
        """A column of numbers [n], NaN where empty.

        Args:
            name: the column.
            required: an empty cell is a problem.
            least: smallest allowed.
            above: numbers must be above the smallest.
            infinite: infinity is allowed.
        """
        import pandas as pd

        column = self.frame[name]
        empty = column.isna().to_numpy()
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        with np.errstate(invalid="ignore"):
            fine = (values > least) if above else (values >= least)
        if not infinite:
            fine &= np.isfinite(values)
        wrong = np.flatnonzero(~fine & (required | ~empty))
        for row in wrong[:SHOWN]:
            cell = column.iloc[row]
            read = "nothing" if empty[row] else repr(cell) if isinstance(cell, str) else f"{cell:g}"
            allowed = f"a number above {least:g}" if above else f"a number of {least:g} or more"
            allowed += ", or inf" if infinite else ""
            more = f" ({len(wrong)} such rows)" if len(wrong) > SHOWN and row == wrong[SHOWN - 1] else ""
            message = f"read {read}; allowed: {allowed}; correct or delete the row{more}"
            self.problems.add(self.where(int(row)), self.written(name), message)
        return np.where(fine, values, np.nan)

    def seconds(self, name: str, *, required: bool = False, above: bool = False) -> Floats:
        """A column of times in s, by the unit at the end of its name."""
        factor = next(
            (factor for unit, factor in UNITS.items() if unit in {f"_{part}" for part in name.split("_")}), 1.0
        )
        return self.numbers(name, required=required, above=above) * factor


def parse_csv(text: str, path: Path, problems: Problems) -> Table | None:
    """A table from the text of a CSV file; None where it is none, which problems then say.

    Empty lines are passed over; a row with more cells than the head has names is a problem. Of columns with one name,
    but for what does not matter in it, the first is taken.
    """
    import pandas as pd

    sep = separator(text.split("\n", 1)[0])
    try:
        frame = pd.read_csv(io.StringIO(text), sep=sep, skip_blank_lines=False, low_memory=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        problems.add(str(path), "", f"not a table: {str(error).strip()}; expected CSV with a head of column names")
        return None
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    names = [str(name).strip() for name in frame.columns]
    frame.columns = pd.Index([plain_column(name) for name in names])
    written: dict[str, str] = {}
    for plain, name in zip(frame.columns, names, strict=True):
        written.setdefault(str(plain), name)
    frame = frame.loc[frame.notna().any(axis=1), ~frame.columns.duplicated()]
    return Table(frame, path, problems, written)


def first_present(names: Sequence[str], columns: Container[str]) -> str | None:
    """The first of some names that is there."""
    return next((name for name in names if name in columns), None)
