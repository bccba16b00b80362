"""Alerts: what the rules of a scenario would have said of the simulated stream, and when.

A rule looks at a window when it ends, which is when it can detect anything. The onset is when the stream crossed the
threshold: for spending, which adds up over a window, where a straight line through it does; else the window's begin.
A rule that fires in window after window about the same subject is one alert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.results import words
from simlab.results.facts import AlertsLike
from simlab.results.keys import numbered
from simlab.results.measurements import Measurements
from simlab.results.savings import LAYERS
from simlab.results.stream import Floats, Stream

RULES = {
    "tenant_spend": ("USD", "{subject} spent {value} in a window, over {limit}"),
    "call_cost": ("USD/call", "a call of {subject} costs {value}, over {limit}"),
    "cache_drop": ("ratio", "hits of the {subject} cache fell to {value}, under {limit}"),
    "errors": ("ratio", "{value} of attempts at {subject} fail, over {limit}"),
    "refusals": ("ratio", "{value} of attempts at {subject} are refused, over {limit}"),
    "spend_sd": ("USD", "{subject}: {value} spent in a window, over {limit}"),
}
"""The rules, each with the unit of its value and what it says."""

EVERYTHING = "everything"
"""Subject of a rule about the whole bill."""

DAY_S = 86_400.0
_FEWEST_TENANTS = 3
_FEWEST_DAYS = 3
_LEAST_SD = 0.1
"""Share of the mean below which a standard deviation of a few days is not believed."""


@dataclass(frozen=True)
class Alert:
    """One alert.

    Args:
        rule: a key of `RULES`.
        subject: the tenant, feature, cache or backend it is about.
        onset_s: when the stream crossed the threshold, s.
        detected_s: end of the first window in which the rule fired, s.
        until_s: end of the last one in a row, s.
        value: what was found in the first window.
        limit: the threshold it crossed.
        replication: in which replication.
    """

    rule: str
    subject: str
    onset_s: float
    detected_s: float
    until_s: float
    value: float
    limit: float
    replication: int

    @property
    def unit(self) -> str:
        """Unit of value and limit."""
        return RULES[self.rule][0]

    @property
    def sentence(self) -> str:
        """It in words."""
        value, limit = (words.number(number, self.unit) for number in (self.value, self.limit))
        return RULES[self.rule][1].format(subject=self.subject, value=value, limit=limit)

    def as_dict(self) -> dict[str, Any]:
        """It as plain JSON values."""
        names = ("rule", "subject", "replication", "onset_s", "detected_s", "until_s", "value", "limit", "unit")
        return {**{name: getattr(self, name) for name in names}, "sentence": self.sentence}


def alerts(rules: AlertsLike, measured: Measurements, replication: int = 0) -> list[Alert]:
    """Every alert of one replication, by time of detection; none where no stream was kept."""
    stream = measured.stream
    if stream is None:
        return []
    found: list[Alert] = []
    for rule, names, value, limit, below in _looked_at(rules, measured, stream):
        crossed = value < limit if below else value > limit
        for column in np.flatnonzero(crossed.any(axis=0)).tolist():
            for first, last in _runs(crossed[:, column]):
                reached, allowed = float(value[first, column]), float(limit[first, column])
                share = allowed / reached if rule in ("tenant_spend", "spend_sd") else 0.0
                found.append(
                    Alert(
                        rule=rule,
                        subject=names[column],
                        onset_s=(first + share) * stream.window_s,
                        detected_s=(first + 1) * stream.window_s,
                        until_s=(last + 1) * stream.window_s,
                        value=reached,
                        limit=allowed,
                        replication=replication,
                    )
                )
    return sorted(found, key=lambda alert: (alert.detected_s, alert.rule, alert.subject))


_Look = tuple[str, Sequence[str], Floats, Floats, bool]
"""A rule, its subjects, value and limit of each window and subject [W, n] (NaN: it says nothing), fires when below."""


def _looked_at(rules: AlertsLike, measured: Measurements, stream: Stream) -> Iterator[_Look]:
    """What each rule looks at."""
    if rules.tenant_spend is not None:
        pairs = zip(measured.class_names, measured.tenants_of_class, strict=True)
        names = [f"{name}/t{tenant}" for name, count in pairs for tenant in range(count)]
        yield "tenant_spend", names, stream.usd, _of_median(stream.usd, rules.tenant_spend), False
    if rules.call_cost is not None:
        names, usd = _by_feature(measured, stream.usd)
        calls = _by_feature(measured, stream.calls)[1]
        n = max(1, round(rules.period / stream.window_s))
        now_usd, now_calls = (_over(table, n) for table in (usd, calls))
        enough = (now_calls >= rules.least_calls) & (_later(now_calls, n) >= rules.least_calls)
        limit = rules.call_cost * _share(_later(now_usd, n), _later(now_calls, n))
        yield "call_cost", names, _share(now_usd, now_calls), np.where(enough, limit, np.nan), False
    n = max(1, round(rules.baseline / stream.window_s))
    if rules.cache_drop is not None:
        keep = 1.0 - rules.cache_drop
        yield "cache_drop", LAYERS, *_against(stream.hits, stream.lookups, n, rules.least_calls, keep, 0.0), True
    for rule, part, rise in (("errors", stream.errors, rules.errors), ("refusals", stream.refusals, rules.refusals)):
        if rise is not None:
            look = _against(part, stream.attempts, n, rules.least_calls, 1.0, rise)
            yield rule, measured.backend_names, *look, False
    if rules.spend_sd is not None:
        usd = stream.usd.sum(axis=1, keepdims=True)
        yield "spend_sd", [EVERYTHING], usd, _of_days(usd, round(DAY_S / stream.window_s), rules.spend_sd), False


def _runs(fires: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and last index of each stretch in which a rule fires."""
    steps = np.diff(np.concatenate(([0], fires.astype(np.int8), [0])))
    yield from zip(np.flatnonzero(steps == 1).tolist(), (np.flatnonzero(steps == -1) - 1).tolist(), strict=True)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _over(table: Floats, n: int) -> Floats:
    """Sums over the last n windows, NaN before there are so many."""
    sums = np.cumsum(np.vstack([np.zeros_like(table[:1]), table]), axis=0)
    found = np.full(table.shape, np.nan)
    found[n - 1 :] = sums[n:] - sums[:-n]
    return found


