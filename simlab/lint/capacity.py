"""The most a replica can serve, from its step time: an upper bound, so that "too few" is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simlab.profiles import StepTime


@dataclass(frozen=True)
class Mix:
    """The mean request a replica sees.

    Attributes:
        prompt_tokens: mean prompt.
        new_tokens: of these, to be computed.
        output_tokens: mean output, at least 1.
    """

    prompt_tokens: float
    new_tokens: float
    output_tokens: float


def mix(parts: Sequence[tuple[float, Mix]]) -> Mix:
    """The mean request of several kinds, weighted by their rates."""
    total = sum(rate for rate, _ in parts)
    return Mix(
        sum(rate * part.prompt_tokens for rate, part in parts) / total,
        sum(rate * part.new_tokens for rate, part in parts) / total,
        sum(rate * part.output_tokens for rate, part in parts) / total,
    )


def replica_rps(step: StepTime, request: Mix, *, max_num_seqs: int, token_budget: int, kv_tokens: float) -> float:
    """Requests a second of one replica that always has a full batch.

    With B sequences decoding, B/output requests begin a step: where that is less than one, so many steps have a
    whole prompt in them and the others none. B is bounded by `max_num_seqs`, by the step's token budget and by the
    KV cache. The best B is taken.

    Args:
        step: step time of the replica.
        request: the mean request.
        max_num_seqs: most sequences in a step.
        token_budget: most tokens in a step.
        kv_tokens: tokens the KV cache holds.
    """
    per_seq_kv = request.new_tokens + request.output_tokens / 2
    by_budget = token_budget / (1 + request.new_tokens / request.output_tokens)
    most = max(1.0, min(max_num_seqs, by_budget, kv_tokens / max(per_seq_kv, 1.0)))
    best, batch = 0.0, 1.0
    while True:
        begun = batch / request.output_tokens
        context = batch * (request.prompt_tokens + request.output_tokens / 2)
        prompts = max(1.0, begun)
        share = begun / prompts
        mixed_s = step.step_s(
            prompts * request.new_tokens,
            batch,
            context,
            prefill_context=prompts * request.prompt_tokens,
            prefill_work=prompts * request.new_tokens * (request.prompt_tokens - request.new_tokens / 2),
            prefill_requests=prompts,
        )
        best = max(best, begun / (share * mixed_s + (1.0 - share) * step.step_s(0, batch, context)))
        if batch >= most:
            return best
        batch = min(batch * 1.25, most)


def alone_s(step: StepTime, request: Mix, *, token_budget: int) -> tuple[float, float]:
    """(time to first token, time per further token) of the mean request on an empty replica, s."""
    first, done = step.overhead_s, request.prompt_tokens - request.new_tokens
    while done < request.prompt_tokens:
        chunk = min(token_budget, request.prompt_tokens - done)
        work = chunk * (done + (chunk + 1) / 2)
        done += chunk
        first += step.step_s(chunk, 0, 0, prefill_context=done, prefill_work=work)
    return first, step.step_s(0, 1, request.prompt_tokens + request.output_tokens / 2)
