"""A result as a folder of files: JSON, Parquet tables and the HTML report."""

from __future__ import annotations

from pathlib import Path

from simlab.report.html import html
from simlab.results import Result
from simlab.results.keys import KEYS

REQUEST_LOG = "requests.parquet"
"""Name of the request log in a result's folder."""


def write_folder(result: Result, folder: Path) -> None:
    """Writes ``result.json``, ``metrics|ledger|windows|by_KEY.parquet`` and ``report.html`` into a folder.

    Raises:
        OSError: when that fails; see `simlab.results.files.output_folder` for a folder that is written whole or not
            at all.
    """
    (folder / "result.json").write_text(result.to_json(), encoding="utf-8")
    (folder / "report.html").write_text(html(result), encoding="utf-8")
    tables = {
        "metrics": result.metrics().reset_index(),
        "ledger": result.ledger(),
        "windows": result.windows(),
        **{f"by_{key}": result.by(key) for key in KEYS},
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
