"""A fit as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simlab.calibrate.fitted import Fits, Fitted, listed
from simlab.report.page import Page, Table
from simlab.results import words

_UNITS = {
    "base_s": "a step",
    "per_seq_s": "a decoding sequence",
    "per_kv_token_s": "a token of a decoding sequence's context",
    "per_prefill_kv_token_s": "a token of a prefilling request's context",
    "attn_s": "a prompt token and token of its context",
    "per_prefill_token_s": "a prompt token",
    "per_prefill_seq_s": "a prefilling request",
    "linear": "a step of 1,024 tokens (table)",
    "prefill_linear": "a step of 1,024 tokens with prompt tokens (table)",
    "overhead_s": "a request, outside the scheduler",
}
"""What each term is the time of."""

_ERRORS = {
    "ttft": "TTFT mean",
    "ttft_p50": "TTFT p50",
    "ttft_p99": "TTFT p99",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "throughput": "output rate",
    "step": "steps",
    "step_decode": "decode steps",
    "step_mixed": "mixed steps",
    "step_prefill": "prefill steps",
}
"""Beginnings of the keys of `Profile.error`, in words."""

_MANY = 3
"""Profiles up to which each is shown with its coefficients."""


def page(found: Fits, files: Mapping[str, Path]) -> Page:
    """The fit as a page: what was fitted on what, how well, and what to do with it."""
    detailed = len(found.fitted) <= _MANY
    tables = [_overview(found, files)]
    for one in found.fitted if detailed else ():
        tables += [_coefficients(one), _errors(one)]
    remarks = [("warning", f"{one.setup}: no profile: {one.reason}") for one in found.unfitted]
    for one in found.fitted:
        prefix = f"{one.profile.name}: " if len(found.fitted) > 1 else ""
        if detailed:
            remarks += [("warning", f"{prefix}{text}") for text in _left_out(one)]
            weak = one.weakest()
            remarks += [("warning" if "not" in weak else "met", f"{prefix}{weak}")] if weak else []
        elif one.left_out:
            remarks.append(("warning", f"{prefix}{len(one.left_out)} runs left out (their reasons: --format json)"))
    # Of many profiles each carries its own notes.
    notes = dict.fromkeys(note for one in found.fitted for note in one.notes) if detailed else {}
    return Page(
        "calibration",
        headline(found),
        tuple(remarks),
        tuple(table for table in tables if table.rows),
        (*notes, *ASSUMPTIONS),
        _usage(found, files),
    )


ASSUMPTIONS = (
    "left out: each operating point predicted by a fit that did not see it; of steps, blocks of the log",
    "deviations are one standard deviation; simulations draw from their covariance",
)


def headline(found: Fits) -> str:
    """What was made of what, in one sentence."""
    if not found.fitted:
        return "No set-up has enough runs for a profile"
    if len(found.fitted) == 1:
        one = found.fitted[0]
        return f"{one.profile.name}: fitted on {_count(one)}; {one.profile.error_in_words() or 'error not known'}"
    runs = sum(one.runs for one in found.fitted)
    rest = f"; {len(found.unfitted)} set-ups have none" if found.unfitted else ""
    return f"{len(found.fitted)} profiles fitted on {runs} runs{rest}"


def _count(one: Fitted) -> str:
    parts = [f"{one.runs:,} run{'s' * (one.runs != 1)}"]
    parts += [f"{one.requests:,} requests"] if one.requests else []
    parts += [f"{one.steps:,} steps"] if one.steps else []
    return ", ".join(parts)


def _left_out(one: Fitted) -> list[str]:
    """What was left out, a line for each kind of reason."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for run, reason in one.left_out:
        kind, _, detail = reason.partition(": ")
        kinds.setdefault(kind, []).append((run, detail))
    lines = []
    for kind, runs in kinds.items():
        detail = runs[0][1] and f": {runs[0][1]}" + (" (of the first)" if len(runs) > 1 else "")
        lines.append(f"left out: {listed([run for run, _ in runs], 12)}: {kind}{detail}")
    return lines


def _overview(found: Fits, files: Mapping[str, Path]) -> Table:
    """One line a profile."""
    rows = []
    for one in found.fitted:
        counts = (str(one.runs), *(f"{n:,}" if n else words.UNKNOWN for n in (one.requests, one.steps)))
        rows.append((one.profile.name, *counts, one.profile.error_in_words() or "not known"))
    places = {files[one.profile.name] for one in found.fitted}
    where = places.pop() if len(places) == 1 else next(iter(files.values())).parent if files else ""
    title = f"Written to {where}" if len(found.fitted) == 1 else f"Written to {where}/SET-UP.json"
    return Table(title, ("set-up", "runs", "requests", "steps", "error"), tuple(rows), left=(4,))


def _coefficients(one: Fitted) -> Table:
    """The terms of the step time."""
    rows = []
    for term, value, sd in one.coefficients():
        rows.append((term, _seconds(value), words.UNKNOWN if sd is None else f"± {words.percent(sd)}", _UNITS[term]))
    title = f"Step time of {one.profile.name}"
    return Table(title, ("term", "value", "deviation", "of"), tuple(rows), left=(3,))


def _seconds(value: float) -> str:
    """A coefficient: its seconds in the unit that suits, down to picoseconds."""
    for limit, factor, unit in ((1e-9, 1e12, "ps"), (1e-6, 1e9, "ns")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return words.number(value, "s")


def _errors(one: Fitted) -> Table:
    """What the fit misses by, in each metric, for the runs it saw and for those it did not."""
    error = one.profile.error
    rows = []
    for prefix, name in _ERRORS.items():
        cells = [error.get(f"{prefix}_{kind}") for kind in ("median_ape", "left_out_median_ape", "left_out_p90_ape")]
        if any(cell is not None for cell in cells):
            rows.append((name, *(words.percent(cell) for cell in cells)))
    title = f"Error of {one.profile.name}"
    return Table(title, ("", "fitted, median", "left out, median", "left out, p90"), tuple(rows))


def _usage(found: Fits, files: Mapping[str, Path]) -> str:
    """How to use it."""
    if not found.fitted:
        return "Nothing was written."
    one = found.fitted[0]
    file = files[one.profile.name]
    return (
        f"Use it in a scenario: pools: {{own: {{model: {one.profile.model}, gpu: {one.profile.gpu}, "
        f"tp: {one.profile.tp}, profile: {file}}}}} · simlab run SCENARIO --set pools.NAME.profile={file}\n"
        f"Check it on other runs: simlab calibrate validate {file if len(found.fitted) == 1 else file.parent} RUNS"
    )
