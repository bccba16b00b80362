"""The request log: one row for each attempt, streamed to Parquet, so that its length costs no memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.facts import BackendFacts
from simlab.results.files import output_error
from simlab.results.groups import GroupNames, TaskGroups
from simlab.results.keys import OF_BACKEND, of_backends
from simlab.results.measurements import REASONS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

REQUEST_DTYPE = np.dtype(
    [
        ("task_id", "i8"),
        ("cls", "i4"),
        ("tenant", "i4"),
        ("group", "i4"),
        ("backend", "i4"),
        ("attempt", "i4"),
        ("reason", "i4"),
        ("arrival_s", "f8"),
        ("started_s", "f8"),
        ("first_token_s", "f8"),
        ("finish_s", "f8"),
        ("prompt_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("written_tokens", "i8"),
        ("output_tokens", "i8"),
        ("outcome", "i4"),
        ("preemptions", "i4"),
        ("usd", "f8"),
    ]
)
"""One attempt; `outcome` is an index into `OUTCOMES`, `reason` one into `REASONS`, `group` one into the class's
`TaskGroups`; a time that never came is NaN. `usd` is what the attempt cost, on a replica the price of its work."""

OUTCOMES = ("succeeded", "failed", "rate_limited", "timed_out", "rejected", "cancelled")
"""How an attempt ends."""

_BY_GROUP = ("tier", "route", "prompt_version")

_SOURCES = {"class": "cls", "feature": "cls", "provider": "backend", "model": "backend"}
"""The field that tells a column, where it is not the one of its name."""

_COLUMNS = (
    *("task_id", "feature", "class", "tenant", *_BY_GROUP, "backend", "provider", "model"),
    *(REQUEST_DTYPE.names or ())[5:],
)
"""Columns of the file, in order."""

_NUMBERS = {"i8": "int64", "i4": "int32", "f8": "float64"}


class RequestLog:
    """Writes attempts to a Parquet file that appears when the log is closed, and not at all when it fails.

    Args:
        path: the file; what is there is replaced on closing.
        class_names: names by index, as `Measurements.class_names`.
        backends: what is known of each backend.
        features: of each class; none: unknown.
        groups: the groups of tasks of each class; none: one each.

    Raises:
        OutputError: from any method, when the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        class_names: Sequence[str],
        backends: Sequence[BackendFacts],
        features: Sequence[str] = (),
        groups: Sequence[TaskGroups] = (),
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._beside = path.with_name(f".{path.name}.part")
        names = {
            "class": class_names,
            "feature": features or ["default"] * len(class_names),
            **{key: of_backends(backends, key) for key in OF_BACKEND},
            "outcome": OUTCOMES,
            "reason": REASONS,
        }
        self._groups = {key: GroupNames(key, groups or [TaskGroups()] * len(class_names)) for key in _BY_GROUP}
        names |= {key: group.names for key, group in self._groups.items()}
        self._names = {column: pa.array(list(names[column]), pa.string()) for column in names}
        coded = pa.dictionary(pa.int32(), pa.string())
        self._schema = pa.schema(
            pa.field(name, coded if name in names else pa.type_for_alias(_NUMBERS[REQUEST_DTYPE[name].str[1:]]))
            for name in _COLUMNS
        )
        self.rows = 0
        try:
            self._writer: Any = pq.ParquetWriter(self._beside, self._schema, compression="zstd")
        except OSError as error:
            raise output_error(path, error) from error

    def append(self, batch: NDArray[Any]) -> None:
        """Adds attempts.

        Args:
            batch: structured array with at least the fields of `REQUEST_DTYPE`.
        """
        if len(batch) == 0:
            return
        try:
            self._writer.write_table(self._table(batch))
        except OSError as error:
            self.discard()
            raise output_error(self.path, error) from error
        self.rows += len(batch)

    def _table(self, batch: NDArray[Any]) -> pa.Table:
        """A batch as an Arrow table."""
        import pyarrow as pa

        columns = []
        for field in self._schema:
            if field.name in self._groups:
                codes = self._groups[field.name].of(batch)
            else:
                codes = batch[_SOURCES.get(field.name, field.name)]
            if field.name in self._names:
                indices = pa.array(np.ascontiguousarray(codes, np.int32))
                columns.append(pa.DictionaryArray.from_arrays(indices, self._names[field.name]))
            else:
                columns.append(pa.array(np.ascontiguousarray(codes), field.type))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def close(self) -> None:
        """Finishes the file and puts it in its place."""
        try:
            self._writer.close()
            self._beside.replace(self.path)
        except OSError as error:
            self.discard()
            raise output_error(self.path, error) from error

    def discard(self) -> None:
        """Gives the log up; nothing is left behind."""
        with suppress(OSError):  # Closing writes the footer, which a full disk refuses; the file goes all the same.
            self._writer.close()
        self._beside.unlink(missing_ok=True)

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def read_request_log(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A request log as a DataFrame: who, where and why by name, then the meters of `REQUEST_DTYPE`.

    Args:
        path: the file.
        columns: only these.
    """
    import pandas as pd

    return pd.read_parquet(path, columns=None if columns is None else list(columns))
