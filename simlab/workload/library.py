"""Joint length tables by name: bundled summaries, summary files, or any file with two columns of lengths."""

from __future__ import annotations

from pathlib import Path

from simlab.workload.lengths import JointTable
from simlab.workload.locate import find_file
from simlab.workload.pairs import read_pairs
from simlab.workload.summary import bundled_summaries, load_summary


def joint_table(name: str, base_dir: Path | None = None) -> JointTable:
    """The pairs of a bundled summary or of a file (summary JSON, or CSV, JSON lines or Parquet with two columns).

    Raises:
        TraceError: no such name or file, or a bad value, at its line.
    """
    if name in bundled_summaries() or name.endswith(".json") or "." not in name:
        return load_summary(name, base_dir).joint
    return read_pairs(find_file(name, base_dir))
