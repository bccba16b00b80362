"""What results must be told about a scenario and its backends; plain data, so that results import no other room."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

SAMPLED, FIXED, NOTHING = "sampled", "fixed", "nothing to draw"
"""What was done about calibration error: replications run again with step times drawn from it, or not."""


@dataclass(frozen=True)
class TokenPrices:
    """What an API takes for tokens, USD per million.

    Args:
        input_usd_per_mtok: prompt tokens that were not cached.
        output_usd_per_mtok: output tokens.
        cached_input_usd_per_mtok: cached prompt tokens; None: as other prompt tokens.
        long_threshold_tokens: prompts longer than this are billed at the long tier; None: there is no such tier.
        long_input_usd_per_mtok: long tier; None: as the base tier. Likewise for the other two.
        long_cached_input_usd_per_mtok: see above.
        long_output_usd_per_mtok: see above.
        cache_write_usd_per_mtok: prompt tokens written to the provider's cache; None: as other prompt tokens. At the
            long tier it is dearer by as much as those are.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float | None = None
    long_threshold_tokens: int | None = None
    long_input_usd_per_mtok: float | None = None
    long_cached_input_usd_per_mtok: float | None = None
    long_output_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None

    def scaled(self, factor: float) -> TokenPrices:
        """All prices times a factor."""
        usd = {name: price * factor for name, price in asdict(self).items() if price is not None and "usd" in name}
        return replace(self, **usd)

    @property
    def base(self) -> tuple[float, float, float, float]:
        """(input, cached input, cache write, output) of the base tier, USD per million tokens."""
        cached, written = self.cached_input_usd_per_mtok, self.cache_write_usd_per_mtok
        return (
            self.input_usd_per_mtok,
            self.input_usd_per_mtok if cached is None else cached,
            self.input_usd_per_mtok if written is None else written,
            self.output_usd_per_mtok,
        )

    @property
    def long(self) -> tuple[float, float, float, float]:
        """(input, cached input, cache write, output) of the long-context tier, USD per million tokens."""
        base_input, base_cached, base_written, base_output = self.base
        long_input, cached = self.long_input_usd_per_mtok, self.long_cached_input_usd_per_mtok
        if cached is None:
            # A provider that names no cached price for long prompts keeps its discount in proportion.
            alike = long_input is None or base_input == 0
            cached = base_cached if alike else _scaled(base_cached, long_input or 0.0, base_input)
        fresh = base_input if long_input is None else long_input
        return (
            fresh,
            cached,
            fresh if base_input == 0 else _scaled(base_written, fresh, base_input),
            base_output if self.long_output_usd_per_mtok is None else self.long_output_usd_per_mtok,
        )


def _scaled(price: float, fresh: float, base: float) -> float:
    """A price in the proportion of two others; ``fresh`` where that is beyond all numbers: a bill is finite."""
    scaled = price * fresh / base
    return scaled if math.isfinite(scaled) else fresh


@dataclass(frozen=True)
class ProfileFacts:
    """How fast a backend is, and how well that is known.

    Args:
        name: the profile's name.
        kind: ``"measured"``, ``"estimated"`` or ``"stated"`` (written in the scenario, as for an API).
        error: the held-out error in words, e.g. ``"step time 3.1 % (median)"``; empty: unknown.
        source: what it was fitted on or taken from.
        date: ISO date of the measurement or estimate; empty: unknown.
    """

    name: str
    kind: str
    error: str = ""
    source: str = ""
    date: str = ""


@dataclass(frozen=True)
class Outside:
    """One limit of what a backend's profile was measured on that the run went beyond.

    Args:
        limit: its name, e.g. ``max_decode_seqs``.
        measured: up to where the profile was measured.
        reached: how far the run went.
        share: of its work that lay beyond, 0..1.
        log_sd: standard deviation, of the logarithm, that was added to the terms concerned.
        sentence: all of this in words.
    """

    limit: str
    measured: int
    reached: int
    share: float
    log_sd: float
    sentence: str


