"""Work that may wait: batch endpoints of API providers, and filling the troughs of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import SecondsDist
from simlab.scenario.units import Count, Number, PerMinute, Ratio, Seconds, Tokens

BATCH = ":batch"
"""What the name of an API's batch endpoint ends with."""


class Batch(Model):
    """The batch endpoint of an API: cheaper, some time within a window. Routes name it with ":batch" behind the API."""

    discount: Ratio = Field(0.5, description="off every token price of the API")
    window: Seconds = Field(
        86400.0, gt=0, description="a request that is not done this long after it was handed in expires, unpaid, s"
    )
    completion: SecondsDist | None = Field(
        None, description="from handing a request in to its result, s, beyond the window: it expires; none: the window"
    )
    collect: Seconds = Field(
        0.0, ge=0, description="the gateway hands in together what came within this time of the first, s"
    )
    requests_per_batch: Annotated[Count, Field(ge=1)] | None = Field(
        None, description="a batch with so many is handed in at once; none: no limit"
    )
    max_queued_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        None, description="prompt tokens handed in and not done; what is above waits at the gateway; none: no limit"
    )
    max_queued_requests: Annotated[Count, Field(ge=1)] | None = Field(
        None, description="likewise requests; none: no limit"
    )
    rpm: Annotated[PerMinute, Field(gt=0)] | None = Field(
        None, description="requests a minute, then 429 (a token bucket of one minute); none: no limit"
    )
    tpm: Annotated[PerMinute, Field(gt=0)] | None = Field(
        None, description="tokens a minute, prompt and output, then 429; none: no limit"
    )
    error_probability: Ratio = Field(0.0, description="share of requests that fail with a server error")
    prompt_cache: bool = Field(
        True, description="its requests read and write the API's prompt cache, as if they ran when they are sent"
    )

    def checks(self) -> Iterator[Fault]:
        """A batch is full only if it is collected."""
        if self.requests_per_batch is not None and self.collect == 0:
            yield Fault(("requests_per_batch",), "nothing is collected, so no batch fills up; give collect, e.g. 1h")


class Trough(Model):
    """When a pool takes work that may wait, and when that has waited long enough."""

    fill_to: Annotated[Ratio, Field(gt=0)] = Field(
        0.5, description="requests in the pool, waiting and running, up to this share of max_num_seqs of its replicas"
    )
    kv: Annotated[Ratio, Field(gt=0)] = Field(0.8, description="while less than this share of its KV blocks is in use")
    waiting: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="while fewer than this many requests, of whatever class, wait for each serving replica"
    )
    lead: Annotated[Seconds, Field(ge=0)] | None = Field(
        None,
        description="a task that is this near its deadline is sent at once, s: to the second backend of `to` or, where "
        "there is none, to the pool; none: it waits on",
    )
    every: Seconds = Field(
        0.1, gt=0, description="how often the gateway looks at the pool while tasks wait, s; also when one of them ends"
    )
