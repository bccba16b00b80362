"""Efficiencies of a set-up nobody measured, from all that were: one regression with partial pooling.

The logarithm of each efficiency is what kernels of the GPU's generation reach (`kernels`) plus what set-ups have in
common plus what is their own: normal laws, whose shares of the variance `SHARED` says. A measured profile tells of its
efficiencies through its step-time at states that its runs covered (`evidence`), linearised where they fit it best.
Everything then is normal and the law of the new set-up's efficiencies, given all profiles, is closed form
(Gaussian process regression; Rasmussen and Williams 2006, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simlab.profiles.gpus import Gpu, gpus
from simlab.profiles.kernels import shares
from simlab.profiles.models import Model, models
from simlab.profiles.record import Profile
from simlab.profiles.roofline import Efficiency, Work, of_work, work
from simlab.profiles.step_time import StepTime

Floats = NDArray[np.float64]

# Standard deviation of the logarithm of each efficiency over all set-ups, around `expected`.
SPREAD = {
    "bandwidth": 0.12,
    "flops": 0.15,
    "kv_bandwidth": 0.20,
    "attention_flops": 0.25,
    "routing_spread": 0.25,
    "host_s": 0.50,
    "eager_s": 0.70,
    "per_seq_s": 0.80,
    "overhead_s": 0.50,
    "narrow_flops": 0.25,
    "expert_bandwidth": 0.25,
    "expert_flops": 0.40,
    "layer_s": 0.35,
    "traffic": 0.35,
    "link": 0.20,
}
NAMES = tuple(SPREAD)
SD = np.array(list(SPREAD.values()))
# Variance that two set-ups have in common, in units of the above, by what is alike, and what is each one's own; chosen
# by leaving out GPUs and models in turn. `form` is precision among dense models or among mixtures of experts.
SHARED = {"all": 0.25, "experts": 0.60, "form": 0.30, "ranks": 0.30, "generation": 0.02, "model": 0.04}
OWN = 0.43
# A server whose layers take this many deviations longer than expected launched kernels one by one, for want of CUDA
# graphs: nothing for other set-ups to learn from.
LAUNCHED = 2.2
# How far a roofline may be from a measured step-time where it fits best: relative standard deviation of one state.
STATE_SD, OVERHEAD_SD = 0.12, 0.15
# States further off than this many deviations count less (Huber), so that one odd profile cannot bend all estimates.
FAR = 3.0
DECODES = (1, 4, 16, 64, 256, 1024)
PROMPTS = (1024, 4096, 8192)
TYPICAL_CONTEXT = 1500
ITERATIONS = 5
STEP = 0.02


@dataclass(frozen=True)
class Kind:
    """What a set-up is, as far as others can be like it."""

    model: str
    generation: str
    form: tuple[bool, str]
    experts: bool
    ranks: bool

    def alike(self, other: Kind) -> float:
        """Variance in common."""
        same = (share for name, share in SHARED.items() if name != "all" and vars(self)[name] == vars(other)[name])
        return SHARED["all"] + sum(same)


@dataclass(frozen=True)
class Evidence:
    """What one profile tells of its efficiencies: a normal likelihood of their deviations from `expected`.

    Attributes:
        profile: its name.
        kind: what it is of.
        precision: inverse covariance of the likelihood, [q, q].
        weighted: that times its mean, [q].
    """

    profile: str
    kind: Kind
    precision: Floats
    weighted: Floats


def kind(model: Model, gpu: Gpu, precision: str, ranks: int) -> Kind:
    """The kind of a set-up."""
    return Kind(model.name, gpu.architecture, (bool(model.experts), precision), bool(model.experts), ranks > 1)


def expected(model: Model, gpu: Gpu, precision: str) -> Efficiency:
    """Efficiencies before any server was measured: kernels of the generation, and what layers take.

    Latent attention and experts bring more and smaller kernels to a layer; unpacking INT4 costs bandwidth.
    """
    kernel = shares(gpu)
    layer_s, eager_s, traffic = (60e-6, 0.75e-3, 5.6) if model.experts else (42e-6, 0.5e-3, 4.0)
    return Efficiency(
        bandwidth=kernel.bandwidth,
        flops=kernel.flops,
        kv_bandwidth=kernel.kv_bandwidth,
        attention_flops=kernel.attention_flops,
        link=kernel.link,
        expert_bandwidth=0.8 * (0.8 if precision == "int4" else 1.0),
        layer_s=layer_s * (1.2 if model.mla else 1.0),
        eager_s=eager_s * model.layers,
        traffic=traffic,
    )


def logs(efficiency: Efficiency) -> Floats:
    """Logarithms of the efficiencies, [q] in the order of `NAMES`."""
    values = efficiency.as_dict()
    return np.log([values[name] for name in NAMES])


def efficiency_of(values: Floats) -> Efficiency:
    """Efficiencies from their logarithms."""
    return Efficiency(**{name: math.exp(value) for name, value in zip(NAMES, values, strict=True)})


@dataclass(frozen=True)
class States:
    """States of a server's steps: decoding sequences, their context, prompt tokens, their pairs, [n] each."""

    decodes: Floats
    context: Floats
    prompt: Floats
    pairs: Floats


