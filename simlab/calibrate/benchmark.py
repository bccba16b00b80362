"""A benchmark simulated exactly as it was driven: what its client would measure if steps took a given time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simlab.assemble import coefficients
from simlab.calibrate.rerun import Rerun
from simlab.calibrate.run import Floats, Ints, Requests, Run
from simlab.calibrate.sending import Sending, sending
from simlab.engine import ClassSpec, PoolSpec, StepCoefficients, WorldSpec
from simlab.profiles import StepTime

_EVER_S = 1e12


@dataclass(frozen=True)
class Limits:
    """A scheduler's limits, named as vLLM's flags; defaults are those of vLLM on a data-centre GPU.

    Attributes:
        max_num_seqs: most requests in a step.
        max_num_batched_tokens: most tokens in a step.
        kv_blocks: blocks of the KV cache, vLLM's null block among them.
        block_size: tokens of a block.
        prefix_caching: whether blocks of prompts are kept for others.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_blocks: int = 1 << 20
    block_size: int = 16
    prefix_caching: bool = True


@dataclass(frozen=True)
class _Chunk:
    """Requests as the engine takes them, and the feed that brings them, once."""

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    segment_ptr: Ints | None = None
    segment_id: Ints | None = None
    segment_tokens: Ints | None = None
    query: Ints | None = None


class _Once:
    def __init__(self, chunk: _Chunk) -> None:
        self._chunks = [chunk]

    def next_chunk(self) -> _Chunk | None:
        return self._chunks.pop() if self._chunks else None


class Benchmark:
    """One run made ready to be simulated again and again with other step times.

    Args:
        run: what is simulated; of its results nothing is looked at but which lengths and times its requests had.
        limits: of each scheduler. A cache too small for the longest request is taken as just large enough, for the
            request was answered.
        seed: of lengths and times that are not known.

    Raises:
        ValueError: the run says nothing of its load.
    """

    def __init__(self, run: Run, limits: Limits, *, seed: int = 0) -> None:
        self.sending = sending(run, seed=seed)
        sent = self.sending
        n = len(sent.due_s)
        self._seed = seed
        self._chunk = _chunk(sent)
        longest = int((sent.prompt_tokens + sent.output_tokens).max())
        blocks = -(-longest // limits.block_size)
        most = min(limits.max_num_seqs, limits.max_num_batched_tokens, sent.users or n, n)
        kv_blocks = max(limits.kv_blocks, blocks + 1)
        ample = kv_blocks > blocks * most
        if sent.kind is None and ample:
            # More than all of them can hold is the same as unlimited; the engine's arrays are as large as this.
            kv_blocks = blocks * most + 1
        self._pool = PoolSpec(
            step=StepCoefficients(0.0),
            max_num_seqs=most,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            kv_blocks=kv_blocks,
            block_size=limits.block_size,
            # Without anything shared only a preempted request can find blocks again: its own.
            prefix_caching=limits.prefix_caching and (sent.kind is not None or not ample),
            max_model_len=longest,
        )
        self._world = Rerun(self._spec, self._pool)

    def _spec(self, pool: PoolSpec) -> WorldSpec:
        shares = self._chunk.segment_ptr is not None
        cls = ClassSpec(users=self.sending.users, feed=_Once(self._chunk), segmented=shares)
        return WorldSpec([cls], [pool], horizon_s=_EVER_S, window_s=_EVER_S, seed=self._seed, log_rows=1)

    def requests(self, step_time: StepTime) -> Requests:
        """The requests that one of the schedulers answers, as the client would see them, [n]."""
        pool = replace(self._pool, step=coefficients(step_time), overhead_s=step_time.overhead_s)
        log = self._world.run(pool)
        return Requests(
            start_s=log["arrival_s"],
            prompt_tokens=log["prompt_tokens"],
            output_tokens=log["output_tokens"],
            ttft_s=log["first_token_s"] - log["arrival_s"],
            e2e_s=log["finish_s"] - log["arrival_s"],
        )

    def metrics(self, step_time: StepTime) -> dict[str, float]:
        """What the client would report, by name of `METRICS`; of the whole deployment."""
        requests = self.requests(step_time)
        measured = client_metrics(requests)
        measured["output_tokens_per_s"] /= self.sending.share
        return measured


def client_metrics(requests: Requests) -> dict[str, float]:
    """What ``vllm bench serve`` reports of requests: means and percentiles over requests, tokens over duration.

    ``itl_s_mean`` is over all tokens; ``tpot_s_mean`` is the mean over requests of their own means; requests of one
    token are in neither.
    """
    ttft = np.sort(requests.ttft_s)
    decode = requests.e2e_s - requests.ttft_s
    further = requests.output_tokens - 1
    several = further > 0
    measured = {
        "ttft_s_mean": float(ttft.mean()),
        "ttft_s_p50": _percentile(ttft, 0.5),
        "ttft_s_p99": _percentile(ttft, 0.99),
        "e2e_s_mean": float(requests.e2e_s.mean()),
    }
    if several.any():
        measured["itl_s_mean"] = float(decode[several].sum() / further[several].sum())
        measured["tpot_s_mean"] = float((decode[several] / further[several]).mean())
    duration = float((requests.start_s + requests.e2e_s).max() - requests.start_s.min())
    if duration > 0.0:
        measured["output_tokens_per_s"] = float(requests.output_tokens.sum()) / duration
    return measured


def simulate_requests(
    run: Run, step_time: StepTime, limits: Limits, *, seed: int = 0
) -> Requests:
    """The requests of a run (of one of its schedulers) as its client would see them; see `Benchmark`."""
    return Benchmark(run, limits, seed=seed).requests(step_time)


def simulate_run(run: Run, step_time: StepTime, limits: Limits, *, seed: int = 0) -> dict[str, float]:
    """What a run would measure if its server's steps took ``step_time``, by name of `METRICS`; see `Benchmark`.

    Args:
        run: how the server was driven; see `simlab.calibrate.sending.sending`.
        step_time: of one scheduler.
        limits: of one scheduler.
        seed: of lengths and times that are not known.

    Raises:
        ValueError: the run says nothing of its load.
    """
    return Benchmark(run, limits, seed=seed).metrics(step_time)


def _percentile(ordered: Floats, share: float) -> float:
    """A percentile of numbers in order, straight between neighbours, as numpy's."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


def _chunk(sent: Sending) -> _Chunk:
    if sent.kind is None:
        return _Chunk(sent.due_s, sent.prompt_tokens, sent.output_tokens)
    n = len(sent.due_s)
    shared = np.minimum(sent.shared_tokens, sent.prompt_tokens)
    return _Chunk(
        sent.due_s, sent.prompt_tokens, sent.output_tokens, np.arange(n + 1, dtype=np.int64), sent.kind, shared
    )