def _later(table: Floats, n: int) -> Floats:
    """The table as it was n windows before, NaN where there was none."""
    found = np.full(table.shape, np.nan)
    found[n:] = table[:-n]
    return found


def _of_median(usd: Floats, times: float) -> Floats:
    """A multiple of the median of the tenants that spent in a window, where there are a few."""
    spent = np.where(usd > 0, usd, np.nan)
    few = (usd > 0).sum(axis=1) < _FEWEST_TENANTS
    median = np.array([np.nan if lonely else np.nanmedian(row) for lonely, row in zip(few, spent, strict=True)])
    return np.broadcast_to((times * median)[:, None], usd.shape)


def _by_feature(measured: Measurements, table: Floats) -> tuple[list[str], Floats]:
    """Columns of tenants added up to features."""
    names, of_class = numbered(measured.class_features)
    feature = np.repeat(of_class, measured.tenants_of_class)
    return names, np.stack([table[:, feature == i].sum(axis=1) for i in range(len(names))], axis=1)


def _against(part: Floats, whole: Floats, n: int, least: int, times: float, plus: float) -> tuple[Floats, Floats]:
    """A share in each window, and a limit from its mean over the n windows before, where both have enough calls."""
    before_part, before_whole = (_later(_over(table, n), 1) for table in (part, whole))
    value = np.where(whole >= least, _share(part, whole), np.nan)
    return value, np.where(before_whole >= least, times * _share(before_part, before_whole) + plus, np.nan)


def _of_days(usd: Floats, per_day: int, times: float) -> Floats:
    """Mean + times · standard deviation of the windows at the same time of all days before, [W, 1]."""
    limit = np.full(usd.shape, np.nan)
    if per_day < 1:
        return limit
    for i in range(per_day * _FEWEST_DAYS, len(usd)):
        days = usd[i % per_day : i : per_day, 0]
        mean = float(days.mean())
        limit[i] = mean + times * max(float(days.std(ddof=1)), _LEAST_SD * mean)
    return limit
