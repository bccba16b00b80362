"""Step logs of a server whose step time is known."""

from __future__ import annotations

import numpy as np

from simlab.calibrate.run import Floats, Steps
from simlab.calibrate.step_design import contents, step_seconds
from simlab.profiles import StepTime


def random_batches(count: int, rng: np.random.Generator, *, most: int = 64, prompts: float = 0.2) -> Steps:
    """A stream of batches: decodes, now and then with one or two prompts beside, or a prompt alone; all take 1 s."""
    decodes = rng.integers(1, most + 1, count).astype(float)
    context = decodes * rng.integers(200, 8000, count)
    begins = rng.random(count) < prompts
    requests = np.where(begins, rng.integers(1, 3, count), 0).astype(float)
    prefill = np.where(begins, np.exp(rng.uniform(np.log(32), np.log(8000), count)).round(), 0.0)
    alone = begins & (rng.random(count) < 0.3)
    start = np.where(begins & (rng.random(count) < 0.3), rng.integers(1, 8000, count), 0).astype(float)
    decodes, context = np.where(alone, 0.0, decodes), np.where(alone, 0.0, context)
    work = prefill * (start + (prefill / np.maximum(requests, 1.0) + 1.0) / 2.0)
    return Steps(np.ones(count), prefill, requests, start, decodes, context, work, np.ones(count, dtype=bool))


def timed(steps: Steps, law: StepTime, noise: Floats | float = 1.0) -> Steps:
    """The same batches with the times that a law gives them, times noise."""
    seconds = step_seconds(law, contents(steps)) * noise
    rest = (steps.prefill_tokens, steps.prefill_requests, steps.prefill_start_tokens, steps.decode_requests)
    return Steps(seconds, *rest, steps.decode_context_tokens, steps.work, steps.real)


def stairs(*rises: tuple[int, float]) -> tuple[tuple[float, float], ...]:
    """A table that rises by so many seconds after each of these numbers of tokens."""
    points, level = [(1.0, 0.0)], 0.0
    for size, seconds in rises:
        points += [(float(size), level)] if size > 1 else []
        level += seconds
        points.append((float(size + 1), level))
    return (*points, (2.0 * points[-1][0], level))
