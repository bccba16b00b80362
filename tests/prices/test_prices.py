"""Prices: exact where a list price is known, a range and a source always, help where nothing is known."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from simlab.errors import InputError
from simlab.prices import api_price, gpu_price
from simlab.prices.gpu_prices import MARKETS
from simlab.profiles import gpus

DAY = date(2026, 6, 1)
MODELS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-4o-mini"),
    ("google", "gemini-2.5-pro"),
    ("groq", "openai/gpt-oss-120b"),
]


@pytest.mark.parametrize(("provider", "model"), MODELS)
@given(prompt=st.integers(1, 400_000), output=st.integers(0, 50_000), share=st.floats(0, 1))
def test_costs_equal_the_package_own(provider, model, prompt, output, share):
    price = api_price(provider, model, DAY)
    cached = int(prompt * share)
    noon = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
    usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=output)
    theirs = calc_price(usage, model, provider_id=provider, genai_request_timestamp=noon)
    assert price.cost_usd(prompt, output, cached) == pytest.approx(float(theirs.total_price), rel=1e-9, abs=1e-12)


def test_source_and_date_are_told():
    price = api_price("anthropic", "claude-sonnet-4-5", DAY)
    assert price.source.startswith("genai-prices ")
    assert date.fromisoformat(price.as_of) <= DAY


def test_long_context_is_a_cliff():
    price = api_price("google", "gemini-2.5-pro", DAY)
    assert price.long_threshold_tokens == 200_000
    below, above = price.cost_usd(200_000, 0), price.cost_usd(200_001, 0)
    assert above == pytest.approx(2 * below, rel=1e-4)


@pytest.mark.parametrize(
    ("provider", "model", "message"),
    [
        ("anthropik", "claude-sonnet-4-5", "unknown API provider 'anthropik'; did you mean anthropic"),
        ("openai", "gpt-4o-mni", "did you mean gpt-4o-mini"),
        ("openai", "llama-3.3-70b-versatile", "groq has it"),
    ],
)
def test_unknown_api_prices(provider, model, message):
    with pytest.raises(InputError, match=message):
        api_price(provider, model)
    assert api_price(provider, model, missing_ok=True) is None


@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm", "a100-sxm-80gb", "l40s", "l4"])
def test_common_gpus_have_a_price_with_source(name):
    price = gpu_price(name)
    assert price.low_usd_per_gpu_hour <= price.usd_per_gpu_hour <= price.high_usd_per_gpu_hour
    assert price.source
    assert price.as_of >= "2025"
    assert price.confidence in {"high", "medium"}


def test_default_is_the_median_of_confident_providers():
    price = gpu_price("H100")
    each = [gpu_price("h100", provider).usd_per_gpu_hour for provider in ("crusoe", "hyperstack", "nebius", "verda")]
    assert price.provider == "median of 4 providers"
    assert price.usd_per_gpu_hour == pytest.approx((sorted(each)[1] + sorted(each)[2]) / 2)


@pytest.mark.parametrize("name", sorted(gpus()))
def test_spot_is_cheaper_than_on_demand_at_one_provider(name):
    from simlab.prices.gpu_prices import _rows

    rows = [row for row in _rows() if row.gpu == name]
    assert all(row.usd["spot"] < row.usd["on_demand"] for row in rows if {"spot", "on_demand"} <= set(row.usd))
    assert all(0.05 < usd < 20 for row in rows for usd in row.usd.values())


def test_the_table_is_of_known_gpus():
    from simlab.prices.gpu_prices import _rows

    assert {row.gpu for row in _rows()} <= set(gpus())
    assert all(set(row.usd) <= set(MARKETS) and row.usd for row in _rows())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h100", "nebis"), "did you mean nebius"),
        (("h100", "aws"), "known for it: crusoe"),
        (("h100", None, "reserved"), "no reserved price of h100-sxm is known .*on_demand, spot"),
        (("h100", None, "monthly"), "unknown market 'monthly'; allowed: on_demand, reserved, spot"),
        (("h1000",), "unknown GPU"),
    ],
)
def test_unknown_gpu_prices(arguments, message):
    with pytest.raises(InputError, match=message):
        gpu_price(*arguments)


def test_missing_prices_may_be_none():
    assert gpu_price("h100", None, "reserved", missing_ok=True) is None
