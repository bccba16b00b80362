"""Tables for the terminal that are Markdown as well."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.case import Case, Sample


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A Markdown table; the first row is its head."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = [("-" * (w - 1)) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def rate(value: float) -> str:
    """Requests per second."""
    return f"{value / 1e6:.2f} M/s" if value >= 1e6 else f"{value:,.0f} /s"


def duration(value_s: float) -> str:
    """Seconds, three digits of them."""
    return f"{value_s:.3g} s" if value_s < 100 else f"{value_s:.0f} s"


def _target(case: Case, best: Sample, middle_s: float, peak_mib: float) -> str:
    """What is wanted, and whether it is so: rates by the best run, times by the median."""
    wanted = []
    if case.target_rps is not None:
        wanted.append((f"≥ {rate(case.target_rps)}", best.rate_rps >= case.target_rps))
    if case.target_s is not None:
        wanted.append((f"≤ {duration(case.target_s)}", middle_s <= case.target_s))
    if case.target_mib is not None:
        wanted.append((f"≤ {case.target_mib:.0f} MiB", peak_mib <= case.target_mib))
    return ", ".join(f"{text} {'✓' if met else '✗'}" for text, met in wanted)


def results(measured: Sequence[tuple[Case, Sequence[Sample]]]) -> str:
    """Each case's best and median, CPU time of the median process, highest peak, target and note."""
    rows = [["benchmark", "case", "best", "median", "runs", "CPU", "peak memory", "target", ""]]
    for case, samples in measured:
        best = min(samples, key=lambda sample: sample.seconds)
        middle_s = statistics.median(sample.seconds for sample in samples)
        peak_mib = max(sample.peak_mib for sample in samples)
        if case.is_rate:
            figures = [rate(best.rate_rps), rate(statistics.median(sample.rate_rps for sample in samples))]
        else:
            figures = [duration(best.seconds), duration(middle_s)]
        cpu_s = statistics.median(sample.cpu_s for sample in samples)
        rows.append(
            [
                case.benchmark,
                case.name,
                *figures,
                str(len(samples)),
                duration(cpu_s),
                f"{peak_mib:.0f} MiB",
                _target(case, best, middle_s, peak_mib),
                best.report.note,
            ]
        )
    return aligned(rows, [False, False, True, True, True, True, True, False, False])


def ratios(measured: Sequence[tuple[Case, Sequence[Sample], Sequence[Sample]]], revision: str) -> str:
    """Old beside new: how many times faster the new one is, by best and as the median over pairs, and its memory."""
    rows = [["benchmark", "case", revision, "here", "faster (best)", "faster (pairs)", "memory"]]
    for case, old, new in measured:
        was, now = (min(samples, key=lambda sample: sample.seconds) for samples in (old, new))
        shown = [rate(s.rate_rps) if case.is_rate else duration(s.seconds) for s in (was, now)]
        pairs = statistics.median(_faster(case, a, b) for a, b in zip(old, new, strict=True))
        memory = max(s.peak_mib for s in new) / max(s.peak_mib for s in old)
        rows.append(
            [case.benchmark, case.name, *shown, f"× {_faster(case, was, now):.2f}", f"× {pairs:.2f}", f"× {memory:.2f}"]
        )
    return aligned(rows, [False, False, True, True, True, True, True])


def _faster(case: Case, old: Sample, new: Sample) -> float:
    return new.rate_rps / old.rate_rps if case.is_rate else old.seconds / new.seconds
