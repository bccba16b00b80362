"""A run: one benchmark of one vLLM server, as it was driven and what it measured; every reader makes these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = (
    "ttft_s_mean",
    "ttft_s_p50",
    "ttft_s_p99",
    "itl_s_mean",
    "tpot_s_mean",
    "e2e_s_mean",
    "output_tokens_per_s",
    "step_s",
)
"""What can be measured, in the order in which it is shown; s, and tokens/s of the whole deployment."""


@dataclass(frozen=True)
class Server:
    """The server that was measured; None where a source does not say.

    Attributes:
        model, gpu: names of the model and GPU tables where these know them, else as the source or the user has them.
        tp: GPUs of a tensor-parallel group.
        precision: of the weights: bf16, fp8, fp4, int4 (fp32 on a CPU).
        dp: data-parallel ranks of one deployment, each with a scheduler and a KV cache of its own.
        expert_parallel: experts are spread over the ranks.
        replicas: independent servers behind one address.
        engine: engine and version.
        kv_precision: of the KV cache.
        max_num_seqs, max_num_batched_tokens, kv_blocks, block_size, prefix_caching, max_model_len: vLLM's, of one rank.
    """

    model: str
    gpu: str
    tp: int = 1
    precision: str = "bf16"
    dp: int = 1
    expert_parallel: bool = False
    replicas: int = 1
    engine: str = ""
    kv_precision: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    prefix_caching: bool | None = None
    max_model_len: int | None = None

    @property
    def setup(self) -> str:
        """Name of the set-up, which is the name of its profile: all runs of one set-up make one profile.

        >>> Server("qwen3-32b", "h100-sxm", 2, "bf16").setup
        'qwen3-32b.h100-sxm.tp2.bf16'
        >>> Server("deepseek-v4-flash", "b300-sxm", 1, "fp8", dp=4, expert_parallel=True).setup
        'deepseek-v4-flash.b300-sxm.tp1.dp4.ep.fp8'
        """
        parts = [self.model, self.gpu, f"tp{self.tp}"]
        parts += [f"dp{self.dp}"] if self.dp > 1 else []
        parts += ["ep"] if self.expert_parallel else []
        return ".".join([*parts, self.precision])


@dataclass(frozen=True)
class Load:
    """How the server was driven.

    Attributes:
        concurrency: most requests in flight over the whole deployment; None: no limit.
        rate_rps: requests sent in a second; infinite: all at once, or as fast as ``concurrency`` lets them.
        burstiness: shape of the gamma law of the times between requests, as ``vllm bench serve``: 1 is Poisson,
            infinite is evenly spaced.
        requests: how many were sent; None where a source does not say.
        prompt_tokens, output_tokens: nominal lengths of a request (means where every request has its own).
        low, high: lengths are uniform between these shares of the nominal ones.
        shared_tokens: tokens at the beginning of each prompt (within ``prompt_tokens``) that others share.
        shared_kinds: how many different beginnings there are.
    """

    concurrency: int | None = None
    rate_rps: float = math.inf
    burstiness: float = 1.0
    requests: int | None = None
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    low: float = 1.0
    high: float = 1.0
    shared_tokens: int = 0
    shared_kinds: int = 1

    @property
    def point(self) -> str:
        """The operating point in short; runs of one point measure the same thing.

        >>> Load(concurrency=16, prompt_tokens=1024, output_tokens=128).point
        'i1024-o128-c16'
        >>> Load(rate_rps=2.5, burstiness=0.5, prompt_tokens=640, output_tokens=32, shared_tokens=512).point
        'i640-o32-r2.5-b0.5-p512x1'
        """
        parts = [f"i{self.prompt_tokens:.0f}", f"o{self.output_tokens:.0f}"]
        parts += [f"r{self.rate_rps:g}"] if math.isfinite(self.rate_rps) else []
        parts += [f"c{self.concurrency}"] if self.concurrency is not None else []
        if self.concurrency is None and not math.isfinite(self.rate_rps):
            parts += [f"n{self.requests}"]
        parts += [f"b{self.burstiness:g}"] if self.burstiness != 1.0 else []
        parts += [f"l{self.low:g}-{self.high:g}"] if (self.low, self.high) != (1.0, 1.0) else []
        parts += [f"p{self.shared_tokens}x{self.shared_kinds}"] if self.shared_tokens else []
        return "-".join(parts)


@dataclass(frozen=True)
class Requests:
    """The requests of a run in the order in which they were sent, [n] each.

    Attributes:
        start_s: when the request was sent, s from the first one (after any wait of the client for its concurrency);
            NaN where a source does not say.
        prompt_tokens, output_tokens: lengths.
        ttft_s: from sending to the first token, s.
        e2e_s: from sending to the last token, s.
        itl_s: times between tokens, s, one array of [output_tokens − 1] a request; None where not kept. A response
            may hold several tokens, so an array may be shorter.
        queue_s: in the server, from arrival to the first step, s; None where not known.
    """

    start_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    ttft_s: Floats
    e2e_s: Floats
    itl_s: tuple[Floats, ...] | None = None
    queue_s: Floats | None = None


@dataclass(frozen=True)
class Steps:
    """Scheduler steps of a run in their order, [n] each; sums over the requests of the step.

    Attributes:
        seconds: duration of the step, s.
        prefill_tokens, prefill_requests: prompt tokens computed, and of how many requests.
        prefill_start_tokens: context of those requests before the step.
        decode_requests: sequences that get one token.
        decode_context_tokens: context of those, this step's token included; NaN where not logged.
        work: Σ chunk · (start + (chunk + 1) / 2) over prefilling requests where chunks are known, NaN where not.
        real: the step is of a mixed stream of requests, not of a controlled sweep.
    """

    seconds: Floats
    prefill_tokens: Floats
    prefill_requests: Floats
    prefill_start_tokens: Floats
    decode_requests: Floats
    decode_context_tokens: Floats
    work: Floats
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One benchmark of one server.

    Attributes:
        name: unique among the runs read together: the file's name without its ending, or of the row.
        where: file, and row or line, for messages.
        server: what was measured.
        load: how it was driven; None for a log of steps alone.
        measured: what was measured, by name of `METRICS`; only what the source says or what its requests give.
        requests: request by request, where kept.
        steps: step by step, where kept.
        date: ISO date, or empty.
        source: where the data are from, for a profile's ``fitted_on``.
        failed: requests that ended in an error; their times are in nothing above.
        notes: what the reader had to assume.
    """

    name: str
    where: str
    server: Server
    load: Load | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    requests: Requests | None = None
    steps: Steps | None = None
    date: str = ""
    source: str = ""
    failed: int = 0
    notes: tuple[str, ...] = ()
