"""Pre-flight checks of one self-hosted pool: names, memory, context, capacity, and what its GPUs can do at best."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simlab.errors import InputError
from simlab.lint.capacity import Mix, alone_s, mix, replica_rps
from simlab.lint.finding import Finding

if TYPE_CHECKING:
    from simlab.lint.offered import ClassLoad, Offered
    from simlab.profiles import Model, Profile
    from simlab.scenario import Pool, Scenario

_BUSY = 0.85
"""Utilisation above which queues grow long although capacity suffices."""


@dataclass(frozen=True)
class _Replica:
    model: Model | None
    profile: Profile
    kv_tokens: float

    def context(self, pool: Pool) -> int:
        own = int(self.kv_tokens) if self.model is None else self.model.max_context
        return pool.max_model_len or own


def check_pool(scenario: Scenario, name: str, load: Offered) -> Iterator[Finding]:
    """Yields what is wrong or doubtful about one pool."""
    pool, path = scenario.pools[name], f"pools.{name}"
    replica = yield from _replica(scenario, pool, path)
    if replica is None:
        return
    served = load.on(name)
    yield from _context(pool, path, replica, served)
    if not load.routed(name):
        yield Finding("note", path, "no route leads here, yet its GPU hours are paid")
    yield from _capacity(scenario, name, replica, served)
    if served:
        yield from _reach(pool, path, replica, served)
    for cls, share in served:
        yield from _slo(scenario, pool, path, replica, cls, share)


def _replica(scenario: Scenario, pool: Pool, path: str) -> Generator[Finding, None, _Replica | None]:
    """Looks its names up; returns None when one of them is unknown, unless a profile of its own says what it is."""
    from simlab import profiles
    from simlab.assemble import pool_kv_blocks, pool_profile

    found: list[Finding] = []
    model = None
    try:
        model = profiles.model(pool.model)
    except InputError as error:
        found.append(Finding("error", f"{path}.model", str(error)))
    try:
        profiles.gpu(pool.gpu)
    except InputError as error:
        found.append(Finding("error", f"{path}.gpu", str(error)))
    if found and pool.profile is None:
        yield from found
        return None
    try:
        chosen = pool_profile(pool, scenario.base_dir)
    except InputError as error:
        yield Finding("error", f"{path}.{'profile' if pool.profile else 'precision'}", str(error))
        return None
    if chosen.kind != "measured":
        yield Finding(
            "note",
            path,
            f"no measured profile of {pool.model} on {pool.tp} x {pool.gpu}: its step times are an estimate",
        )
    try:
        blocks = pool_kv_blocks(pool, chosen)
    except InputError as error:
        yield Finding("error", f"{path}.{'kv_blocks' if found else 'tp'}", str(error))
        return None
    return _Replica(model, chosen, float(blocks * pool.block_size))


def _context(
    pool: Pool, path: str, replica: _Replica, served: list[tuple[ClassLoad, float]]
) -> Iterator[Finding]:
    if replica.model is not None and pool.max_model_len is not None and pool.max_model_len > replica.model.max_context:
        yield Finding(
            "error",
            f"{path}.max_model_len",
            f"read {pool.max_model_len}, but {replica.model.name} has a context of {replica.model.max_context} tokens",
        )
    context = replica.context(pool)
    if context > replica.kv_tokens:
        yield Finding(
            "warning",
            f"{path}.max_model_len",
            f"one request of {context} tokens does not fit the KV cache ({replica.kv_tokens:.0f} tokens): vLLM would "
            f"not start; set max_model_len to at most {replica.kv_tokens:.0f}",
        )
    for cls, _ in served:
        if cls.longest_tokens is not None and cls.longest_tokens > context:
            yield Finding(
                "warning",
                f"workload.{cls.name}.lengths",
                f"some requests have {cls.longest_tokens:.0f} tokens and more, above the {context} of {path}: they are "
                "refused; cut the lengths with max, or raise max_model_len",
            )


def _capacity(
    scenario: Scenario, name: str, replica: _Replica, served: list[tuple[ClassLoad, float]]
) -> Iterator[Finding]:
    pool = scenario.pools[name]
    open_classes = [(cls.peak_rps * share, _mean_request(pool, cls)) for cls, share in served if not cls.closed]
    peak = sum(rate for rate, _ in open_classes)
    if peak == 0:
        return
    capacity = replica_rps(
        replica.profile.step_time,
        mix(open_classes),
        max_num_seqs=pool.max_num_seqs,
        token_budget=pool.max_num_batched_tokens,
        kv_tokens=replica.kv_tokens,
    )
    needed, path = peak / capacity, f"pools.{name}.replicas"
    added = sum(order.replicas for order in scenario.operations if order.pool == name and order.action == "add")
    available = pool.replicas + added
    have = f"{available} {'is' if available == 1 else 'are'} configured"
    text = f"the peak of {peak:.3g} requests/s needs at least {needed:.1f} replicas, {have}"
    limit = replica.profile.validity.max_decode_seqs
    if limit is not None and needed <= available and limit < pool.max_num_seqs:
        measured = replica_rps(
            replica.profile.step_time,
            mix(open_classes),
            max_num_seqs=limit,
            token_budget=pool.max_num_batched_tokens,
            kv_tokens=replica.kv_tokens,
        )
        if peak > measured * available:
            yield Finding(
                "warning",
                f"pools.{name}",
                f"the peak of {peak:.3g} requests/s takes batches above the {limit} sequences that the profile "
                f"{replica.profile.name} was measured on: its step times are extrapolated, and the result will say how "
                "unsure they are",
            )
    if needed > available:
        yield Finding("warning", path, f"{text}; queues grow without end at the peak: raise replicas or route less")
    elif needed > _BUSY * available:
        yield Finding("warning", path, f"{text}; that leaves little room for bursts: expect long queues at the peak")


def _reach(
    pool: Pool, path: str, replica: _Replica, served: list[tuple[ClassLoad, float]]
) -> Iterator[Finding]:
    """Whether the plan goes, or may go, beyond what its profile was measured on."""
    from simlab.profiles import may_go_beyond

    validity = replica.profile.validity
    longest = max((cls.prompt_tokens + cls.output_tokens for cls, _ in served), default=0.0)
    if validity.max_context_tokens is not None and longest > validity.max_context_tokens:
        yield Finding(
            "warning",
            path,
            f"mean requests of {longest:.0f} tokens lie beyond the {validity.max_context_tokens:,} tokens of context "
            f"that the profile {replica.profile.name} was measured on: its step times are extrapolated, and the result "
            "will say how unsure they are",
        )
        return
    most = {
        "max_decode_seqs": float(pool.max_num_seqs),
        "max_step_tokens": float(pool.max_num_batched_tokens),
        "max_context_tokens": max((cls.longest_tokens or 0.0 for cls, _ in served), default=0.0),
    }
    may = may_go_beyond(validity, most)
    if may:
        yield Finding(
            "note",
            path,
            f"may go beyond what the profile {replica.profile.name} was measured on: {'; '.join(may)}; the result "
            "will say whether it did, and how unsure that makes it",
        )


def _mean_request(pool: Pool, cls: ClassLoad) -> Mix:
    new = cls.new_tokens if pool.prefix_caching else cls.prompt_tokens
    return Mix(cls.prompt_tokens, new, cls.output_tokens)


def _slo(
    scenario: Scenario, pool: Pool, path: str, replica: _Replica, cls: ClassLoad, share: float
) -> Iterator[Finding]:
    slo = scenario.slo_of(cls.name)
    if slo is None or share <= 1 - slo.target:
        return
    request = _mean_request(pool, cls)
    first, further = alone_s(replica.profile.step_time, request, token_budget=pool.max_num_batched_tokens)
    where = f"workload.{cls.name}.slo" if scenario.workload[cls.name].slo is not None else "slo"
    for metric, limit, least, what in (
        ("ttft", slo.ttft, first, f"the prefill of a mean prompt ({request.new_tokens:.0f} tokens to compute)"),
        ("itl", slo.itl, further, "one decode step of a single request"),
        ("e2e", slo.e2e, first + (cls.output_tokens - 1) * further, f"{cls.output_tokens:.0f} tokens, alone,"),
    ):
        if limit is not None and limit < least:
            yield Finding(
                "warning",
                f"{where}.{metric}",
                f"{limit:.3g} s cannot be met on {path}: {what} takes {least:.3g} s even when it is empty; relax it, "
                "or use a faster GPU, a larger tp or a smaller model",
            )
