"""What an API charges for tokens: list prices from the genai-prices package, read offline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, overload

from simlab.errors import InputError, Problem
from simlab.names import unknown

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider


@dataclass(frozen=True)
class ApiPrice:
    """Token prices of one model at one provider, USD per million tokens; None is "no separate price".

    Attributes:
        provider, model: as genai-prices names them.
        input_usd_per_mtok, output_usd_per_mtok: list prices.
        cached_input_usd_per_mtok: input read from the provider's prompt cache.
        cache_write_usd_per_mtok: input written to it.
        long_threshold_tokens: a request with more input tokens than this pays the ``long_`` prices on *all* its tokens;
            None is no such tier.
        long_input_usd_per_mtok, long_cached_input_usd_per_mtok, long_output_usd_per_mtok: those prices.
        source: package and version.
        as_of: date of the newest price change the package's data knows, ISO date.
        note: what a single long-context tier cannot say, or empty.
    """

    provider: str
    model: str
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    long_threshold_tokens: int | None = None
    long_input_usd_per_mtok: float | None = None
    long_cached_input_usd_per_mtok: float | None = None
    long_output_usd_per_mtok: float | None = None
    source: str = ""
    as_of: str = ""
    note: str = ""

    def cost_usd(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0) -> float:
        """List price of one request, USD.

        Args:
            input_tokens: all input tokens, cached ones included.
            output_tokens: generated tokens.
            cached_tokens: of the input tokens, those read from the prompt cache.

        >>> ApiPrice("p", "m", input_usd_per_mtok=3, output_usd_per_mtok=15).cost_usd(4000, 500)
        0.0195
        """
        long = self.long_threshold_tokens is not None and input_tokens > self.long_threshold_tokens
        fresh = self.long_input_usd_per_mtok if long else self.input_usd_per_mtok
        out = self.long_output_usd_per_mtok if long else self.output_usd_per_mtok
        read = self.long_cached_input_usd_per_mtok if long else self.cached_input_usd_per_mtok
        fresh = self.input_usd_per_mtok if fresh is None else fresh
        out = self.output_usd_per_mtok if out is None else out
        read = fresh if read is None else read
        return ((input_tokens - cached_tokens) * fresh + cached_tokens * read + output_tokens * out) / 1e6


@overload
def api_price(provider: str, model: str, on: date | None = None) -> ApiPrice: ...


@overload
def api_price(provider: str, model: str, on: date | None = None, *, missing_ok: bool) -> ApiPrice | None: ...


def api_price(provider: str, model: str, on: date | None = None, *, missing_ok: bool = False) -> ApiPrice | None:
    """The list price of a model at a provider, from the installed genai-prices; nothing is fetched.

    Args:
        provider: provider id of genai-prices (``anthropic``, ``openai``, ``together``, …), in any case.
        model: model name as in API requests.
        on: date the price must be in force; None is today. Of prices that differ by time of day, noon UTC's is taken.
        missing_ok: return None instead of an error where there is no such price.

    Raises:
        InputError: unknown provider or model, or one not priced by tokens; the message gives the nearest names.
    """
    when = datetime.now(tz=UTC) if on is None else datetime(on.year, on.month, on.day, 12, tzinfo=UTC)
    try:
        return _price(provider.strip().lower(), model, when)
    except InputError:
        if missing_ok:
            return None
        raise


def _price(provider: str, model: str, when: datetime) -> ApiPrice:
    from genai_prices.types import TieredPrices

    seller, entry = _find(provider, model)
    prices = entry.get_prices(when)
    if prices.input_mtok is None or prices.output_mtok is None:
        message = f"{provider}/{entry.id} is not priced by input and output tokens; give `price` yourself"
        raise InputError([Problem("", "", message)])
    tiered = [price for price in (prices.input_mtok, prices.output_mtok) if isinstance(price, TieredPrices)]
    version, newest = _data_date(when.date())
    price = ApiPrice(
        provider=seller.id,
        model=entry.id,
        input_usd_per_mtok=_base(prices.input_mtok) or 0.0,
        output_usd_per_mtok=_base(prices.output_mtok) or 0.0,
        cached_input_usd_per_mtok=_base(prices.cache_read_mtok),
        cache_write_usd_per_mtok=_base(prices.cache_write_mtok),
        source=f"genai-prices {version}",
        as_of=newest,
        note="further long-context tiers are left out" if any(len(price.tiers) > 1 for price in tiered) else "",
    )
    if not tiered:
        return price
    threshold = tiered[0].tiers[0].start
    return replace(
        price,
        long_threshold_tokens=threshold,
        long_input_usd_per_mtok=_at(prices.input_mtok, threshold),
        long_output_usd_per_mtok=_at(prices.output_mtok, threshold),
        long_cached_input_usd_per_mtok=_at(prices.cache_read_mtok, threshold),
    )


def _find(provider: str, model: str) -> tuple[Provider, ModelInfo]:
    from genai_prices.data_snapshot import get_snapshot

    providers = {entry.id: entry for entry in get_snapshot().providers}
    if provider not in providers:
        raise unknown("API provider", provider, providers, repair="or give `price` yourself")
    seller = providers[provider]
    entry = seller.find_model(model.strip().lower(), all_providers=list(providers.values()))
    if entry is not None:
        return seller, entry
    raise unknown(
        f"model of {provider}", model, [known.id for known in seller.models], repair=_sellers(providers, model)
    )


def _sellers(providers: dict[str, Provider], model: str) -> str:
    sellers = [name for name, seller in providers.items() if any(known.id == model for known in seller.models)]
    return f"{', '.join(sellers[:5])} has it; or give `price` yourself" if sellers else "or give `price` yourself"


def _base(price: object) -> float | None:
    from genai_prices.types import TieredPrices

    if price is None:
        return None
    return float(price.base if isinstance(price, TieredPrices) else price)  # type: ignore[arg-type]


def _at(price: object, threshold: int) -> float | None:
    """The price above a threshold of input tokens: the last tier that starts there or before."""
    from genai_prices.types import TieredPrices

    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= threshold]
        return float(reached[-1] if reached else price.base)
    return _base(price)


@lru_cache(maxsize=8)
def _data_date(today: date) -> tuple[str, str]:
    """Version of the package and the newest price change up to a day that its data knows."""
    from importlib.metadata import version

    from genai_prices.data_snapshot import get_snapshot

    starts = {
        start
        for seller in get_snapshot().providers
        for entry in seller.models
        if isinstance(entry.prices, list)
        for conditional in entry.prices
        if isinstance(start := getattr(conditional.constraint, "start_date", None), date) and start <= today
    }
    return version("genai-prices"), max(starts).isoformat() if starts else ""
