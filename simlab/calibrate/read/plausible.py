"""Whether metrics of one run can be true together: most mistakes are a time in s where ms belong, or the reverse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simlab.calibrate.read.metrics import STATISTICS
from simlab.calibrate.read.problems import Problems

FASTEST_TOKEN_S, FASTEST_FIRST_S = 1e-4, 5e-4
"""No server makes a token of one request, or a first token, faster than this."""

SLOWEST_TOKEN_S = 30.0
"""A mean time per token above this is taken for a mistake."""

FIRST_TO_NEXT = 0.1
"""A first token needs a step of its own, so it cannot come in less than this share of the time of another token."""

UNITS_FACTOR = 1000.0
"""Two readings of one time that are this far apart are one in s and one in ms."""


@dataclass(frozen=True)
class Frame:
    """What bounds the metrics of a run; None where not known.

    Attributes:
        duration_s: of the run, s.
        completed: requests that completed.
        concurrency: most in flight.
        closed: a new request is sent as soon as one ends, or all at once: the server is never idle.
        output_tokens: mean of a request.
    """

    duration_s: float | None = None
    completed: float | None = None
    concurrency: int | None = None
    closed: bool = False
    output_tokens: float | None = None


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
    measured: Mapping[str, float], frame: Frame, where: str, fields: Mapping[str, str], problems: Problems
) -> None:
    """Adds the first reason why metrics cannot be true together.

    Args:
        measured: by name of `METRICS`, s and tokens/s.
        frame: what bounds them.
        where: their file and line.
        fields: what the file calls them.
        problems: gets the reason.
    """
    found = (
        _too_fast_or_slow(measured) or _order(measured) or _whole_request(measured, frame) or _duration(measured, frame)
    )
    if found is not None:
        metric, message = found
        repair = "look for a time in s where ms belong, or the other way round"
        problems.add(where, fields.get(metric, metric), f"{message}; {repair}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.6g} ms"


def _too_fast_or_slow(measured: Mapping[str, float]) -> tuple[str, str] | None:
    for metric in ("itl_s_mean", "tpot_s_mean"):
        seconds = measured.get(metric, math.nan)
        if seconds < FASTEST_TOKEN_S:
            return metric, f"is {_ms(seconds)} a token: no server is that fast (at least {_ms(FASTEST_TOKEN_S)})"
        if seconds > SLOWEST_TOKEN_S:
            return metric, f"is {seconds:.6g} s a token: no server is that slow (at most {SLOWEST_TOKEN_S:g} s)"
    for metric in ("ttft_s_mean", "ttft_s_p50", "e2e_s_mean"):
        seconds = measured.get(metric, math.nan)
        if seconds < FASTEST_FIRST_S:
            return metric, f"is {_ms(seconds)}: no server answers that fast (at least {_ms(FASTEST_FIRST_S)})"
    return None


def _order(measured: Mapping[str, float]) -> tuple[str, str] | None:
    p50, p99 = measured.get("ttft_s_p50", 0.0), measured.get("ttft_s_p99", math.inf)
    if p50 > p99 * 1.001:
        return "ttft_s_p99", f"is {_ms(p99)}, below the median of {_ms(p50)}"
    first, token = measured.get("ttft_s_mean"), measured.get("tpot_s_mean", measured.get("itl_s_mean"))
    if first is not None and token is not None and first < FIRST_TO_NEXT * token:
        name = "tpot_s_mean" if "tpot_s_mean" in measured else "itl_s_mean"
        return name, f"is {_ms(token)} a token, but the first one comes after {_ms(first)}, which takes a step too"
    return None


def _whole_request(measured: Mapping[str, float], frame: Frame) -> tuple[str, str] | None:
    if not {"ttft_s_mean", "e2e_s_mean"} <= measured.keys():
        return None
    first, whole = measured["ttft_s_mean"], measured["e2e_s_mean"]
    if first > whole * 1.001:
        return "ttft_s_mean", f"is {_ms(first)}, more than a whole request's {_ms(whole)}"
    tokens = frame.output_tokens
    if "tpot_s_mean" in measured and tokens is not None and tokens > 1.5:
        # Long answers weigh more in one mean than in the other, so only mistakes of units are told apart.
        parts = first + measured["tpot_s_mean"] * (tokens - 1.0)
        if not 0.1 < parts / whole < 10.0:
            made = f"{_ms(first)} and {tokens - 1.0:.0f} tokens of {_ms(measured['tpot_s_mean'])} make {_ms(parts)}"
            return "tpot_s_mean", f"{made}, but a whole request takes {_ms(whole)}"
    return None


def _duration(measured: Mapping[str, float], frame: Frame) -> tuple[str, str] | None:
    duration = frame.duration_s
    if duration is not None and duration > 0.0:
        for metric in STATISTICS:
            if measured.get(metric, 0.0) > duration * 1.01:
                return metric, f"is {measured[metric]:.6g} s, longer than the whole run of {duration:.6g} s"
        if frame.closed and frame.completed is not None and "e2e_s_mean" in measured:
            flight = frame.completed * measured["e2e_s_mean"] / duration
            full = frame.concurrency or frame.completed
            if flight < 0.02 * min(full, frame.completed):
                given = f"{frame.completed:.0f} requests of {_ms(measured['e2e_s_mean'])} in {duration:.6g} s"
                return "e2e_s_mean", f"{given} are {flight:.3g} in flight, not {full:.0f}"
    token, rate = measured.get("itl_s_mean", measured.get("tpot_s_mean")), measured.get("output_tokens_per_s")
    if token is not None and rate is not None and frame.concurrency is not None:
        most = frame.concurrency / token
        # First tokens come besides these; with few tokens a request they are a good part of all.
        if rate > 3.0 * most + frame.concurrency / measured.get("ttft_s_mean", token):
            given = f"{frame.concurrency} requests at a time of {_ms(token)} a token give at most {most:.6g}"
            return "output_tokens_per_s", f"is {rate:.6g} tokens/s, but {given}"
    return None
