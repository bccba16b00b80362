"""Request streams: arrivals, lengths, shared prefixes and trace readers."""

from simlab.workload.lengths import JointTable
from simlab.workload.rates import RateFunction
from simlab.workload.stream import Chunk, Load, Stream
from simlab.workload.summarize import summarize
from simlab.workload.summary import WorkloadSummary, bundled_summaries, load_summary
from simlab.workload.traffic import open_class, open_stream

__all__ = [
    "Chunk",
    "JointTable",
    "Load",
    "RateFunction",
    "Stream",
    "WorkloadSummary",
    "bundled_summaries",
    "load_summary",
    "open_class",
    "open_stream",
    "summarize",
]
