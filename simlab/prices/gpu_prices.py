"""What a GPU costs by the hour: our own dated table, with its source and how sure each row is."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Literal, overload

from simlab.errors import InputError, Problem
from simlab.names import nearest
from simlab.profiles.gpus import gpu as find_gpu

Market = Literal["on_demand", "reserved", "spot"]
MARKETS: tuple[Market, ...] = ("on_demand", "reserved", "spot")
_CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class GpuPrice:
    """The price of one GPU for one hour.

    Attributes:
        gpu: canonical name.
        usd_per_gpu_hour: the price, USD/h.
        provider: whose price it is, or ``median of N providers``.
        market: ``on_demand``, ``reserved`` or ``spot``.
        source: where it was read.
        as_of: date it is of, as exactly as known (``2026``, ``2026-08-19``).
        confidence: ``high`` (a provider's catalogue), ``medium`` (a constant in somebody's tool), ``low`` (secondary).
        low_usd_per_gpu_hour, high_usd_per_gpu_hour: range over all rows of GPU and market, whatever the confidence.
    """

    gpu: str
    usd_per_gpu_hour: float
    provider: str
    market: Market
    source: str
    as_of: str
    confidence: str
    low_usd_per_gpu_hour: float
    high_usd_per_gpu_hour: float


@dataclass(frozen=True)
class _Row:
    provider: str
    gpu: str
    usd: dict[str, float]
    source: str
    as_of: str
    confidence: str


@cache
def _rows() -> tuple[_Row, ...]:
    text = (files("simlab.prices") / "data" / "gpu_prices.csv").read_text(encoding="utf-8")
    return tuple(
        _Row(
            provider=row["provider"],
            gpu=row["gpu"],
            usd={market: float(price) for market in MARKETS if (price := row[f"{market}_usd_per_gpu_hour"])},
            source=row["source"],
            as_of=row["as_of"],
            confidence=row["confidence"],
        )
        for row in csv.DictReader(text.splitlines())
    )


@overload
def gpu_price(gpu: str, provider: str | None = None, market: Market = "on_demand") -> GpuPrice: ...


@overload
def gpu_price(gpu: str, provider: str | None, market: Market, *, missing_ok: bool) -> GpuPrice | None: ...


def gpu_price(
    gpu: str, provider: str | None = None, market: Market = "on_demand", *, missing_ok: bool = False
) -> GpuPrice | None:
    """The hourly price of a GPU.

    With a provider: that provider's price. Without one: the median over providers of the most confident rows there are
    (high before medium before low), so that one cheap or dear provider does not decide; the range over all rows is
    given beside it.

    Args:
        gpu: canonical name or alias.
        provider: name of a provider in the table; None is the median.
        market: ``on_demand``, ``reserved`` or ``spot``.
        missing_ok: return None instead of an error where the table has no such price.

    >>> gpu_price("h100").usd_per_gpu_hour, gpu_price("h100", "nebius", "spot").usd_per_gpu_hour
    (2.675, 1.25)

    Raises:
        InputError: no such price (or GPU, provider, market); the message says which there are and how to give one.
    """
    name = find_gpu(gpu).name
    if market not in MARKETS:
        raise InputError([Problem("", "", f"unknown market {market!r}; allowed: {', '.join(MARKETS)}")])
    rows = [row for row in _rows() if row.gpu == name and market in row.usd]
    chosen = [row for row in rows if provider is None or row.provider == provider.strip().lower()]
    if not chosen:
        if missing_ok:
            return None
        raise _missing(name, provider, market)
    best = next(level for level in _CONFIDENCES if any(row.confidence == level for row in chosen))
    chosen = [row for row in chosen if row.confidence == best]
    every = [row.usd[market] for row in rows]
    return GpuPrice(
        gpu=name,
        usd_per_gpu_hour=median(row.usd[market] for row in chosen),
        provider=chosen[0].provider if len(chosen) == 1 else f"median of {len(chosen)} providers",
        market=market,
        source="; ".join(sorted({row.source for row in chosen})),
        as_of=max(row.as_of for row in chosen),
        confidence=best,
        low_usd_per_gpu_hour=min(every),
        high_usd_per_gpu_hour=max(every),
    )


def _missing(gpu: str, provider: str | None, market: str) -> InputError:
    repair = "give `price.usd_per_gpu_hour` yourself"
    of_gpu = [row for row in _rows() if row.gpu == gpu]
    if provider is None:
        markets = sorted({known for row in of_gpu for known in row.usd}) or ["none"]
        message = f"no {market} price of {gpu} is known (known markets: {', '.join(markets)}); {repair}"
        return InputError([Problem("", "", message)])
    providers = sorted({row.provider for row in of_gpu if market in row.usd})
    near = nearest(provider, providers)
    hint = f"did you mean {', '.join(near)}?" if near else f"known for it: {', '.join(providers) or 'none'}"
    return InputError([Problem("", "", f"no {market} price of {gpu} at provider {provider!r}; {hint}; or {repair}")])