def states(max_decode_seqs: int | None, max_context_tokens: int | None, max_step_tokens: int | None) -> States:
    """States that runs covered: decodes at several batches and contexts, prompts alone and beside decodes."""
    batch = max_decode_seqs or 64
    longest = max_context_tokens or 4096
    batches = [size for size in DECODES if size <= batch] or [1]
    batches += [batch] if batch > 1.5 * batches[-1] else []
    rows = [
        (size, size * context, 0, 0.0)
        for size in batches
        for context in sorted({min(TYPICAL_CONTEXT, longest), longest})
    ]
    beside = min(batch, 32)
    for prompt in PROMPTS:
        if prompt <= min(1.2 * longest, max_step_tokens or PROMPTS[-1]):
            pairs = prompt * (prompt + 1) / 2
            rows += [(0, 0, prompt, pairs), (beside, beside * TYPICAL_CONTEXT, prompt, pairs)]
    return States(*np.array(rows, dtype=np.float64).T)


def log_seconds(step_time: StepTime, at: States) -> Floats:
    """Logarithms of a step-time at states and of its overhead, [n + 1]."""
    seconds = [
        step_time.step_s(prompt, decodes, context, prompt, pairs)
        for decodes, context, prompt, pairs in zip(at.decodes, at.context, at.prompt, at.pairs, strict=True)
    ]
    return np.log([*seconds, max(step_time.overhead_s, 1e-4)])


def _modelled(need: Work, values: Floats, at: States) -> Floats:
    """`log_seconds` of the roofline at logarithms of efficiencies, without its tables, which are slow to make."""
    share = efficiency_of(values)
    seconds = [
        share.host_s
        + share.per_seq_s * decodes
        + need.kv_s / share.kv_bandwidth * context
        + need.attention_s / share.attention_flops * pairs
        + (need.prompt_s if prompt else need.graph_s)(share, prompt + decodes)
        for decodes, context, prompt, pairs in zip(
            at.decodes.tolist(), at.context.tolist(), at.prompt.tolist(), at.pairs.tolist(), strict=True
        )
    ]
    return np.log([*seconds, share.overhead_s])


def sensitivity(need: Work, values: Floats, at: States) -> tuple[Floats, Floats]:
    """`log_seconds` of the roofline, [n + 1], and its derivative by the logarithms of efficiencies, [n + 1, q]."""
    here = _modelled(need, values, at)
    columns = []
    for i in range(len(values)):
        moved = values.copy()
        moved[i] += STEP
        columns.append((_modelled(need, moved, at) - here) / STEP)
    return here, np.stack(columns, axis=1)