@dataclass(frozen=True)
class BackendFacts:
    """What money and words need to know about one backend.

    Args:
        name: its name in the scenario.
        kind: ``"pool"`` or ``"api"``; ``"cache"`` for answers that the gateway keeps, ``"service"`` for a helper,
            ``"canned"`` for answers of the gateway itself.
        model: name of the model it serves.
        provider: who runs it: of an API its provider, else ``"self-hosted"`` or ``"gateway"``; empty: unknown.
        gpu: GPU of a pool, empty for an API.
        gpus_per_replica: GPUs of one replica; 0 for an API.
        usd_per_gpu_hour: None: no price known.
        billing_granularity_s: a lease is billed in whole multiples of this.
        billing_minimum_s: and for no less than this.
        operations_usd_per_month: people, monitoring; per month of 730 h.
        token_prices: None for a pool, or for an API without a known price.
        usd_per_call: USD for each call, besides its tokens.
        profile: its speed; None: not stated.
        price_source: where the price comes from.
        price_as_of: ISO date of the price; empty: unknown.
        assumptions: sentences to print below a result.
    """

    name: str
    kind: str
    model: str = ""
    provider: str = ""
    gpu: str = ""
    gpus_per_replica: int = 0
    usd_per_gpu_hour: float | None = None
    billing_granularity_s: float = 1.0
    billing_minimum_s: float = 0.0
    operations_usd_per_month: float = 0.0
    token_prices: TokenPrices | None = None
    usd_per_call: float = 0.0
    profile: ProfileFacts | None = None
    price_source: str = ""
    price_as_of: str = ""
    assumptions: tuple[str, ...] = ()

    @property
    def priced(self) -> bool:
        """Whether its use can be turned into money."""
        if self.kind in ("cache", "service", "canned"):
            return True
        return (self.usd_per_gpu_hour if self.kind == "pool" else self.token_prices) is not None


class SloLike(Protocol):
    """The limits of a task, s; None: no limit; `target` is the share of tasks that must meet all."""

    @property
    def ttft(self) -> float | None: ...  # noqa: D102
    @property
    def itl(self) -> float | None: ...  # noqa: D102
    @property
    def e2e(self) -> float | None: ...  # noqa: D102
    @property
    def target(self) -> float: ...  # noqa: D102


class BudgetLike(Protocol):
    """The money that may be spent; None: no limit."""

    @property
    def usd_per_month(self) -> float | None: ...  # noqa: D102
    @property
    def usd_per_success(self) -> float | None: ...  # noqa: D102


class ClassLike(Protocol):
    """A workload class, as far as a verdict is concerned."""

    @property
    def slo(self) -> SloLike | None: ...  # noqa: D102


class AlertsLike(Protocol):
    """The rules of a scenario, as `simlab.scenario.alerts.Alerts` describes them; None: off."""

    @property
    def least_calls(self) -> int: ...  # noqa: D102
    @property
    def tenant_spend(self) -> float | None: ...  # noqa: D102
    @property
    def call_cost(self) -> float | None: ...  # noqa: D102
    @property
    def period(self) -> float: ...  # noqa: D102
    @property
    def cache_drop(self) -> float | None: ...  # noqa: D102
    @property
    def errors(self) -> float | None: ...  # noqa: D102
    @property
    def refusals(self) -> float | None: ...  # noqa: D102
    @property
    def baseline(self) -> float: ...  # noqa: D102
    @property
    def spend_sd(self) -> float | None: ...  # noqa: D102


class ScenarioLike(Protocol):
    """The part of a scenario that results read."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def variant(self) -> str | None: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def slo(self) -> SloLike | None: ...  # noqa: D102
    @property
    def budget(self) -> BudgetLike | None: ...  # noqa: D102
    @property
    def alerts(self) -> AlertsLike | None: ...  # noqa: D102
    @property
    def workload(self) -> Mapping[str, ClassLike]: ...  # noqa: D102
    def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, Any]: ...  # noqa: D102
