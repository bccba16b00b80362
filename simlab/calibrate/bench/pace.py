"""How fast a server is believed to be, before and while it is measured: for minutes, request counts and first rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simlab.calibrate.run import Load
from simlab.errors import InputError
from simlab.profiles import StepTime, select

CLIENT_START_S = 12.0
"""What a `vllm bench serve` takes beside its requests: mostly its imports."""

USUAL = StepTime(base_s=8e-3, per_seq_s=2e-5, per_kv_token_s=1e-7, per_prefill_token_s=4e-5)
"""An 8B model on one H100, about: taken where no table knows the model or the GPU."""

_PRIOR_WEIGHT = 0.1
"""What a coefficient of the round before counts, a measured point being 1."""

_ROUNDS = 8
_SMALLEST = 0.1
"""Least that a coefficient shrinks to in a round."""


@dataclass(frozen=True)
class Measured:
    """What one finished benchmark tells of the pace.

    Attributes:
        load: how it was driven, with its number of requests.
        seconds: from the first request to the end of the last, s.
    """

    load: Load
    seconds: float


@dataclass(frozen=True)
class Pace:
    """A rough step-time of four coefficients, and the law of a full house that follows from it.

    Attributes:
        base_s: a step, s.
        per_seq_s: a sequence in it, s.
        per_kv_token_s: a token of context of those, s.
        per_prefill_token_s: a prompt token, s.
        source: whose numbers these are, in words.
        client_start_s: what a benchmark takes beside its requests, s.
    """

    base_s: float
    per_seq_s: float
    per_kv_token_s: float
    per_prefill_token_s: float
    source: str
    client_start_s: float = CLIENT_START_S

    def request_s(self, load: Load, running: float) -> float:
        """Seconds from one request's admission to the next one's in its place, with ``running`` requests at once.

        All of its own decode steps, and the prefills of all requests that run beside it, which hold its steps up.
        """
        return sum(work * second for work, second in zip(self._works(load, running), self._seconds(), strict=True))

    def throughput_rps(self, load: Load, running: float) -> float:
        """Requests/s that ``running`` requests at once make."""
        return running / self.request_s(load, running)

    def capacity_rps(self, load: Load, *, sequences: int, kv_tokens: int | None) -> float:
        """Requests/s that a full server finishes at these lengths."""
        return self.throughput_rps(load, _full(load, sequences, kv_tokens))

    def seconds(self, load: Load, *, sequences: int, kv_tokens: int | None) -> float:
        """How long a benchmark takes, without the client's start, s; its number of requests must be known."""
        requests = load.requests or 0
        full = _full(load, sequences, kv_tokens)
        running = min(load.concurrency or math.inf, full, requests)
        served = requests / self.throughput_rps(load, max(running, 1))
        sent = requests / load.rate_rps
        # The last request of an open loop is served after it was sent, beside few others.
        return max(served, sent) + (self.request_s(load, 1) if sent > served else 0.0)

    def learned(self, points: Sequence[Measured], *, sequences: int, kv_tokens: int | None) -> Pace:
        """The same after benchmarks in which the server was kept busy; open loops tell the rate that was asked for.

        Non-negative least squares of relative errors. The coefficients as they were are a prior of small weight, and
        the fit is a prior for the next of a few rounds: what the points tell may be far from it, and what they leave
        open moves least.
        """
        works, goals = [], []
        for point in points:
            load, requests = point.load, point.load.requests or 1
            if math.isfinite(load.rate_rps):
                continue
            running = min(load.concurrency or math.inf, _full(load, sequences, kv_tokens), requests)
            works.append(self._works(load, running))
            goals.append(point.seconds * running / requests)
        if not works:
            return self
        import numpy as np
        from scipy.optimize import nnls

        seconds = np.array(self._seconds())
        shares = np.array(works) / np.array(goals)[:, None]
        for _ in range(_ROUNDS):
            rows = np.vstack([shares * seconds, _PRIOR_WEIGHT * np.eye(len(seconds))])
            factors, _ = nnls(rows, np.append(np.ones(len(works)), np.full(len(seconds), _PRIOR_WEIGHT)))
            seconds = seconds * np.maximum(factors, _SMALLEST)
        base, per_seq, per_kv, per_prefill = map(float, seconds)
        return replace(
            self, base_s=base, per_seq_s=per_seq, per_kv_token_s=per_kv, per_prefill_token_s=per_prefill,
            source=f"{len(works)} points measured",
        )  # fmt: skip

    def _seconds(self) -> tuple[float, float, float, float]:
        return self.base_s, self.per_seq_s, self.per_kv_token_s, self.per_prefill_token_s

    def _works(self, load: Load, running: float) -> tuple[float, float, float, float]:
        """What each coefficient is multiplied by in `request_s`."""
        steps = max(load.output_tokens, 1.0)
        context = load.prompt_tokens + load.output_tokens / 2
        own = max(load.prompt_tokens - load.shared_tokens, 1.0)
        return steps, steps * running, steps * running * context, running * own


def expected(model: str, gpu: str | None, tp: int = 1, precision: str | None = None) -> Pace:
    """The pace to begin with: that of the measured or estimated profile of the set-up, or the usual one.

    Args:
        model: name of the model table; another gives the usual pace.
        gpu: name of the GPU table; another, or None, gives the usual pace.
        tp: GPUs of one replica.
        precision: of the weights; None is the published one.
    """
    step, source = USUAL, "an 8B model on one H100, as this model or GPU is in no table"
    if gpu is not None:
        try:
            profile = select(model, gpu, tp, precision)
            step, source = profile.step_time, f"the {profile.kind} profile {profile.name}"
        except InputError:
            pass  # A model or GPU that no table knows can be measured all the same.
    one, many, tokens = step.step_s(0, 1, 0), step.step_s(0, 65, 0), 2048
    return Pace(
        base_s=one,
        per_seq_s=max((many - one) / 64, 1e-7),
        per_kv_token_s=max(step.per_kv_token_s, 1e-10),
        per_prefill_token_s=max((step.step_s(tokens, 0, 0, tokens, tokens**2 / 2) - one) / tokens, 1e-7),
        source=source,
    )


def _full(load: Load, sequences: int, kv_tokens: int | None) -> float:
    """Requests that run at once when the server is full."""
    own = load.prompt_tokens - load.shared_tokens + load.output_tokens
    return float(sequences if kv_tokens is None else max(1, min(sequences, int(kv_tokens / own))))
