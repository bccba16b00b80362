"""What is believed of a server's step time before its benchmarks are looked at: a law of a few numbers.

The numbers are standard normal; a prior says which step-time each of their values gives. Terms are products of a centre
and exponentials of the numbers, so that none is negative and relative errors are what counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simlab.calibrate.run import Floats, Load, Run, Server
from simlab.profiles import Efficiency, Profile, StepTime, gpu, gpus, model, models

if TYPE_CHECKING:
    from simlab.calibrate.step_fit import StepFit

OWN_SHARE = 1.5
"""Of an efficiency's spread over all set-ups: how far the runs of one may take it from what is expected, beside what is
not known of that. Wider than set-ups really differ: a dozen runs know better, and errors of left-out ones fall."""
OVERHEAD_SD = 1.0
"""Of the logarithm of a request's time outside the scheduler, which steps do not tell."""
GAP_SHARE, GAP_SD = 0.01, 1.5
"""Between steps, a server's own log of them does not count what the client waits for: share of a step's fixed time as
expected, and how many times that it may be (logarithm)."""
FP8_KV_COST = 3.0
"""How much better (log likelihood) an FP8 KV cache must explain the runs than vLLM's default to be believed."""
FP8_KV = "a KV cache of FP8 explains the runs best"
RANKS_SHARE = "the data-parallel ranks are taken to share the stated GPUs, for that explains the runs best"
_GUESS_S = 20e-3
"""Of a step, where nothing tells."""
_KNOTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True)
class Prior:
    """A law of step-times.

    Attributes:
        size: how many numbers.
        step_time: the step-time of values of them, [size].
        efficiency: the efficiencies that step-time is of; None where it is of none.
        server: the server with what it takes for granted where nobody says; None where it takes nothing.
        cost: added to the cost of a fit when priors are compared.
        note: what it assumes, for a profile's notes; empty where nothing.
    """

    size: int
    step_time: Callable[[Floats], StepTime]
    efficiency: Callable[[Floats], Efficiency] | None = None
    server: Server | None = None
    cost: float = 0.0
    note: str = ""


