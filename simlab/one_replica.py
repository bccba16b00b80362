"""`replay`: one vLLM replica on explicit requests, exact to the scheduler step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simlab.engine import ClassSpec, Engine, PoolSpec, StepCoefficients, WorldSpec
from simlab.errors import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

_COEFFICIENTS = ("base_s", "per_prefill_token_s", "per_decode_seq_s", "per_context_token_s")
_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
_LATEST_S = 1e9


@dataclass(frozen=True)
class _Requests:
    """Requests as the engine's chunk, in order of arrival; also the feed that brings it, once."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    segment_ptr: NDArray[np.int64]
    segment_id: NDArray[np.int64]
    segment_tokens: NDArray[np.int64]
    query: None = None


class _Once:
    def __init__(self, chunk: _Requests) -> None:
        self._chunks = [chunk]

    def next_chunk(self) -> _Requests | None:
        return self._chunks.pop() if self._chunks else None


def replay(
    requests: pd.DataFrame,
    *,
    step_time: Mapping[str, float],
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_blocks: int,
    block_size: int = 16,
    prefix_caching: bool = False,
) -> pd.DataFrame:
    """Runs one vLLM V1 replica on explicit requests.

    Args:
        requests: columns ``arrival_s`` (s), ``prompt_tokens``, ``output_tokens`` (both >= 1) and, optionally,
            ``segments``: a list of ``[id, tokens]`` that begin the prompt, the same content wherever the same chain of
            ids begins a prompt. Any order; requests that arrive together are queued in the order given.
        step_time: ``base_s``, ``per_prefill_token_s``, ``per_decode_seq_s``, ``per_context_token_s``: a step lasts
            base + a · prefill tokens + b · decoding sequences + c · Σ over scheduled requests of (tokens computed
            before + tokens in this step). A request is decoding when it has an output token and is scheduled for
            exactly one token; all other tokens are prefill tokens.
        max_num_seqs: most requests in a batch.
        max_num_batched_tokens: token budget of a step; at least ``max_num_seqs``, as vLLM demands.
        kv_blocks: vLLM's ``num_gpu_blocks``; one of them is its null block.
        block_size: tokens of a KV block.
        prefix_caching: as ``--enable-prefix-caching``.

    Returns:
        A frame with the index of ``requests`` and columns ``first_token_s``, ``finish_s`` (times, s),
        ``preemptions``, ``cached_tokens`` (prompt tokens found in the prefix cache when first admitted).

    Raises:
        InputError: a column is missing, a number is out of range, or a request can never fit; all problems at once.
    """
    import pandas as pd

    problems = _check(requests, step_time, max_num_seqs, max_num_batched_tokens, kv_blocks, block_size)
    if problems:
        raise InputError(problems)
    order = np.argsort(requests["arrival_s"].to_numpy(np.float64), kind="stable")
    chunk = _chunk(requests, order)
    n = len(order)
    result = {
        name: np.zeros(n, np.float64 if name.endswith("_s") else np.int64)
        for name in ("first_token_s", "finish_s", "preemptions", "cached_tokens")
    }

    def collect(rows: NDArray[Any]) -> None:
        at = order[rows["task"]]
        for name, column in result.items():
            column[at] = rows[name]

    if n:
        spec = WorldSpec(
            classes=[ClassSpec(feed=_Once(chunk), segmented=len(chunk.segment_id) > 0)],
            backends=[
                PoolSpec(
                    step=StepCoefficients(
                        base_s=step_time["base_s"],
                        prefill_token_s=step_time["per_prefill_token_s"],
                        decode_seq_s=step_time["per_decode_seq_s"],
                        decode_context_s=step_time["per_context_token_s"],
                        prefill_context_s=step_time["per_context_token_s"],
                    ),
                    max_num_seqs=max_num_seqs,
                    max_num_batched_tokens=max_num_batched_tokens,
                    kv_blocks=kv_blocks,
                    block_size=block_size,
                    prefix_caching=prefix_caching,
                )
            ],
            horizon_s=_LATEST_S,
            window_s=_LATEST_S,
            log_rows=1,
        )
        engine = Engine(spec, collect)
        engine.advance(np.inf)
        engine.flush_log()
    return pd.DataFrame(result, index=requests.index)


