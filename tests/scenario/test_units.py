"""Quantities: what people write, and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simlab.scenario import units
from simlab.scenario.units import NOTATIONS

WRITTEN = [
    ("Seconds", "800ms", 0.8), ("Seconds", "2h", 7200.0), ("Seconds", "3d", 259200.0), ("Seconds", "1.5 min", 90.0),
    ("Seconds", "5m", 300.0), ("Seconds", "20us", 2e-5), ("Seconds", 3, 3.0), ("Seconds", "1e3", 1000.0),
    ("Seconds", "2 weeks", 1209600.0), ("Seconds", ".5s", 0.5), ("Seconds", "1_000", 1000.0),
    ("Seconds", "1h30m", 5400.0), ("Seconds", "1d 2h 30min", 95400.0),
    ("Bytes", "80GiB", 80 * 2**30), ("Bytes", "80GB", 8e10), ("Bytes", "512 MiB", 2**29), ("Bytes", "16kB", 16000.0),
    ("Rate", "12/s", 12.0), ("Rate", "40/min", 40 / 60), ("Rate", "3M/day", 3e6 / 86400),
    ("Rate", "1.5k/h", 1500 / 3600),
    ("Rate", "12 rps", 12.0),
    ("PerMinute", "500/min", 500.0), ("PerMinute", "30k/min", 3e4),
    ("PerMinute", "10/s", 600.0), ("PerMinute", 60, 60.0),
    ("Usd", "$3.50", 3.5), ("Usd", "$20k", 20000.0), ("Usd", "12 USD", 12.0), ("Usd", "-$3", -3.0),
    ("UsdPerHour", "$3.50/h", 3.5), ("UsdPerHour", "$2190/month", 3.0), ("UsdPerHour", "2.5", 2.5),
    ("UsdPerHour", "2.5 USD/h", 2.5),
    ("UsdPerMonth", "$20k/month", 20000.0), ("UsdPerMonth", "$1.20/h", 876.0),
    ("UsdPerMtok", "$0.25", 0.25), ("UsdPerMtok", "$3/Mtok", 3.0), ("UsdPerMtok", "$0.003/ktok", 3.0),
    ("UsdPerMtok", "$3/1M", 3.0),
    ("Tokens", "1.5k", 1500), ("Tokens", "3M", 3_000_000), ("Tokens", "350 tokens", 350), ("Tokens", 8.0, 8),
    ("Count", "2k", 2000), ("Factor", "150%", 1.5), ("Factor", "2x", 2.0), ("Number", "2.5", 2.5),
    ("Ratio", "70%", 0.7), ("Ratio", "95%", 0.95), ("Ratio", "0.2%", 0.002), ("Ratio", 1, 1.0),
    ("Probability", "p95", 0.95), ("Probability", "p99.9", 0.999),
    ("Probability", "50%", 0.5), ("Probability", "0", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "written", "value"), WRITTEN)
def test_written_as_people_write(kind, written, value):
    read = TypeAdapter(getattr(units, kind)).validate_python(written)
    assert read == pytest.approx(value, rel=1e-15)
    assert type(read) is (int if kind in ("Tokens", "Count") else float)


@pytest.mark.parametrize("kind", sorted(set(NOTATIONS) - {"Repeat"}))
@pytest.mark.parametrize(
    "written",
    # A comma is refused: "1,200" is 1200 to some and 1.2 to others.
    [
        *(True, None, [], "", " ", "five", "3 parsecs", "1h 3 parsecs", "1,200"),
        *("--3", "3..4", "0x10", "nan", math.nan, "-inf", math.inf),
    ],
)
def test_refused_by_all(kind, written):
    with pytest.raises(ValidationError):
        TypeAdapter(getattr(units, kind)).validate_python(written)


@pytest.mark.parametrize("kind", sorted(set(NOTATIONS) - {"Repeat"}))
def test_the_examples_in_the_message_are_themselves_understood(kind):
    for example in NOTATIONS[kind].examples:
        TypeAdapter(getattr(units, kind)).validate_python(example)


@given(
    st.floats(-1e12, 1e12), st.sampled_from(["Seconds", "Bytes", "Rate", "Usd", "UsdPerHour", "UsdPerMtok", "Factor"])
)
def test_a_number_is_itself_written_or_not(value, kind):
    adapter = TypeAdapter(getattr(units, kind))
    assert adapter.validate_python(value) == adapter.validate_python(repr(value)) == value


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_stay_whole(value):
    adapter = TypeAdapter(units.Tokens)
    assert adapter.validate_python(value) == adapter.validate_python(f"{value} tokens") == value


@given(st.floats(1e-9, 1e9), st.sampled_from(sorted(NOTATIONS)), st.data())
def test_a_suffix_multiplies(value, kind, data):
    notation = NOTATIONS[kind]
    if notation.whole:
        return
    suffix = data.draw(st.sampled_from(sorted(notation.suffixes)))
    factor = notation.suffixes[suffix]
    assert notation.parse(f"{value!r}{suffix}") == pytest.approx(value * factor, rel=1e-12)
    assert notation.parse(f"  {value!r} {suffix} ") == notation.parse(f"{value!r}{suffix}")


@given(st.text(max_size=12), st.sampled_from(sorted(NOTATIONS)))
def test_any_text_is_a_finite_number_or_an_error(text, kind):
    try:
        value = NOTATIONS[kind].parse(text)
    except ValueError:
        return
    assert math.isfinite(value)
