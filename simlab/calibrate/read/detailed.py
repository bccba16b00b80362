"""Requests of a ``vllm bench serve`` result with ``--save-detailed``, and its own summary checked against them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.fields import Fields, Floats, shown
from simlab.calibrate.read.metrics import close_loop_starts, quantities, statistic
from simlab.calibrate.read.plausible import close, unit_hint
from simlab.calibrate.run import Requests

STATISTIC = re.compile(r"(mean|median|std|p\d+(?:\.\d+)?)_(ttft|tpot|itl|e2el)_ms")
"""A statistic in a summary: mean_ttft_ms, p99_itl_ms …"""

LISTS = ("input_lens", "output_lens", "ttfts")
"""Lists that every detailed result has, one item a request."""

ROUNDING_MS = 6e-3
"""A summary may be rounded to hundredths of a ms."""


@dataclass(frozen=True)
class Detail:
    """Requests of a result.

    Attributes:
        requests: those that completed with at least one token, in the order of sending.
        completed: how many completed.
        failed: how many did not.
        notes: what had to be assumed.
    """

    requests: Requests
    completed: int
    failed: int
    notes: tuple[str, ...] = ()


def is_detailed(entry: Fields) -> bool:
    """Whether a result has its requests."""
    return all(entry.has(name) for name in LISTS)


def read_detail(entry: Fields) -> Detail | None:
    """The requests of a result; None where a list is wrong, which the problems then say."""
    before = len(entry.problems)
    inputs = entry.numbers("input_lens")
    if inputs is None:
        return None
    n = len(inputs)
    outputs, ttft = entry.numbers("output_lens", count=n), entry.numbers("ttfts", count=n)
    itls, latencies = _gap_lists(entry, n), entry.numbers("latencies", count=n)
    starts = entry.numbers("start_times", count=n, least=-np.inf)
    if len(entry.problems) > before or outputs is None or ttft is None:
        return None
    good = _completed(entry, outputs)
    kept = np.flatnonzero(good & (outputs > 0))
    completed = int(good.sum())
    if len(kept) == 0:
        return Detail(_none(), completed, n - completed)
    if itls is None and latencies is None:
        entry.wrong("itls", "neither itls nor latencies are there; with --save-detailed at least one is")
        return None
    if _wrong_units(entry, "ttfts", ttft[kept], "mean_ttft_ms"):
        return None
    summed = None if itls is None else ttft + np.array([gap.sum() for gap in itls])
    e2e = summed if latencies is None else latencies
    assert e2e is not None
    if not _consistent(entry, ttft, e2e, summed, kept):
        return None
    notes = [] if completed == len(kept) else [f"{completed - len(kept)} requests without any token are left out"]
    if starts is None:
        start, note = _starts(entry, e2e[kept])
        notes.append(note)
    else:
        kept = kept[np.argsort(starts[kept], kind="stable")]
        start = starts[kept] - starts[kept[0]]
    requests = Requests(
        start_s=start,
        prompt_tokens=inputs[kept].astype(np.int64),
        output_tokens=outputs[kept].astype(np.int64),
        ttft_s=ttft[kept],
        e2e_s=e2e[kept],
        itl_s=None if itls is None else tuple(itls[i] for i in kept),
    )
    return Detail(requests, completed, n - completed, tuple(notes))


def _none() -> Requests:
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Requests(nothing, none, none, nothing, nothing)


def _completed(entry: Fields, outputs: Floats) -> NDArray[np.bool_]:
    """Which requests completed: those without an error text; where no texts are kept, those with tokens."""
    errors = entry.data.get("errors")
    if isinstance(errors, list) and len(errors) == len(outputs):
        return np.array([not error for error in errors], dtype=bool)
    return outputs > 0


def _starts(entry: Fields, e2e: Floats) -> tuple[Floats, str]:
    """When requests were sent, for results of versions that do not keep it."""
    rate = entry.data.get("request_rate")
    if rate is None or str(rate).lower() in {"inf", "infinity"}:
        limit = entry.data.get("max_concurrency")
        starts = close_loop_starts(e2e, int(limit) if isinstance(limit, (int, float)) and limit >= 1 else None)
        return starts, "times of sending are reconstructed: the next request as soon as one ended"
    return np.full(len(e2e), np.nan), "when requests were sent is not in the file"


def _wrong_units(entry: Fields, name: str, values: Floats, summary: str) -> bool:
    """Whether a list is a thousand times its own summary, and longer than the run: a problem."""
    said, mean = entry.data.get(summary), float(np.mean(values))
    if not isinstance(said, (int, float)) or not unit_hint(mean * 1e3, float(said)) or values.max() < _duration(entry):
        return False
    message = f"the mean of the list is {mean:.6g}, but {summary} is {said:.6g} ms; lists are in s"
    entry.wrong(name, f"{message}, not ms; give the file as the benchmark wrote it")
    return True


def _duration(entry: Fields) -> float:
    """How long the run took, s; infinite where not stated."""
    duration = entry.data.get("duration")
    return float(duration) if isinstance(duration, (int, float)) and duration > 0.0 else np.inf


def _consistent(entry: Fields, ttft: Floats, e2e: Floats, summed: Floats | None, kept: NDArray[np.int64]) -> bool:
    """Whether the times of each request can be true together; a problem where not."""
    before = len(entry.problems)
    repair = "give the file as the benchmark wrote it"
    if summed is not None and summed is not e2e:
        off = kept[~np.isclose(summed[kept], e2e[kept], rtol=2e-3, atol=1e-3)]
        if len(off):
            i = int(off[0])
            message = f"read {e2e[i]:.6g} s, but ttfts[{i}] and itls[{i}] add up to {summed[i]:.6g} s"
            entry.wrong(f"latencies[{i}]", f"{message}{unit_hint(e2e[i], summed[i])}; {repair}")
    early = kept[e2e[kept] < ttft[kept] * (1.0 - 1e-6)]
    if len(early):
        i = int(early[0])
        message = f"the first token came after {ttft[i]:.6g} s, but the whole request took {e2e[i]:.6g} s"
        entry.wrong(f"ttfts[{i}]", f"{message}{unit_hint(ttft[i], e2e[i])}; {repair}")
    duration = _duration(entry)
    if len(entry.problems) == before and e2e[kept].max() > duration * 1.001:
        i = int(kept[np.argmax(e2e[kept])])
        name = "ttfts" if ttft[i] > duration else "itls" if summed is e2e else "latencies"
        message = f"request {i} took {e2e[i]:.6g} s, longer than the whole run of {duration:.6g} s"
        entry.wrong(f"{name}[{i}]", f"{message}{unit_hint(e2e[i], duration)}; all lists are in s")
    return len(entry.problems) == before


def _gap_lists(entry: Fields, n: int) -> list[Floats] | None:
    lists = entry.data.get("itls")
    if lists is None:
        return None
    if not isinstance(lists, list) or len(lists) != n:
        entry.wrong("itls", f"read {shown(lists)}; allowed: {n} lists of seconds, one a request")
        return None
    try:
        arrays = [np.array(one, dtype=np.float64).reshape(len(one)) for one in lists]
    except (TypeError, ValueError):
        entry.wrong("itls", "holds something else than lists of numbers; give the file as the benchmark wrote it")
        return None
    flat = np.concatenate([*arrays, np.zeros(0)])
    wrong = np.flatnonzero(~(flat >= 0.0) | ~np.isfinite(flat))
    if len(wrong):
        i = int(np.searchsorted(np.cumsum([len(one) for one in arrays]), wrong[0], side="right"))
        message = f"read {flat[wrong[0]]}; allowed: seconds of 0 or more; correct it, or measure again"
        entry.wrong(f"itls[{i}]", message)
        return None
    return arrays


def check_summary(entry: Fields, detail: Detail) -> None:
    """Adds problems where a file's own summary is not that of its requests."""
    requests = detail.requests
    counts = {
        "completed": detail.completed,
        "failed": detail.failed,
        "total_input_tokens": int(requests.prompt_tokens.sum()),
        "total_output_tokens": int(requests.output_tokens.sum()),
    }
    empty = detail.completed - len(requests.start_s)
    for name, count in counts.items():
        said = entry.whole(name)
        if said is not None and said != count and not (empty and name == "total_input_tokens"):
            entry.wrong(name, f"read {said}, but the lists of requests give {count}; the file was changed or merged")
    if not empty:
        for quantity, values in quantities(requests).items():
            _check_statistics(entry, quantity, values)
    duration, rate = entry.number("duration"), entry.number("output_throughput")
    if duration and rate is not None:
        own = float(requests.output_tokens.sum()) / duration
        if not close(rate, own, slack=ROUNDING_MS):
            message = f"read {rate:g} tokens/s, but {requests.output_tokens.sum()} tokens in {duration:g} s are {own:g}"
            entry.wrong("output_throughput", f"{message}; the file was changed")


def _check_statistics(entry: Fields, quantity: str, values: Floats) -> None:
    """Adds one problem where statistics of a quantity are not those of its values."""
    wrong: list[tuple[str, float, float]] = []
    for name in entry.data:
        parts = STATISTIC.fullmatch(name)
        said_ms = entry.number(name) if parts and parts[2] == quantity else None
        if parts is None or said_ms is None:
            continue
        own = statistic(values, parts[1]) * 1e3
        if not close(said_ms, own, slack=ROUNDING_MS):
            wrong.append((name, said_ms, own))
    if wrong:
        name, said, own = wrong[0]
        more = f" (and {len(wrong) - 1} more of its statistics)" if len(wrong) > 1 else ""
        message = f"read {said:g} ms, but the requests give {own:g} ms{unit_hint(said, own)}"
        entry.wrong(name, f"{message}; the file was changed{more}")