def _chunk(requests: pd.DataFrame, order: NDArray[np.int64]) -> _Requests:
    chains: Sequence[Any] = requests["segments"].tolist() if "segments" in requests.columns else [()] * len(order)
    pairs = [[(int(i), int(k)) for i, k in (_chain(chains[row]))] for row in order]
    flat = np.array([pair for chain in pairs for pair in chain], np.int64).reshape(-1, 2)
    return _Requests(
        arrival_s=requests["arrival_s"].to_numpy(np.float64)[order],
        prompt_tokens=requests["prompt_tokens"].to_numpy(np.int64)[order],
        output_tokens=requests["output_tokens"].to_numpy(np.int64)[order],
        segment_ptr=np.concatenate([[0], np.cumsum([len(chain) for chain in pairs])]).astype(np.int64),
        segment_id=flat[:, 0].copy(),
        segment_tokens=flat[:, 1].copy(),
    )


def _chain(value: Any) -> Sequence[Any]:
    """A segments cell: nothing (None, NaN) is no segments."""
    return () if value is None or isinstance(value, float) else value


def _check(
    requests: pd.DataFrame,
    step_time: Mapping[str, float],
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_blocks: int,
    block_size: int,
) -> list[Problem]:
    problems = [
        Problem("replay", f"step_time.{name}", f"must be a number >= 0, read {step_time.get(name)!r}")
        for name in _COEFFICIENTS
        if not _is_number(step_time.get(name)) or step_time[name] < 0
    ]
    problems += [
        Problem("replay", f"step_time.{name}", f"is not a coefficient; allowed are {', '.join(_COEFFICIENTS)}")
        for name in step_time
        if name not in _COEFFICIENTS
    ]
    if not problems and not step_time["base_s"] + step_time["per_prefill_token_s"] + step_time["per_context_token_s"]:
        problems.append(Problem("replay", "step_time", "steps would take no time; give base_s a value above 0"))
    limits = (("max_num_seqs", max_num_seqs, 1), ("kv_blocks", kv_blocks, 2), ("block_size", block_size, 1))
    problems += [
        Problem("replay", name, f"must be at least {least}, read {value}")
        for name, value, least in limits
        if value < least
    ]
    if max_num_batched_tokens < max_num_seqs:
        problems.append(
            Problem(
                "replay",
                "max_num_batched_tokens",
                f"must be at least max_num_seqs ({max_num_seqs}), as in vLLM, read {max_num_batched_tokens}",
            )
        )
    missing = [name for name in _COLUMNS if name not in requests.columns]
    problems += [Problem("replay", name, "column is missing from the requests") for name in missing]
    if missing or problems:
        return problems
    for name in _COLUMNS:
        values = requests[name].to_numpy(np.float64)
        low = 0.0 if name == "arrival_s" else 1.0
        whole = name == "arrival_s" or np.equal(np.mod(np.where(np.isfinite(values), values, 0), 1), 0).all()
        bad = np.flatnonzero(~((values >= low) & (values <= _LATEST_S)))
        if len(bad) or not whole:
            row = int(bad[0]) if len(bad) else int(np.flatnonzero(values % 1)[0])
            kind = "a time in s from 0 to 1e9" if name == "arrival_s" else "a whole number of tokens from 1 to 1e9"
            problems.append(Problem(f"replay: row {row}", name, f"must be {kind}, read {float(values[row])!r}"))
    if problems:
        return problems
    return _check_fit(requests, (kv_blocks - 1) * block_size)


def _check_fit(requests: pd.DataFrame, capacity: int) -> list[Problem]:
    prompts = requests["prompt_tokens"].to_numpy(np.int64)
    tokens = prompts + requests["output_tokens"].to_numpy(np.int64) - 1
    problems = [
        Problem(
            f"replay: row {row}",
            "prompt_tokens",
            f"request of {tokens[row] + 1} tokens can never run: the KV blocks hold {capacity} tokens; raise kv_blocks",
        )
        for row in np.flatnonzero(tokens > capacity)[:10]
    ]
    if "segments" in requests.columns:
        for row, value in enumerate(requests["segments"]):
            chain = _chain(value)
            try:
                sizes = [int(tokens) for ident, tokens in chain if int(ident) == ident]
            except (TypeError, ValueError):
                problems.append(
                    Problem(f"replay: row {row}", "segments", f"must be a list of [id, tokens], read {value!r}")
                )
                continue
            total = sum(sizes)
            if min(sizes, default=0) < 0 or total > prompts[row]:
                problems.append(
                    Problem(
                        f"replay: row {row}",
                        "segments",
                        f"must have tokens >= 0 that add up to at most prompt_tokens ({prompts[row]}), read {total}",
                    )
                )
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))
