"""What follows from several lines of the table together."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.case import Case, Sample

QUOTED_RPS = {"BLIS": 3200, "AISimulate (engine alone)": 7700}
"""Requests per second that the fastest existing simulators are said to do on 10 000 requests of 690 tokens in and 180
out on a machine like the one simlab is developed on: quoted, not measured here."""


def remarks(measured: Sequence[tuple[Case, Sequence[Sample]]]) -> list[str]:
    """Sentences to print below the table."""
    best = {(case.benchmark, case.name): min(samples, key=lambda s: s.seconds) for case, samples in measured}
    peak = {(case.benchmark, case.name): max(s.peak_mib for s in samples) for case, samples in measured}
    said = []
    short, long = ("month", "3 days"), ("month", "30 days")
    if short in best and long in best:
        growth = peak[long] - peak[short]
        said.append(f"Ten times the horizon takes {growth:+.0f} MiB ({growth / peak[short]:+.1%}) at the peak.")
    ours, plain = ("oracle-size", "simlab.replay"), ("oracle-size", "ordinary SimPy program")
    if ours in best and plain in best:
        said.append(_beside(best[ours], best[plain]))
    return said


def _beside(ours: Sample, plain: Sample) -> str:
    ttft, e2e = (abs(ours.report.facts[name] / plain.report.facts[name] - 1) for name in ("ttft_s", "e2e_s"))
    quoted = ", ".join(f"{name} {rps:,.0f} requests/s" for name, rps in QUOTED_RPS.items())
    return (
        f"simlab.replay is {ours.rate_rps / plain.rate_rps:,.0f} times as fast as the SimPy program; "
        f"mean TTFT differs by {ttft:.1e} of it, mean E2E by {e2e:.1e}. "
        f"For scale, quoted and not measured here: {quoted}."
    )
