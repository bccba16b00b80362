"""What a gateway lets through: rates, quotas and budgets, the queue at them, shedding, caps on one request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.units import Count, Number, PerMinute, Seconds, Tokens, Usd

_AMOUNTS = ("rpm", "tpm", "concurrency", "requests_per_day", "usd_per_day")


class Limit(Model):
    """The most that everybody, a tenant, a feature, a class, a provider or one of its keys may have."""

    name: str | None = Field(None, min_length=1, description="name, for results; none: what it is per, and its number")
    per: Literal["all", "tenant", "feature", "class", "provider", "key"] = Field(
        "all",
        description="who has an allowance of its own. all, tenant (by number, in whichever class), feature and class: "
        "looked at once, when a task comes; provider and key: at each call to an API of the provider",
    )
    classes: list[str] = Field([], description="workload classes it holds for; empty: all. Not per provider or key")
    tenants: list[Annotated[Count, Field(ge=0)]] = Field(
        [], description="numbers of the tenants it holds for; empty: all. Not per provider or key"
    )
    apis: list[str] = Field([], description="APIs it holds for; empty: all. Only per provider or key")
    keys: Count = Field(
        1, ge=1, le=1000, description="per key: keys a provider's calls take in turn, if they have room; each has all"
    )
    rpm: Annotated[PerMinute, Field(gt=0)] | None = Field(None, description="requests a minute (a token bucket)")
    tpm: Annotated[PerMinute, Field(gt=0)] | None = Field(
        None, description="tokens a minute (a token bucket), of prompt and answer, as if its length were known"
    )
    burst: Annotated[Number, Field(ge=1)] | None = Field(
        None, description="requests the bucket of rpm holds; none: a minute's worth"
    )
    burst_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="tokens the bucket of tpm holds; none: a minute's worth"
    )
    concurrency: Annotated[Count, Field(ge=1)] | None = Field(None, description="tasks, or calls, at once")
    requests_per_day: Annotated[Count, Field(ge=1)] | None = Field(
        None, description="quota, from midnight to midnight of the scenario's clock"
    )
    usd_per_day: Annotated[Usd, Field(gt=0)] | None = Field(
        None, description="budget, from midnight to midnight, USD; when it is spent, nothing more begins"
    )
    when_over: Literal["reject", "queue", "degrade"] = Field(
        "reject",
        description="reject: 429, a task fails at once and a call as if its provider had refused it; queue: wait as "
        "gateway.queue says; degrade: go to degrade_to instead",
    )
    degrade_to: str | None = Field(None, description="backend of what is above the limit, with when_over: degrade")

    @property
    def of_calls(self) -> bool:
        """Whether it is looked at for each call to a provider, and not once for a task."""
        return self.per in ("provider", "key")

    def checks(self) -> Iterator[Fault]:
        """Something is limited; filters and buckets belong to what is there."""
        if all(getattr(self, name) is None for name in _AMOUNTS):
            yield Fault((), f"nothing is limited; give one of {', '.join(_AMOUNTS)}")
        for name in ("classes", "tenants") if self.of_calls else ("apis",):
            if getattr(self, name):
                allowed = "a limit per provider or key holds for calls, whoever makes them; name apis"
                if not self.of_calls:
                    allowed = f"a limit per {self.per} holds for tasks, wherever they go; say per: provider or key"
                yield Fault((name,), allowed)
        if self.keys > 1 and self.per != "key":
            yield Fault(("keys",), f"it belongs to per: key, and this limit is per {self.per}")
        for name, rate in (("burst", "rpm"), ("burst_tokens", "tpm")):
            if getattr(self, name) is not None and getattr(self, rate) is None:
                yield Fault((name,), f"it is what the bucket of {rate} holds; give {rate} too, or drop it")
        if (self.when_over == "degrade") != (self.degrade_to is not None):
            yield Fault(("degrade_to",), "degrade_to and when_over: degrade go together; give both or neither")


class Queue(Model):
    """Lines at limits: one at each tenant, feature, … or provider of a limit whose `when_over` is queue."""

    length: Annotated[Count, Field(ge=1)] = Field(
        1000, description="most that wait in one line; the last in its order is answered 429"
    )
    order: Literal["fifo", "fair", "priority"] = Field(
        "fifo",
        description="fifo: in order of arrival; fair: to tenants, by tokens (start-time fair queueing); priority: of "
        "the workload class, lower first",
    )
    deadline: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="who has waited this long is refused, s; none: waits for ever"
    )


class Shed(Model):
    """Refusing unimportant tasks (503) while their backend is overloaded."""

    queue: Annotated[Count, Field(ge=1)] | None = Field(None, description="while so many requests wait at the backend")
    ttft: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="while its recent time to first token (moving mean) is above this, s"
    )
    keep: int = Field(0, description="tasks whose class has this priority or a lower number are never shed")

    def checks(self) -> Iterator[Fault]:
        """Something to go by."""
        if self.queue is None and self.ttft is None:
            yield Fault((), "nothing says when to shed; give queue or ttft")


class Caps(Model):
    """The most that one request may be, and cost."""

    input_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(None, description="of the whole prompt; none: no cap")
    when_longer: Literal["reject", "truncate"] = Field(
        "reject", description="a longer prompt is refused, or cut: the oldest history first, then its end"
    )
    output_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="longer answers are cut there (max_tokens), and judged as if they were whole; none: no cap"
    )
    retries: Annotated[Count, Field(ge=0)] | None = Field(
        None, description="attempts after the first, of any kind: retries, hedges, escalations, fallbacks; none: no cap"
    )
    tool_steps: Annotated[Count, Field(ge=0)] | None = Field(
        None, description="times that an agent's task may call tools; one that asks once more is stopped; none: no cap"
    )
    usd: Annotated[Usd, Field(gt=0)] | None = Field(
        None, description="when a request has cost this much nothing more is tried for it, USD; none: no cap"
    )
    conversation_usd: Annotated[Usd, Field(gt=0)] | None = Field(
        None, description="when a conversation has cost this much its next turn is refused, USD; none: no cap"
    )

    def over(self, common: Caps) -> Caps:
        """These caps, and where they say nothing those of ``common``."""
        said = {name: value for name, value in self if value is not None and name != "when_longer"}
        if self.input_tokens is not None:
            said["when_longer"] = self.when_longer
        return common.model_copy(update=said)

    @property
    def any(self) -> bool:
        """Whether it caps anything."""
        return any(getattr(self, name) is not None for name in type(self).model_fields if name != "when_longer")

    def checks(self) -> Iterator[Fault]:
        """Cutting needs a length."""
        if self.when_longer == "truncate" and self.input_tokens is None:
            yield Fault(("when_longer",), "longer than what? give input_tokens too")
