"""What a prompt consists of besides its own text, and how much of each part may be in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from simlab.scenario.base import Fault, Model
from simlab.scenario.dist import Fixed, NumberDist, SecondsDist, TokensDist
from simlab.scenario.units import Count, Seconds, Tokens, UsdPerMtok


class Retrieval(Model):
    """Chunks of documents that are looked up for a request."""

    chunks: NumberDist = Field(description="how many are found")
    chunk_tokens: Annotated[Tokens, Field(ge=1)] = Field(description="tokens of each")


class ContextCaps(Model):
    """The most of each part; none: no cap."""

    system: Annotated[Tokens, Field(ge=1)] | None = Field(None, description="system prompt and template, tokens")
    policy: Annotated[Tokens, Field(ge=1)] | None = Field(None, description="policy text, tokens")
    history: Annotated[Tokens, Field(ge=1)] | None = Field(None, description="what was said before, tokens")
    retrieval_chunks: Annotated[Count, Field(ge=0)] | None = Field(None, description="retrieved chunks that are used")
    tool_results: Annotated[Tokens, Field(ge=0)] | None = Field(None, description="results of tools, tokens")
    output: Annotated[Tokens, Field(ge=1)] | None = Field(None, description="the answer, tokens; a longer one is cut")


class Summary(Model):
    """A model that summarises history which is too long: a call of its own."""

    model: str = Field("summariser", min_length=1, description="its name, for the ledger")
    tokens: Annotated[Tokens, Field(ge=1)] = Field(description="length of a summary, which takes history's place")
    latency: SecondsDist = Field(
        Fixed[Seconds](kind="fixed", value=1.0), description="from asking for it to its end, s; the request waits"
    )
    input_usd_per_mtok: UsdPerMtok = Field(0.0, ge=0, description="price of the history it reads, USD per million")
    output_usd_per_mtok: UsdPerMtok = Field(0.0, ge=0, description="price of what it writes, USD per million")


class Context(Model):
    """Parts of a class's prompts and a budget for each; what is over it is left out, and counted."""

    policy: Tokens = Field(
        0, ge=0, description="tokens of policy text behind the system prompt, the same in every request of the class"
    )
    retrieval: Retrieval | None = Field(None, description="added to each prompt; it stays in a conversation's history")
    tool_results: TokensDist | None = Field(None, description="tokens added to each prompt; they stay in the history")
    caps: ContextCaps = Field(ContextCaps(), description="the most of each part")
    history: Literal["trim", "summarise"] = Field(
        "trim", description="history above its cap: the oldest tokens go, or all of it becomes a summary"
    )
    summary: Summary | None = Field(None, description="for history: summarise")

    def checks(self) -> Iterator[Fault]:
        """Caps on parts there are; a summary that is shorter than what it replaces."""
        if (self.history == "summarise") != (self.summary is not None):
            yield Fault(("summary",), "summary and history: summarise go together; give both or neither")
        if self.summary is not None and self.caps.history is None:
            yield Fault(("caps", "history"), "missing: nothing says when history is long enough to be summarised")
        elif self.summary is not None and self.summary.tokens > (self.caps.history or 0):
            yield Fault(
                ("summary", "tokens"),
                f"read {self.summary.tokens:,}, above the cap of the history it replaces ({self.caps.history:,})",
            )
        if self.caps.policy is not None and self.policy > self.caps.policy:
            message = f"read {self.policy:,}, above its cap ({self.caps.policy:,}): every request would be; shorten it"
            yield Fault(("policy",), message)
        for name, part in (("retrieval_chunks", self.retrieval), ("tool_results", self.tool_results)):
            if getattr(self.caps, name) is not None and part is None:
                yield Fault(("caps", name), "there is none of it in the prompts; say how much, or drop the cap")
