"""What is in a trace, small enough to keep: rates over time, pairs of lengths, burstiness, and where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from simlab.errors import Problem, TraceError
from simlab.names import nearest
from simlab.workload.faults import trace_error
from simlab.workload.lengths import JointTable
from simlab.workload.locate import find_file
from simlab.workload.rates import RateFunction

SCHEMA_VERSION = 1

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Attribution(_Facts):
    """Where the data came from."""

    title: str = Field("", description="name of the data set")
    url: str = Field("", description="where it can be had")
    licence: str = Field("", description="its licence")
    cite: str = Field("", description="how to cite it")


class LengthFacts(_Facts):
    """A marginal distribution of lengths, tokens."""

    mean: Finite = Field(description="mean over all requests")
    maximum: int = Field(ge=0, description="longest")
    quantiles: dict[str, Finite] = Field(description="value by probability, e.g. {'0.5': 120}")


class RateSteps(_Facts):
    """Arrival rate as a step function."""

    bin_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(description="length of a step, s; the last one "
                                                                       "may be shorter")  # fmt: skip
    rps: list[Finite] = Field(min_length=1, description="rate of each step, 1/s")


class PrefixFacts(_Facts):
    """How much of the prompts was seen before."""

    block_tokens: int = Field(ge=1, description="tokens of a block")
    ideal_hit_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of prompt tokens in leading blocks seen before: what a cache without limits would serve"
    )


class Pairs(_Facts):
    """Equally likely pairs of lengths."""

    prompt: list[Tokens] = Field(min_length=1, description="prompt tokens")
    output: list[Tokens] = Field(min_length=1, description="output tokens of the same request")


class WorkloadSummary(_Facts):
    """A trace in a few kilobytes: enough to draw traffic like it. Written by `simlab trace summarize`."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION, description="version of this layout")
    name: str = Field(description="short name")
    format: str = Field(description="format the trace was read as")
    source: Attribution = Field(Attribution(), description="where the trace came from")
    start: str | None = Field(None, description="date and time (UTC) of the first request, where the trace says so")
    requests: int = Field(ge=1, description="requests in the trace")
    failed: int = Field(0, ge=0, description="requests of it that got no output")
    duration_s: Finite | None = Field(None, description="length of the trace, s; none: lengths without times")
    mean_rps: Finite | None = Field(None, description="mean arrival rate, 1/s")
    peak_rps: Finite | None = Field(None, description="highest rate of any step, 1/s")
    gap_cv: Finite | None = Field(None, description="coefficient of variation of the times between arrivals")
    residual_cv: Finite | None = Field(
        None, description="the same on the clock of the rate steps: the burstiness that they do not explain"
    )
    rate: RateSteps | None = Field(None, description="arrival rate over time; none: lengths without times")
    prompt_tokens: LengthFacts = Field(description="prompt lengths")
    output_tokens: LengthFacts = Field(description="output lengths")
    pairs: Pairs = Field(description="equally likely pairs of lengths that stand for all of them")
    prefix: PrefixFacts | None = Field(None, description="sharing of prefixes, where the trace has block ids")
    notes: list[str] = Field(default_factory=list, description="what to know when using it")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.pairs.prompt) != len(self.pairs.output):
            raise ValueError(
                f"pairs has {len(self.pairs.prompt)} prompts and {len(self.pairs.output)} outputs; they must be as many"
            )
        if self.rate is not None:
            if self.duration_s is None or not 0.0 < self.duration_s <= self.rate.bin_s * len(self.rate.rps) * 1.0001:
                raise ValueError(f"duration_s is {self.duration_s}; with {len(self.rate.rps)} steps of "
                                 f"{self.rate.bin_s:g} s it must lie within them")  # fmt: skip
            if not any(self.rate.rps):
                raise ValueError("all rates are 0, so nothing would ever arrive")
        return self

    @property
    def joint(self) -> JointTable:
        """The pairs as a table to draw from."""
        return JointTable.from_pairs(self.pairs.prompt, self.pairs.output)

    def rate_function(self, *, scale: float = 1.0, repeat: bool = True) -> RateFunction | None:
        """The rates as a function of time, or None when the summary has none.

        Args:
            scale: multiplies the rate.
            repeat: start again after ``duration_s``; otherwise silence.
        """
        if self.rate is None or self.duration_s is None:
            return None
        count = max(1, math.ceil(self.duration_s / self.rate.bin_s - 1e-6))
        edges = np.arange(count, dtype=np.float64) * self.rate.bin_s
        rates = np.array(self.rate.rps[:count])
        if repeat:
            return RateFunction(scale, edges, rates, self.duration_s)
        return RateFunction(scale, np.append(edges, self.duration_s), np.append(rates, 0.0))

    def to_json(self) -> str:
        """JSON text with a line for each field, so that differences read well."""
        fields = self.model_dump(mode="json", exclude_none=True)
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> WorkloadSummary:
        """Reads what `to_json` wrote.

        Raises:
            TraceError: every fault of the text, at ``where``.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            detail = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "too deep"
            raise trace_error(where, f"is not JSON ({detail}); write it again with `simlab trace summarize`") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise TraceError([_problem(where, fault) for fault in error.errors()[:20]]) from None


def _problem(where: str, fault: ErrorDetails) -> Problem:
    read = "" if isinstance(fault["input"], dict | list) else f"read {str(fault['input'])[:40]!r}: "
    message = fault["msg"].removeprefix("Value error, ")
    path = ".".join(map(str, fault["loc"]))
    return Problem(where, path, f"{read}{message}; write it again with `simlab trace summarize`")


def length_facts(values: NDArray[np.int64], mean: float, maximum: int,
                 probabilities: Sequence[float]) -> LengthFacts:  # fmt: skip
    """Quantiles of (a sample of) lengths, with the exact mean and maximum."""
    at = np.quantile(values, probabilities)
    quantiles = {f"{p:g}": round(float(x), 1) for p, x in zip(probabilities, at, strict=True)}
    return LengthFacts(mean=round(mean, 3), maximum=maximum, quantiles=quantiles)


def _folder() -> Traversable:
    return files("simlab.workload").joinpath("data")


@cache
def bundled_summaries() -> tuple[str, ...]:
    """Names of the summaries that come with simlab, sorted."""
    return tuple(sorted(p.name.removesuffix(".json") for p in _folder().iterdir() if p.name.endswith(".json")))


@cache
def _bundled(name: str) -> WorkloadSummary:
    return WorkloadSummary.from_json(_folder().joinpath(f"{name}.json").read_text("utf-8"), f"bundled summary {name}")


def load_summary(name: str, base_dir: Path | None = None) -> WorkloadSummary:
    """A bundled summary by name, else a JSON file found like a trace.

    Raises:
        TraceError: no such name or file (with the nearest names), or a bad file.
    """
    if name in bundled_summaries():
        return _bundled(name)
    if not name.endswith(".json"):
        near = nearest(name, bundled_summaries())
        hint = f"did you mean {', '.join(near)}?" if near else "none is like it;"
        raise trace_error(
            name, f"no bundled summary of this name; {hint} bundled are {', '.join(bundled_summaries())}; "
            "a file's name must end in .json"
        )  # fmt: skip
    path = find_file(name, base_dir)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise trace_error(str(path), f"byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    return WorkloadSummary.from_json(text, str(path))
