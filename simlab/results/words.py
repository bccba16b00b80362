"""Numbers as people read them: three digits, thousands separated, the unit that suits the size."""

from __future__ import annotations

import math

from simlab.results.interval import Estimate

UNKNOWN = "–"
"""What is written where there is no number."""

_SECONDS = (
    (1e-3, 1e6, " µs"),
    (1.0, 1e3, " ms"),
    (180.0, 1.0, " s"),
    (3 * 3600.0, 1 / 60, " min"),
    (math.inf, 1 / 3600, " h"),
)
_LARGE = ((1e6, 1.0, ""), (1e9, 1e-6, "M"), (1e12, 1e-9, "G"), (math.inf, 1e-12, "T"))
_AMOUNTS = ("USD", "USD/month")
"""Units of sums of money, which have cents; prices of one task or token have significant digits."""

_CENTS_BELOW_USD = 100.0

_SUFFIX = {
    "1/s": "/s",
    "tokens/s": " tok/s",
    "GPU h": " h",
}


def digits(value: float, significant: int = 3) -> str:
    """A number to some significant digits, thousands separated: 12345.6 → '12,346', 0.0021 → '0.00210'."""
    if value == 0:
        return "0"
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 12)}f}"


def scale(value: float, unit: str) -> tuple[float, str, str]:
    """How a number of a unit is written: (factor, what stands before it, what stands behind it), by its size."""
    size = abs(value)
    if unit == "s":
        return next((1.0, "", " s") if size == 0 else (f, "", name) for limit, f, name in _SECONDS if size < limit)
    if unit == "ratio":
        return 100.0, "", "%"
    factor, letter = next((f, letter) for limit, f, letter in _LARGE if size < limit)
    money = unit.startswith("USD")
    return factor, "$" if money else "", letter + _SUFFIX.get(unit, "")


def number(value: float | None, unit: str, significant: int = 3) -> str:
    """One number with its unit: 0.00412 s → '4.12 ms', 1.2e6 tokens → '1.20M', 0.992 → '99.2%'."""
    if value is None or math.isnan(value):
        return UNKNOWN
    factor, before, behind = scale(value, unit)
    if _counted(value, unit) and factor == 1.0:
        return f"{before}{value:,.0f}{behind}"
    if unit == "ratio":
        return f"{value * 100.0:.{_percent_decimals(value)}f}{behind}"
    if unit in _AMOUNTS and 0 < abs(value) < _CENTS_BELOW_USD:
        return "< $0.01" if abs(value) < 0.01 else f"${value:,.2f}"
    return f"{before}{digits(value * factor, significant)}{behind}"


def interval(estimate: Estimate, significant: int = 3) -> str:
    """The ends of an interval in the unit its value is written in: '0.40–0.42'; empty where there is none."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    factor, before, _ = scale(estimate.value, estimate.unit)
    value = abs(estimate.value * factor)
    if estimate.unit == "ratio":
        decimals = _percent_decimals(estimate.value)
    elif estimate.unit in _AMOUNTS and value < _CENTS_BELOW_USD:
        decimals = 2
    else:
        decimals = 0 if value == 0 else min(12, max(0, significant - 1 - math.floor(math.log10(value))))
    ends = (estimate.low, estimate.value, estimate.high)
    low, middle, high = (f"{before}{end * factor:,.{decimals}f}" for end in ends)
    # An interval narrower than the digits shown says nothing that the number does not.
    return "" if low == middle == high else f"{low}–{high}"


def usd(value: float | None, significant: int = 3) -> str:
    """A price: '$0.00210', '$9,870', '$1.23M'."""
    return number(value, "USD/task", significant)


def duration(seconds: float) -> str:
    """A length of time as somebody would say it: '5 min', '1.5 h', '250 ms'."""
    factor, _, unit = scale(seconds, "s")
    return f"{seconds * factor:.6g}{unit}"


def percent(value: float | None) -> str:
    """A share: '99.2%'."""
    return number(value, "ratio")


def _percent_decimals(value: float) -> int:
    """Decimals of a share in percent: one, none for 0 and 1, and enough near these to tell it from them."""
    near = min(abs(value), abs(1.0 - value)) * 100.0
    if near < 1e-6:
        return 0
    return 1 if near >= 0.1 else min(6, -math.floor(math.log10(near)))


def _counted(value: float, unit: str) -> bool:
    """Whether a number is a whole count."""
    return unit in ("tasks", "attempts", "tokens", "preemptions", "requests") and float(value).is_integer()
