"""Files with two columns of lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simlab.workload.faults import trace_error
from simlab.workload.formats import RequestLayout, all_layouts
from simlab.workload.lengths import JointTable
from simlab.workload.reader import BLOCK_ROWS, whole_numbers
from simlab.workload.table import Table

_KNOWN = tuple(
    dict.fromkeys(
        (layout.prompt_tokens, layout.output_tokens) for layout in all_layouts() if isinstance(layout, RequestLayout)
    )
)


def length_columns(table: Table) -> tuple[str, str] | None:
    """The prompt and output columns of a file, by the first known pair that it has; None when it has none."""
    return next((pair for pair in _KNOWN if set(table.columns).issuperset(pair)), None)


def read_pairs(path: Path) -> JointTable:
    """All pairs of lengths of a CSV, JSON-lines or Parquet file.

    Raises:
        TraceError: no known pair of columns, no rows, or a bad value, at its line.
    """
    table = Table(path)
    pair = length_columns(table)
    if pair is None:
        raise trace_error(
            table.header_where,
            f"read columns {', '.join(map(repr, table.columns[:12]))}; a length table needs one of these pairs: "
            + "; ".join(", ".join(known) for known in reversed(_KNOWN)),
        )
    columns = [
        [whole_numbers(table, batch, place, name) for place, name in enumerate(pair)]
        for batch in table.batches(pair, BLOCK_ROWS)
    ]
    if not columns:
        raise trace_error(str(path), "has column names but no rows; it must hold at least one pair of lengths")
    prompt, output = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return JointTable.from_pairs(prompt, output)
