"""Metrics of a run from its requests, and whether given ones can be true together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simlab.calibrate.read.problems import Problems
from simlab.calibrate.run import METRICS, Requests

Floats = NDArray[np.float64]

FIELDS: dict[str, tuple[str, str]] = {
    "ttft_s_mean": ("ttft", "mean"),
    "ttft_s_p50": ("ttft", "p50"),
    "ttft_s_p99": ("ttft", "p99"),
    "itl_s_mean": ("itl", "mean"),
    "tpot_s_mean": ("tpot", "mean"),
    "e2e_s_mean": ("e2el", "mean"),
}
"""The quantity and the statistic of each metric that is a time."""

UNITS_FACTOR = 1000.0
"""Two readings of one time that are this far apart are one in s and one in ms."""


def tpot(requests: Requests) -> Floats:
    """Time per output token after the first, s, of the requests with more than one: (e2e − ttft) / (output − 1)."""
    many = requests.output_tokens > 1
    return (requests.e2e_s[many] - requests.ttft_s[many]) / (requests.output_tokens[many] - 1)


def gaps(requests: Requests) -> Floats | None:
    """All times between tokens, s, in one array; None where not kept."""
    if requests.itl_s is None:
        return None
    return np.concatenate(requests.itl_s) if requests.itl_s else np.array([])


def quantities(requests: Requests) -> dict[str, Floats]:
    """What statistics are of, s: ``ttft``, ``tpot``, ``itl`` where kept, ``e2el``."""
    found = {"ttft": requests.ttft_s, "tpot": tpot(requests), "e2el": requests.e2e_s}
    between = gaps(requests)
    return found if between is None else {**found, "itl": between}


def statistic(values: Floats, name: str) -> float:
    """``mean``, ``median``, ``std`` or ``pNN`` (numpy's, linear between order statistics); 0 of nothing."""
    if len(values) == 0:
        return 0.0
    if name == "mean":
        return float(np.mean(values))
    if name == "std":
        return float(np.std(values))
    return float(np.percentile(values, 50.0 if name == "median" else float(name[1:])))


def metrics_of(requests: Requests, duration_s: float | None = None) -> dict[str, float]:
    """Metrics of a run from its requests.

    Args:
        requests: at least one.
        duration_s: of the run, s; from the first sending to the last token where None.

    Returns:
        By name of `METRICS`. Time between tokens is the mean over all gaps; where these are not kept, the time after
        the first token over the tokens after it, which is the same when every gap is of one token.
    """
    known = quantities(requests)
    found = {name: statistic(known[of], how) for name, (of, how) in FIELDS.items() if of in known and len(known[of])}
    after = float(np.maximum(requests.output_tokens - 1, 0).sum())
    if "itl_s_mean" not in found and after > 0:
        found["itl_s_mean"] = float((requests.e2e_s - requests.ttft_s).sum()) / after
    if duration_s is None and np.isfinite(requests.start_s).all():
        duration_s = float((requests.start_s + requests.e2e_s).max() - requests.start_s.min())
    if duration_s:
        found["output_tokens_per_s"] = float(requests.output_tokens.sum()) / duration_s
    return {name: found[name] for name in METRICS if name in found}


def close(a: float, b: float, *, share: float = 2e-3, slack: float = 0.0) -> bool:
    """Whether two numbers are one but for rounding."""
    return math.isclose(a, b, rel_tol=share, abs_tol=slack)


def unit_hint(read: float, other: float) -> str:
    """Says so when two readings differ as seconds and milliseconds do; else nothing."""
    if read <= 0.0 or other <= 0.0:
        return ""
    factor = max(read / other, other / read)
    return "; one is in s and the other in ms" if 0.5 < factor / UNITS_FACTOR < 2.0 else ""


def check_together(
    measured: Mapping[str, float],
    where: str,
    problems: Problems,
    *,
    fields: Mapping[str, str] | None = None,
    duration_s: float | None = None,
    concurrency: int | None = None,
    output_tokens: float | None = None,
) -> None:
    """Adds a problem for metrics that cannot be true together, as when one is in s and another in ms.

    A request cannot take less time than its first token; tokens cannot come faster than ``concurrency`` streams give
    them; no time is longer than the run.
    """
    names = fields or {}

    def ms(name: str) -> str:
        return f"{measured[name] * 1e3:.6g} ms"

    def wrong(name: str, message: str) -> None:
        repair = "look for a time in s where ms belong, or the other way round"
        problems.add(where, names.get(name, name), f"{message}; {repair}")

    if measured.get("ttft_s_p50", 0.0) > measured.get("ttft_s_p99", math.inf) * 1.001:
        wrong("ttft_s_p99", f"is {ms('ttft_s_p99')}, below the median of {ms('ttft_s_p50')}")
    if "ttft_s_mean" in measured and "e2e_s_mean" in measured:
        if measured["ttft_s_mean"] > measured["e2e_s_mean"] * 1.001:
            wrong("ttft_s_mean", f"is {ms('ttft_s_mean')}, more than the whole request's {ms('e2e_s_mean')}")
        elif "tpot_s_mean" in measured and output_tokens is not None and output_tokens > 1.5:
            # Long answers weigh more in the one than in the other: only a mistake of units is told apart.
            whole = measured["ttft_s_mean"] + measured["tpot_s_mean"] * (output_tokens - 1.0)
            if not 0.1 < whole / max(measured["e2e_s_mean"], 1e-12) < 10.0:
                parts = f"mean TTFT and {output_tokens - 1:.0f} tokens of mean TPOT make {whole * 1e3:.6g} ms"
                wrong("tpot_s_mean", f"is {ms('tpot_s_mean')}: {parts}, but a whole request takes {ms('e2e_s_mean')}")
    if duration_s is not None and duration_s > 0.0:
        for name in FIELDS:
            if name in measured and measured[name] > duration_s * 1.01:
                wrong(name, f"is {measured[name]:.6g} s, longer than the whole run of {duration_s:.6g} s")
                return
    stream = measured.get("itl_s_mean", measured.get("tpot_s_mean"))
    rate = measured.get("output_tokens_per_s")
    if stream is not None and stream > 0.0 and rate is not None and concurrency is not None:
        most = concurrency / stream
        # Tokens that come in one chunk, or first tokens, make the rate a little larger than the streams alone.
        if rate > 3.0 * most + concurrency / max(measured.get("ttft_s_mean", math.inf), 1e-9):
            given = f"{concurrency} streams of {stream * 1e3:.6g} ms a token give at most {most:.6g} tokens/s"
            wrong("output_tokens_per_s", f"is {rate:.6g} tokens/s, but {given}")
