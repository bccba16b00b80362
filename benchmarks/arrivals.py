"""Arrival times alone: what a class of generated traffic costs before anything is done with it."""

from __future__ import annotations

import time
from datetime import datetime

from benchmarks.case import Report
from simlab.scenario import RateProfile
from simlab.workload.rates import RateFunction
from simlab.workload.renewal import RenewalSource

_DAY_S = 86400.0
_DAY = (0.4,) * 6 + (0.9,) * 3 + (1.5,) * 9 + (1.0,) * 5 + (0.4,)


def _source(case: str, a_day: int) -> RenewalSource:
    profile = RateProfile(hour_of_day=list(_DAY)) if "hour of day" in case else None
    rate = RateFunction.from_profile(a_day / _DAY_S, profile, datetime(2026, 1, 5), 0.0)
    kind, cv = ("gamma", 2.0) if case.startswith("gamma") else ("poisson", 1.0)
    return RenewalSource(rate, kind, cv, seed=1, index=0, horizon_s=_DAY_S)


def run(case: str, size: int) -> Report:
    """Times about ``size`` arrivals."""
    _source(case, 100).next_times()
    source = _source(case, size)
    n = 0
    began = time.perf_counter()
    while (times := source.next_times()) is not None:
        n += len(times)
    return Report(requests=n, seconds=time.perf_counter() - began)
