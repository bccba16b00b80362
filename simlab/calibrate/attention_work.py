"""Attention work of a step's prompt tokens, from the sums that step logs keep."""

from __future__ import annotations

import numpy as np

from simlab.calibrate.run import Floats


def attention_work(
    prefill_tokens: Floats,
    prefill_requests: Floats,
    prefill_start_tokens: Floats,
    prompt_variance: Floats | float = 0.0,
) -> Floats:
    """Pairs of a prompt token and a context token that attend to each other in a step: Σ chunk·(start + (chunk+1)/2).

    A request from context s to e works (e² − s²)/2 + (e − s)/2. Mostly one request of a step is part way through its
    prompt, so that Σ s² is S²; and with n prompts of mean length m = (p + S)/n and variance V, Σ e² is n·(m² + V). That
    is exact unless the step's budget cuts its last prompt: V is of whole prompts, so that the work is then taken a
    little too high. Where that gives less than the prompt tokens alone must work, several requests are part way
    through; then all are taken as alike.

    Args:
        prefill_tokens: p, prompt tokens of each step, [n].
        prefill_requests: of how many requests.
        prefill_start_tokens: S, context of those before the step.
        prompt_variance: V, variance over those requests of their whole prompts' lengths; 0: alike.

    >>> attention_work(np.array([300.0]), np.array([2.0]), np.array([0.0]), 2500.0)  # 100 and 200 tokens
    array([25150.])
    """
    requests = np.maximum(prefill_requests, 1.0)
    mean = (prefill_tokens + prefill_start_tokens) / requests
    exact = (requests * (mean**2 + prompt_variance) - prefill_start_tokens**2 + prefill_tokens) / 2.0
    alone = prefill_tokens * (prefill_tokens / requests + 1.0) / 2.0
    work = np.where(exact < alone, alone + prefill_tokens * prefill_start_tokens / requests, exact)
    return np.where(prefill_tokens > 0, work, 0.0)
