"""Step times from step logs: which terms a server's steps need, their coefficients, and how far off they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simlab.calibrate.robust import RobustFit
from simlab.calibrate.run import Floats, Steps
from simlab.calibrate.step_choice import PLENTY, choose, held_out
from simlab.calibrate.step_design import columns, step_time_of
from simlab.calibrate.step_log import DECODE, PHASES, Bools, StepLog, joined
from simlab.calibrate.step_problem import Observations, Problem, beyond
from simlab.calibrate.step_uncertainty import MANY_LOGS, uncertainty_of
from simlab.profiles import StepTime, Uncertainty

FOLDS = 5
STRAY = 0.02
"""Worth a note: outliers have more than this share of the time."""


@dataclass(frozen=True)
class StepFit:
    """A step-time fitted to steps.

    Attributes:
        step_time: the coefficients.
        uncertainty: covariance of their logarithms (`simlab.calibrate.step_uncertainty`).
        errors: shares. Of blocks of consecutive steps that the fit did not see: ``step_median_ape`` and
            ``step_{prefill,decode,mixed}_median_ape`` of single steps; ``burst_median_ape`` of steps with prompts
            together with the decode steps beside them; ``real_total_time_error`` of the sum of all steps of a mixed
            stream, outliers included. Of shapes that it did not see: ``step_new_shapes_median_ape`` of steps with
            prompts or of a controlled sweep. Of many logs also ``between_logs_sd``: how much they differ in speed.
        kept: groups of terms (`simlab.calibrate.step_design.GROUPS`) in the order in which they were added, each with
            the share by which it lowered the held-out error (0: always there).
        together: steps with prompts and the decode steps beside them were fitted as sums.
        steps: how many.
        outlier_share, outlier_time_share: of the steps, and of their time, that counted nothing.
        max_decode_seqs, max_step_tokens, max_context_tokens: the largest that were measured, the last of a sequence.
        notes: what is to be known about it.
    """

    step_time: StepTime
    uncertainty: Uncertainty
    errors: Mapping[str, float]
    kept: Mapping[str, float]
    together: bool
    steps: int
    outlier_share: float
    outlier_time_share: float
    max_decode_seqs: int
    max_step_tokens: int
    max_context_tokens: int
    notes: tuple[str, ...]


def fit_steps(
    logs: Sequence[Steps],
    *,
    floor: StepTime | None = None,
    prior: StepTime | None = None,
    overhead_s: float = 0.0,
    seed: int = 0,
) -> StepFit:
    """The step-time of a server from logs of its steps.

    Terms are chosen by the error of steps held out (`simlab.calibrate.step_choice.choose`), coefficients by robust
    non-negative least squares of relative errors (`simlab.calibrate.robust.robust_fit`).

    Args:
        logs: steps of one server, in their order.
        floor: its ``per_kv_token_s`` and ``attn_s`` are what these can't be below: the bytes of the KV cache and
            the FLOPs of attention at the data sheet's peaks.
        prior: tells what the steps do not: batches larger than any measured, prompts where there are none. It is
            scaled to the measured steps.
        overhead_s: once a request, outside the scheduler: steps do not tell it.
        seed: of the resampling.

    Raises:
        ValueError: there are no steps.
    """
    log = joined(logs)
    if not len(log):
        raise ValueError("there are no steps to fit")
    unseen = None if prior is None else beyond(log, prior)
    every = columns(log.batch, None if unseen is None else unseen.batch)
    problem, kept = choose(Problem.of(log, every, floor=floor, beyond=unseen))
    seen = problem.observations(np.ones(len(log), dtype=bool), log.thinned(PLENTY))
    fit = problem.fit(seen)
    lost = _lost(log, seen, fit)
    step_time = step_time_of(problem.columns, fit.solution, overhead_s)
    if floor is not None:
        least = {name: max(getattr(step_time, name), getattr(floor, name)) for name in ("per_kv_token_s", "attn_s")}
        step_time = replace(step_time, **least)
    found = held_out(problem, log.block % FOLDS)
    errors = {**_errors(log, found), **_new_shapes(problem)}
    share, time_share = float(lost.mean()), float(log.seconds[lost].sum() / log.seconds.sum())
    batch = log.batch
    longest = np.maximum(
        batch.decode_context / np.maximum(batch.decodes, 1.0), batch.prefill_context / np.maximum(batch.requests, 1.0)
    )
    return StepFit(
        step_time=step_time,
        uncertainty=uncertainty_of(problem, seen, fit, found, seed),
        errors={name: round(value, 5) for name, value in errors.items()},
        kept=kept,
        together=problem.together,
        steps=len(log),
        outlier_share=share,
        outlier_time_share=time_share,
        max_decode_seqs=int(batch.decodes.max()),
        max_step_tokens=int(batch.tokens.max()),
        max_context_tokens=int(longest.max()),
        notes=_notes(logs, problem, time_share, unseen is not None),
    )


def _lost(log: StepLog, seen: Observations, fit: RobustFit) -> Bools:
    """Which steps were outliers; those of a burst seen as a sum where it was."""
    lost, found = np.zeros(len(log), dtype=bool), np.zeros(len(log), dtype=bool)
    for first, last, weight in zip(seen.first, seen.last, fit.weights, strict=True):
        if first >= 0:
            lost[first : last + 1] |= weight == 0
            found[first : last + 1] |= weight > 0
    return lost & ~found


def _errors(log: StepLog, found: Floats) -> dict[str, float]:
    """Errors of steps held out; see `StepFit`."""
    apes = np.abs(found / log.seconds - 1.0)
    errors = {"step_median_ape": float(np.median(apes))}
    for phase, name in enumerate(PHASES):
        if (log.phase == phase).any():
            errors[f"step_{name}_median_ape"] = float(np.median(apes[log.phase == phase]))
    if len(log.bursts):
        bursts = np.abs(log.burst_sums(found) / log.burst_sums(log.seconds) - 1.0)
        errors["burst_median_ape"] = float(np.median(bursts))
    if log.log[-1] + 1 >= MANY_LOGS:
        speeds = [float(np.median(found[log.log == i] / log.seconds[log.log == i])) for i in range(log.log[-1] + 1)]
        errors["between_logs_sd"] = float(np.std(np.log(speeds), ddof=1))
    if log.real.any():
        errors["real_total_time_error"] = float(abs(found[log.real].sum() / log.seconds[log.real].sum() - 1.0))
    return errors


def _new_shapes(problem: Problem) -> dict[str, float]:
    """Error of shapes that the fit did not see: of steps with prompts, or of a controlled sweep."""
    log = problem.log
    asked = (log.phase != DECODE) | ~log.real
    shapes = log.shapes()
    if len(np.unique(shapes[asked])) < 2 * FOLDS:
        return {}
    # Multiplied and cut, so that neighbouring numbers of tokens fall into different folds.
    fold = (shapes * 2654435761 % 2**32 // 2**16) % FOLDS
    fold[~asked] = FOLDS
    found = held_out(problem, fold)
    return {"step_new_shapes_median_ape": float(np.median(np.abs(found[asked] / log.seconds[asked] - 1.0)))}


def _notes(logs: Sequence[Steps], problem: Problem, time_share: float, has_prior: bool) -> tuple[str, ...]:
    """What is to be known about a fit."""
    notes = []
    if problem.together:
        notes.append(
            "steps with prompts were fitted in sums with their neighbours: the log books time of one with the next"
        )
    if time_share > STRAY:
        why = "compilation, waiting for other ranks"
        notes.append(f"{time_share:.0%} of the time is in steps that their batches do not explain ({why})")
    if not any(np.isfinite(steps.decode_context_tokens).any() and steps.decode_requests.any() for steps in logs):
        notes.append("no log tells the context of decoding sequences: its cost is not told from theirs")
    if not any(steps.prefill_tokens.any() for steps in logs):
        notes.append("no step has prompt tokens: their cost is " + ("the prior's" if has_prior else "not known"))
    return tuple(notes)
