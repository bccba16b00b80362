"""Numbers as people read them."""

from __future__ import annotations

import pytest

from simlab.results.interval import Estimate
from simlab.results.words import digits, duration, interval, number, percent, usd


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0000123, "s", "12.3 µs"),
        (0.00412, "s", "4.12 ms"),
        (0.41, "s", "410 ms"),
        (1.2345, "s", "1.23 s"),
        (179.0, "s", "179 s"),
        (600.0, "s", "10.0 min"),
        (86_400.0, "s", "24.0 h"),
        (0.0, "s", "0 s"),
        (0.0021, "USD/task", "$0.00210"),
        (0.0021, "USD", "< $0.01"),
        (0.0, "USD", "$0"),
        (29.186, "USD", "$29.19"),
        (99.5, "USD/month", "$99.50"),
        (123.4, "USD", "$123"),
        (9870.4, "USD", "$9,870"),
        (1_234_567.0, "USD", "$1.23M"),
        (12.345, "USD/Mtok", "$12.3"),
        (0.992, "ratio", "99.2%"),
        (0.99996, "ratio", "99.996%"),
        (0.9999999999, "ratio", "100%"),
        (1.0, "ratio", "100%"),
        (0.00004, "ratio", "0.004%"),
        (0.0, "ratio", "0%"),
        (43_210.0, "tasks", "43,210"),
        (43_210.4, "tasks", "43,210"),
        (1_234_567.0, "tokens", "1.23M"),
        (2.5e9, "tokens", "2.50G"),
        (0.333, "1/s", "0.333/s"),
        (845.9, "tokens/s", "846 tok/s"),
        (192.0, "GPU h", "192 h"),
        (None, "s", "–"),
        (float("nan"), "USD", "–"),
    ],
)
def test_numbers(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_digits() -> None:
    assert [digits(x) for x in (0.0, 0.00123456, 9.87654, 98.7654, 12345.6)] == [
        "0",
        "0.00123",
        "9.88",
        "98.8",
        "12,346",
    ]
    assert usd(0.5) == "$0.500"
    assert percent(None) == "–"
    assert [duration(x) for x in (0.25, 300.0, 5400.0, 10_800.0)] == ["250 ms", "5 min", "90 min", "3 h"]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.41, 0.40, 0.42, "s"), "400–420"),
        (Estimate(1.5, 0.9, 2.1, "s"), "0.90–2.10"),
        (Estimate(9870.0, 9800.0, 9940.0, "USD/month"), "$9,800–$9,940"),
        (Estimate(0.992, 0.990, 0.994, "ratio"), "99.0–99.4"),
        (Estimate(0.41, None, None, "s"), ""),
        (Estimate(None, None, None, "s"), ""),
        (Estimate(0.99996, 0.9999, 0.99999, "ratio"), "99.990–99.999"),
        (Estimate(0.998, 0.997, 0.99941, "ratio"), "99.7–99.9"),
        (Estimate(29.186, 29.1, 29.272, "USD"), "$29.10–$29.27"),
        (Estimate(0.0, 0.0, 0.0, "1/s"), ""),
        (Estimate(12.0, 11.99, 12.01, "1/s"), ""),
    ],
)
def test_intervals_are_in_the_unit_of_their_value(estimate: Estimate, text: str) -> None:
    assert interval(estimate) == text