def evidence(profile: Profile) -> Evidence | None:
    """What a profile tells; None where the tables do not know its model, GPU or precision, or where it ran eagerly.

    Its step-time is asked, not its efficiency record: two records may be the same step-time, and a profile fitted to
    steps has none.
    """
    if profile.model not in models() or profile.gpu not in gpus():
        return None
    covered = profile.validity
    return _evidence(
        profile.name,
        profile.model,
        profile.gpu,
        profile.tp,
        profile.precision,
        profile.dp,
        profile.expert_parallel,
        profile.kv_precision,
        profile.step_time,
        (covered.max_decode_seqs, covered.max_context_tokens, covered.max_step_tokens),
    )


@lru_cache(maxsize=512)
def _evidence(
    name: str,
    model: str,
    gpu: str,
    tp: int,
    precision: str,
    dp: int,
    expert_parallel: bool,
    kv_precision: str,
    step_time: StepTime,
    covered: tuple[int | None, int | None, int | None],
) -> Evidence | None:
    from simlab.errors import InputError

    architecture, card = models()[model], gpus()[gpu]
    try:
        need = work(
            architecture, card, tp, precision, dp=dp, expert_parallel=expert_parallel, kv_precision=kv_precision
        )
    except InputError:
        return None
    at = states(*covered)
    measured = log_seconds(step_time, at)
    prior = logs(expected(architecture, card, precision))
    sd = np.full(len(measured), STATE_SD)
    sd[-1] = OVERHEAD_SD
    values = prior.copy()
    # Gauss-Newton; the prior only keeps it from running off along what the states do not tell.
    for iteration in range(ITERATIONS):
        here, slope = sensitivity(need, values, at)
        miss = (measured - here) / sd
        weight = np.minimum(1.0, FAR / np.maximum(np.abs(miss), 1e-9)) if iteration else np.ones(len(miss))
        scaled = slope * (np.sqrt(weight) / sd)[:, None]
        target = np.sqrt(weight) * miss + scaled @ values
        inverse, vector = scaled.T @ scaled, scaled.T @ target
        if iteration < ITERATIONS - 1:
            best = np.linalg.solve(inverse + np.diag(1.0 / SD**2), vector + prior / SD**2)
            values = values + np.clip(best - values, -0.7, 0.7)
    off = (values - prior) / SD
    if off[NAMES.index("layer_s")] > LAUNCHED:
        return None
    return Evidence(name, kind(architecture, card, precision, dp), inverse, vector - inverse @ prior)


def learned(target: Kind, prior: Floats, known: Sequence[Evidence]) -> tuple[Floats, Floats]:
    """Law of a new set-up's efficiencies given what profiles tell.

    Args:
        target: what it is.
        prior: `logs` of what is expected of it.
        known: the evidence.

    Returns:
        Mean of the logarithms, [q], and their covariance, [q, q].
    """
    own = np.diag(SD**2)
    total = sum(SHARED.values()) + OWN
    if not known:
        return prior, own * total
    n, q = len(known), len(NAMES)
    alike = np.array([[one.kind.alike(other.kind) for other in known] for one in known]) + OWN * np.eye(n)
    near = np.array([target.alike(one.kind) for one in known])
    covariance = np.kron(alike, own)
    cross = np.kron(near[None, :], own)
    inverse = np.zeros((n * q, n * q))
    vector = np.zeros(n * q)
    for i, one in enumerate(known):
        block = slice(i * q, (i + 1) * q)
        inverse[block, block] = one.precision
        vector[block] = one.weighted
    solved = np.linalg.solve(np.eye(n * q) + inverse @ covariance, np.column_stack([vector, inverse @ cross.T]))
    left = own * total - cross @ solved[:, 1:]
    return prior + cross @ solved[:, 0], (left + left.T) / 2.0


def step_time_of(need: Work, values: Floats) -> StepTime:
    """The roofline at logarithms of efficiencies."""
    return of_work(need, efficiency_of(values))