def priors_of(server: Server, runs: Sequence[Run], measured: Iterable[Profile]) -> tuple[Prior, ...]:
    """The priors to try for a server: rooflines where tables know its model and GPU, else what the runs suggest.

    Args:
        server: the server.
        runs: its benchmarks.
        measured: profiles to learn efficiencies from; the set-up's own must not be among them.
    """
    if server.model not in models() or server.gpu not in gpus():
        return (plain_prior(runs),)
    others = tuple(measured)
    precisions = (server.kv_precision,) if server.kv_precision is not None else ("bf16", "fp8")
    # Some tables count all GPUs as of each data-parallel rank.
    splits = {server.tp: ""}
    if server.dp > 1 and server.tp % server.dp == 0:
        splits[server.tp // server.dp] = RANKS_SHARE
    return tuple(
        replace(
            roofline_prior(replace(server, kv_precision=precision, tp=tp), others),
            cost=FP8_KV_COST if precision != precisions[0] else 0.0,
            note="; ".join(part for part in (note, FP8_KV if precision != precisions[0] else "") if part),
        )
        for tp, note in splits.items()
        for precision in precisions
    )


def roofline_prior(server: Server, measured: Iterable[Profile]) -> Prior:
    """Efficiencies of the roofline as profiles of other set-ups let one expect them (`simlab.profiles.pooling`).

    Raises:
        InputError: no table knows the server's model, GPU or precision.
    """
    from simlab.profiles import pooling
    from simlab.profiles.estimates import learned
    from simlab.profiles.roofline import of_work, work

    architecture, card = model(server.model), gpu(server.gpu)
    kv_precision = server.kv_precision or "bf16"
    mean, covariance, _ = learned(architecture, card, server.precision, measured, dp=server.dp)
    need = work(
        architecture,
        card,
        server.tp,
        server.precision,
        dp=server.dp,
        expert_parallel=server.expert_parallel,
        kv_precision=kv_precision,
    )
    centre = pooling.logs(mean)
    root = np.linalg.cholesky(covariance + np.diag((OWN_SHARE * pooling.SD) ** 2))

    def efficiency(values: Floats) -> Efficiency:
        return pooling.efficiency_of(centre + root @ values)

    return Prior(
        size=len(centre),
        step_time=lambda values: of_work(need, efficiency(values)),
        efficiency=efficiency,
        server=replace(server, kv_precision=kv_precision),
    )


def step_prior(steps: StepFit) -> Prior:
    """A step-time fitted to steps, with its covariance; what steps do not tell is left to the runs.

    That is the time of a request outside the scheduler, and what passes between steps where a log does not count it.
    """
    found, terms = steps.step_time, steps.uncertainty.terms
    root = np.array(steps.uncertainty.root()).reshape(len(terms), len(terms))
    n = len(terms)
    fixed_s = found.step_s(0, 1, 0)

    def step_time(values: Floats) -> StepTime:
        logs = root @ values[:n]
        scaled = found.scaled({term: math.exp(log) for term, log in zip(terms, logs, strict=True)})
        return replace(
            scaled,
            base_s=scaled.base_s + GAP_SHARE * fixed_s * math.exp(GAP_SD * values[n]),
            overhead_s=scaled.overhead_s * math.exp(OVERHEAD_SD * values[n + 1]),
        )

    return Prior(size=n + 2, step_time=step_time)


def plain_prior(runs: Sequence[Run]) -> Prior:
    """Terms of the size that the runs suggest, where no table knows model or GPU.

    Time by output token is taken as a step of the batch that Little's law gives, plus the prompts that are computed
    while a request decodes; time to first token, of the run of each prompt length where it is shortest, as a fixed part
    and the prompt's. Non-negative least squares of relative errors gives the centre; the law is wide.
    """
    from scipy.optimize import nnls

    loads = [(run, run.load) for run in runs if run.load is not None]
    rows = np.array([_decode_row(run, load) for run, load in loads])
    shortest: dict[float, float] = {}
    for (run, load), row in zip(loads, rows.tolist(), strict=True):
        # Where no time to the first token was measured, a few steps are a guess.
        ttft = run.measured.get("ttft_s_p50", run.measured.get("ttft_s_mean", 0.0)) or 5.0 * row[4]
        new = max(1.0, load.prompt_tokens - load.shared_tokens)
        shortest[new] = min(ttft, shortest.get(new, math.inf))
    seconds = rows[:, 4]
    base, seq, context, prompt = nnls(rows[:, :4] / seconds[:, None], np.ones(len(rows)))[0]
    prompts, firsts = np.array(list(shortest)), np.array(list(shortest.values()))
    fixed, slope = nnls(np.column_stack([1.0 / firsts, prompts / firsts]), np.ones(len(firsts)))[0]
    least, batch, held = float(seconds.min()), float(rows[:, 1].max()), float(rows[:, 2].max())
    # Nothing is taken as exactly zero: what the sketch above misses can still be found.
    base = max(base, 0.3 * least)
    slope = max(slope, prompt, 0.02 * float((firsts / prompts).min()))
    centre = {
        "base": base,
        "seq": max(seq, 0.02 * least / batch),
        "context": max(context, 0.02 * least / held),
        "prompt": slope,
        "attention": 0.05 * slope / float(prompts.max()),
        "first": 0.2 * base,
        "overhead": max(fixed - base, 0.1 * fixed, 1e-3),
        "spread": 0.05 * base,
        "touched": 1.0 / 16.0,
    }
    deviation = {"base": 0.7, "seq": 1.2, "context": 1.2, "prompt": 0.7, "attention": 1.5, "first": 1.2,
                 "overhead": 1.0, "spread": 1.5, "touched": 1.0}  # fmt: skip
    sizes, widths = np.log(list(centre.values())), np.array([deviation[name] for name in centre])

    def step_time(values: Floats) -> StepTime:
        term = dict(zip(centre, np.exp(sizes + widths * values).tolist(), strict=True))
        # Experts of a mixture: each further sequence touches fewer that no other has touched.
        rate = min(term["touched"], 1.0)
        knots = tuple((t, term["spread"] * -math.expm1(-rate * (t - 1.0))) for t in _KNOTS)
        return StepTime(
            base_s=term["base"],
            per_seq_s=term["seq"],
            per_kv_token_s=term["context"],
            attn_s=term["attention"],
            per_prefill_token_s=term["prompt"],
            linear=(*knots, (_KNOTS[-1] + 1.0, knots[-1][1])),
            prefill_linear=((1.0, term["first"]), (2.0, term["first"])),
            overhead_s=term["overhead"],
        )

    return Prior(
        size=len(centre),
        step_time=step_time,
        note="no table knows its model or GPU: what was expected of its steps is from the runs themselves",
    )


def _decode_row(run: Run, load: Load) -> tuple[float, float, float, float, float]:
    """1, batch, its context, prompt tokens computed beside each step, and the time by output token, s."""
    ranks = run.server.dp * run.server.replicas
    together = float(load.concurrency or min(load.requests or 1, (run.server.max_num_seqs or 256) * ranks))
    waiting = run.measured.get("ttft_s_mean", run.measured.get("ttft_s_p50", 0.0))
    tpot = run.measured.get("itl_s_mean", run.measured.get("tpot_s_mean", 0.0))
    if tpot <= 0.0 and run.measured.get("e2e_s_mean", 0.0) > waiting:
        tpot = (run.measured["e2e_s_mean"] - waiting) / max(load.output_tokens, 1.0)
    if tpot <= 0.0 and run.measured.get("output_tokens_per_s", 0.0) > 0:
        tpot = together / run.measured["output_tokens_per_s"]
    if tpot <= 0.0:
        tpot = _GUESS_S
    answer = tpot * max(load.output_tokens, 1.0)
    if load.concurrency is not None:
        batch = load.concurrency * answer / (answer + waiting)
    else:
        batch = min(load.rate_rps * answer, together)
    batch = max(1.0, batch / ranks)
    new = max(1.0, load.prompt_tokens - load.shared_tokens)
    beside = batch * new / max(load.output_tokens, 1.0)
    return 1.0, batch, batch * (load.prompt_tokens + load.output_tokens / 2), beside, tpot
