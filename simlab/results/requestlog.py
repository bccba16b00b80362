"""The request log: one row for each attempt, streamed to Parquet, so that its length costs no memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.results.files import output_error

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

REQUEST_DTYPE = np.dtype(
    [
        ("task_id", "i8"),
        ("cls", "i4"),
        ("tenant", "i4"),
        ("backend", "i4"),
        ("attempt", "i4"),
        ("arrival_s", "f8"),
        ("first_token_s", "f8"),
        ("finish_s", "f8"),
        ("prompt_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("output_tokens", "i8"),
        ("outcome", "i4"),
        ("preemptions", "i4"),
    ]
)
"""One attempt; `outcome` is an index into `OUTCOMES`, a time that never came is NaN."""

OUTCOMES = ("succeeded", "failed", "rate_limited", "timed_out", "rejected")
"""How an attempt ends."""

_NUMBERS = {"i8": "int64", "i4": "int32", "f8": "float64"}


class RequestLog:
    """Writes attempts to a Parquet file that appears when the log is closed, and not at all when it fails.

    Args:
        path: the file; what is there is replaced on closing.
        class_names: names by index, as `Measurements.class_names`.
        backend_names: likewise.
        outcome_names: names of the outcome codes.

    Raises:
        OutputError: from any method, when the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        class_names: Sequence[str],
        backend_names: Sequence[str],
        outcome_names: Sequence[str] = OUTCOMES,
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._beside = path.with_name(f".{path.name}.part")
        self._names = {
            "class": (pa.array(class_names, pa.string()), "cls"),
            "backend": (pa.array(backend_names, pa.string()), "backend"),
            "outcome": (pa.array(outcome_names, pa.string()), "outcome"),
        }
        coded = pa.dictionary(pa.int32(), pa.string())
        fields = []
        for name in REQUEST_DTYPE.names or ():
            column = "class" if name == "cls" else name
            kind = coded if column in self._names else pa.type_for_alias(_NUMBERS[REQUEST_DTYPE[name].str[1:]])
            fields.append(pa.field(column, kind))
        self._schema = pa.schema(fields)
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
            if field.name in self._names:
                names, source = self._names[field.name]
                codes = pa.array(np.ascontiguousarray(batch[source], np.int32))
                columns.append(pa.DictionaryArray.from_arrays(codes, names))
            else:
                columns.append(pa.array(np.ascontiguousarray(batch[field.name]), field.type))
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
    """A request log as a DataFrame: the columns of `REQUEST_DTYPE`, `cls` as ``class``, names instead of codes.

    Args:
        path: the file.
        columns: only these.
    """
    import pandas as pd

    return pd.read_parquet(path, columns=None if columns is None else list(columns))
