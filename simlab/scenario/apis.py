"""Endpoints of API providers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.caches import PromptCache
from simlab.scenario.capabilities import Offers
from simlab.scenario.dist import SecondsDist
from simlab.scenario.offline import Batch
from simlab.scenario.units import Count, PerMinute, Ratio, Seconds, UsdPerMtok


class ApiPrice(Model):
    """Your own token prices, instead of the provider's list."""

    input_usd_per_mtok: UsdPerMtok = Field(ge=0, description="prompt tokens, USD per million")
    output_usd_per_mtok: UsdPerMtok = Field(ge=0, description="output tokens, USD per million")
    cached_input_usd_per_mtok: Annotated[UsdPerMtok, Field(ge=0)] | None = Field(
        None, description="prompt tokens read from the provider's cache, USD per million; none: as other prompt tokens"
    )
    cache_write_usd_per_mtok: Annotated[UsdPerMtok, Field(ge=0)] | None = Field(
        None, description="prompt tokens written to the provider's cache, USD per million; none: as other prompt tokens"
    )


class Api(Model):
    """One model at one provider: how long it takes, what it refuses, what it costs."""

    provider: str = Field(min_length=1, description="provider as in genai-prices, e.g. openai, anthropic, together")
    model: str = Field(min_length=1, description="the provider's name of the model, e.g. gpt-4.1-mini")
    ttft: SecondsDist = Field(description="time to first token, s, without the part that grows with the prompt")
    ttft_per_prompt_token: Seconds = Field(0.0, ge=0, description="added to it for each prompt token, s")
    itl: SecondsDist = Field(description="time per output token after the first, s; drawn once a request")
    concurrency: Annotated[Count, Field(ge=1)] | None = Field(
        None, description="requests the endpoint works on at once; none: no limit"
    )
    when_full: Literal["queue", "reject"] = Field(
        "queue", description="a request above `concurrency` waits, or is answered 429 (outcome rate_limit)"
    )
    rpm: Annotated[PerMinute, Field(gt=0)] | None = Field(
        None, description="requests a minute, then 429 (a token bucket of one minute); none: no limit"
    )
    tpm: Annotated[PerMinute, Field(gt=0)] | None = Field(
        None, description="tokens a minute, prompt and output, then 429; none: no limit"
    )
    error_probability: Ratio = Field(0.0, description="share of attempts that fail with a server error")
    stream_break_probability: Ratio = Field(
        0.0, description="share of answers that break off, at any token alike; what was streamed is paid"
    )
    price: ApiPrice | None = Field(None, description="token prices; none: the provider's list prices (genai-prices)")
    cached_input_ratio: Ratio = Field(
        0.0, description="share of a prompt's shared-prefix tokens that is billed at the cached price"
    )
    offers: Offers = Field(Offers(), description="what it can do, for classes that need something")
    prompt_cache: PromptCache | None = Field(
        None, description="the provider's prompt cache, request by request; none: cached_input_ratio says it"
    )
    batch: Batch | None = Field(
        None, description='its batch endpoint, a backend of its own for routes: the name of the API and ":batch"'
    )

    def checks(self) -> Iterator[Fault]:
        """A queue needs a limit to wait for; one way to say what is cached."""
        if self.prompt_cache is not None and self.cached_input_ratio > 0:
            yield Fault(("cached_input_ratio",), "prompt_cache already says what is cached; leave one of them out")
        if self.when_full == "reject" and self.concurrency is None:
            yield Fault(("when_full",), "read reject, but there is no limit to be above; give concurrency too")
