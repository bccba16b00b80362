"""The arrays of a world, filled from its specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution
from simlab.draws.distribution import pack
from simlab.engine import arrays as a
from simlab.engine.build_limits import contexts, limit_arrays, set_caps
from simlab.engine.build_loops import agent_of, log_room, loop_arrays
from simlab.engine.build_offline import set_offline
from simlab.engine.meters import COARSE, HIST_BUCKETS
from simlab.engine.spec import ApiSpec, PoolSpec, WorldSpec
from simlab.engine.world import World

FIRST_ENTRIES = 1024
"""Entries of stores there is room for at first, a power of two."""

FIRST_SEGMENTS = 4096
"""Prompt segments there is room for at first."""

_FIRST_SLOTS = 1024
_SYSTEM_ID = 1 << 40


def alias_table(weights: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """(threshold, alias) pairs of Vose's alias method (1991) for drawing index i with probability ~ weights[i].

    Vose's loop gives what is above the mean to what is below it, one after the other. Who gives to whom follows from
    two running sums, of what the light ones lack and of what the heavy ones have: a large table takes no time so.
    """
    scaled = np.asarray(weights, np.float64) * len(weights) / math.fsum(weights)
    light, heavy = np.flatnonzero(scaled < 1.0)[::-1], np.flatnonzero(scaled >= 1.0)[::-1]
    lack, excess = np.cumsum(1.0 - scaled[light]), np.cumsum(scaled[heavy] - 1.0)
    pairs = np.column_stack((np.ones(len(scaled)), np.arange(len(scaled), dtype=np.float64)))
    # A light one gets from the first heavy one that has something left; rounding may leave the last ones alone.
    giver = np.searchsorted(excess, lack - (1.0 - scaled[light]), side="left")
    given = giver < len(heavy)
    pairs[light[given], 0] = scaled[light[given]]
    pairs[light[given], 1] = heavy[giver[given]]
    # A heavy one that gives more than it has is light in turn, and gets from the next.
    taker = np.searchsorted(lack, excess[:-1], side="right")
    used_up = np.flatnonzero(taker < len(light))
    pairs[heavy[used_up], 0] = np.clip(1.0 - (lack[taker[used_up]] - excess[used_up]), 0.0, 1.0)
    pairs[heavy[used_up], 1] = heavy[used_up + 1]
    table: list[float] = pairs.ravel().tolist()
    return table


class Packer:
    """Collects distributions and tables and remembers where each landed."""

    def __init__(self) -> None:
        self.distributions: list[Distribution] = []
        self.extra: list[float] = []

    def distribution(self, d: Distribution | None) -> int:
        """Where the distribution will be; NONE for none."""
        if d is None:
            return a.NONE
        self.distributions.append(d)
        return len(self.distributions) - 1

    def table(self, numbers: Sequence[float]) -> int:
        """Where the numbers will begin among the tables."""
        at = len(self.extra)
        self.extra.extend(numbers)
        return at


def cumulative(weights: Sequence[float]) -> NDArray[np.float64]:
    """Weights summed up and scaled to end at 1, for drawing by one uniform number."""
    shares = np.cumsum(np.asarray(weights, np.float64))
    return np.asarray(shares / shares[-1], np.float64)


def log_rows(spec: WorldSpec, slots: int) -> int:
    """Rows of a log for so many slots: twice what one event can write."""
    return 2 * log_room(spec) * slots


def build(spec: WorldSpec) -> World:
    """The arrays of a world before anything has happened in it."""
    packer = Packer()
    classes, tenants = _classes(spec, packer)
    backends, reps = _backends(spec, packer)
    policies, rule_numbers = _policies(spec, packer)
    rules, choices = _rules(spec, packer)
    stores = _stores(spec, packer, backends)
    budgets = contexts(spec, packer)
    loops = loop_arrays(spec, packer, policies)
    packed, tables = pack(packer.distributions)
    # The packer's own tables go in front, so the distributions' move up.
    packed["offset"] += len(packer.extra)
    dists = a.records(len(packed), packed.dtype)
    dists[:] = packed
    pools = [p for p in spec.backends if isinstance(p, PoolSpec)]
    joint = [cls.joint for cls in spec.classes if cls.joint is not None]
    n_classes, n_backends = len(spec.classes), len(spec.backends)
    n_windows = max(1, math.ceil(spec.horizon_s / spec.window_s - 1e-9))
    state = a.records(1, a.state_dtype)
    for name in ("free_slot", "timeout_head", "timeout_tail", "free_seg", "free_ref", "arrival_cls", "need_cls",
                 "free_entry"):
        state[name] = a.NONE
    state["seed"] = spec.seed
    state["warmup_s"], state["window_s"] = spec.warmup_s, spec.window_s
    state["arrival_t"] = math.inf
    state["log_room"] = log_room(spec)
    if len(stores) > 1:
        # A step of a replica can end as many requests as it runs, and each answer is kept in every layer.
        state["entry_room"] = 8 + a.LAYERS * max((p.max_num_seqs for p in pools), default=0)
    state["window_end"] = spec.window_s if n_windows > 1 else math.inf
    gateway = a.records(1, a.gateway_dtype)
    for name in a.gateway_dtype.names or ():
        gateway[name] = getattr(spec.gateway, name, 0)
    rules_need_clones = spec.gateway.hedge_s < math.inf or not spec.gateway.abort
    impatient = any(policy is not None and policy.resends for policy in spec.policies)
    gateway["clones"] = rules_need_clones or impatient
    gateway["breaker_on"] = spec.gateway.breaker_consecutive > 0 or spec.gateway.breaker_ratio > 0
    gateway["retry_credit"] = spec.gateway.retry_burst
    guards = limit_arrays(spec, gateway, policies, backends)
    set_caps(spec, policies)
    set_offline(spec, classes, policies, backends)
    classes["policed"][: len(spec.policies)] = [stated is not None for stated in spec.policies]
    columns = reasons_used(spec)
    n_reasons = int(columns.max()) + 1
    state["reasons"], state["longest_chain"] = n_reasons, 2
    cells = _cells(classes, tenants, n_backends, columns)
    blocks, buckets, refs = _kv_arrays(spec, reps)
    return World(
        state=state,
        gateway=gateway,
        classes=classes,
        policies=policies,
        rules=rules,
        choices=choices,
        rule_numbers=rule_numbers,
        reason_cols=columns,
        backends=backends,
        routes=np.array([cumulative(cls.route) for cls in spec.classes]),
        dists=dists,
        tables=np.concatenate([np.array(packer.extra, np.float64), tables]),
        joint=np.concatenate(joint).astype(np.int64) if joint else np.zeros((1, 2), np.int64),
        reps=reps,
        rep_heap=np.zeros(len(reps), np.int64),
        finish=a.records((len(reps), max((p.max_num_seqs for p in pools), default=1)), a.finish_dtype),
        phases=np.zeros((len(reps), max((p.block_size for p in pools), default=1)), np.int64),
        decode_cls=np.zeros((len(reps), n_classes), np.int64),
        slots=a.records(_FIRST_SLOTS, a.slot_dtype),
        tickets=a.records(_FIRST_SLOTS if classes["policed"].any() else 1, a.ticket_dtype),
        timers=a.records(2 * _FIRST_SLOTS + 16, a.timer_dtype),
        segs=a.records(FIRST_SEGMENTS, a.segment_dtype),
        refs=refs,
        blocks=blocks,
        buckets=buckets,
        found=np.zeros(max((p.kv_blocks for p in pools), default=1), np.int64),
        stores=stores,
        entries=a.records(FIRST_ENTRIES if len(stores) > 1 else 1, a.entry_dtype),
        entry_heads=np.full(FIRST_ENTRIES if len(stores) > 1 else 1, a.NONE, np.int64),
        savings=a.records(len(tenants) * a.LAYERS if spec.caches else 1, a.saving_dtype),
        contexts=budgets,
        **guards,
        **loops,
        feed_t=np.zeros((n_classes, 1)),
        feed_len=np.zeros((n_classes, 1, 2), np.int64),
        feed_ptr=np.zeros((n_classes, 1), np.int64),
        feed_seg=np.zeros((n_classes, 1, 2), np.int64),
        feed_query=np.zeros((n_classes, 1), np.int64),
        cells=cells,
        tasks=a.records((2, n_classes), a.task_dtype),
        tenants=tenants,
        hist=np.zeros((4, n_classes, n_backends, HIST_BUCKETS), np.int64),
        hist_sum=np.zeros((4, n_classes, n_backends)),
        hist_count=np.zeros((4, n_classes, n_backends), np.int64),
        windows=a.records((n_windows, n_backends), a.window_dtype),
        window_hist=np.zeros((n_windows, 2, HIST_BUCKETS // COARSE), np.int64),
        log=a.records(max(1, spec.log_rows, log_rows(spec, _FIRST_SLOTS) if spec.log_rows else 1), a.log_dtype),
    )


def _classes(spec: WorldSpec, packer: Packer) -> tuple[NDArray[Any], NDArray[Any]]:
    records = a.records(len(spec.classes), a.class_dtype)
    tenants = a.records(sum(len(cls.tenant_weights) for cls in spec.classes), a.tenant_dtype)
    tenant_base = joint_at = cell_base = 0
    n_reasons = int(reasons_used(spec).max()) + 1
    for c, cls in enumerate(spec.classes):
        record = records[c]
        for name in ("users", "max_context", "system_tokens", "document_tokens"):
            record[name] = getattr(cls, name)
        for name in ("think", "prompt", "output", "turns"):
            record[name] = packer.distribution(getattr(cls, name))
        for name in ("slo_ttft_s", "slo_itl_s", "slo_e2e_s"):
            record[name] = getattr(cls, name)
        record["grows"] = cls.turns is not None or agent_of(spec, c) is not None
        record["prio"] = cls.priority
        record["stream"] = c + 1
        record["prompt_version"], record["model_version"], record["corpus_version"] = cls.versions
        record["content"] = c if cls.content is None else cls.content
        record["system_id"] = _SYSTEM_ID + c
        record["segmented"] = cls.segmented or bool(
            cls.system_tokens or len(cls.document_weights) or record["grows"]
        )
        if cls.joint is not None:
            record["joint_at"], record["joint_n"] = joint_at, len(cls.joint)
            joint_at += len(cls.joint)
        n = len(cls.tenant_weights)
        record["tenants"] = n
        record["tenant_alias_at"] = packer.table(alias_table(cls.tenant_weights))
        record["documents"] = len(cls.document_weights)
        if len(cls.document_weights):
            record["document_alias_at"] = packer.table(alias_table(cls.document_weights))
        record["tenant_base"] = tenant_base
        record["groups"], record["versions"] = groups_of(spec, c)
        record["cell_base"] = cell_base
        cell_base += n * int(record["groups"]) * len(spec.backends) * n_reasons
        tenants["cls"][tenant_base : tenant_base + n] = c
        tenants["tenant"][tenant_base : tenant_base + n] = np.arange(n)
        tenant_base += n
    return records, tenants


def reasons_used(spec: WorldSpec) -> NDArray[np.int64]:
    """The ledger column of each reason of an attempt; those that cannot occur share the first one."""
    columns = np.zeros(a.REASONS, np.int64)
    used = [a.FIRST]
    if spec.gateway.max_attempts > 1:
        used.append(a.RETRY)
    if spec.gateway.hedge_s < math.inf:
        used.append(a.HEDGE)
    if any(backend.fallback >= 0 for backend in spec.backends):
        used.append(a.FALLBACK)
    if any(policy is not None and policy.resends for policy in spec.policies):
        used.append(a.DUPLICATE)
    if any(rule.mode == a.BY_CASCADE for rule in spec.rules):
        used.append(a.ESCALATION)
    judged = any(choice.verifier >= 0 or choice.samples > 1 for rule in spec.rules for choice in rule.choices)
    summaries = any(policy.context.helper >= 0 for policy in spec.policies if policy and policy.context)
    judged = judged or summaries or any(agent_of(spec, c) for c in range(len(spec.classes)))
    if judged or max([rule.helper for rule in spec.rules] + [cache.helper for cache in spec.caches], default=-1) >= 0:
        used.append(a.HELPER)
    columns[used] = np.arange(len(used))
    return columns


def groups_of(spec: WorldSpec, c: int) -> tuple[int, int]:
    """How many groups of tasks a class's ledger keeps apart (tiers times prompt versions), and how many versions."""
    policy = spec.policies[c] if c < len(spec.policies) else None
    return (1, 1) if policy is None else (len(policy.tier_weights) * policy.prompt_versions, policy.prompt_versions)


def _cells(classes: NDArray[Any], tenants: NDArray[Any], n_backends: int, columns: NDArray[np.int64]) -> NDArray[Any]:
    """The ledger: a cell for each tenant, group of its class, backend and reason, in this order."""
    groups = classes["groups"][tenants["cls"]]
    reasons = [int(np.flatnonzero(columns == i)[0]) for i in range(int(columns.max()) + 1)]
    each = n_backends * len(reasons)
    cells = a.records(int(groups.sum()) * each, a.cell_dtype)
    for name in ("cls", "tenant"):
        cells[name] = np.repeat(tenants[name], groups * each)
    cells["group"] = np.repeat(np.concatenate([np.arange(n) for n in groups]), each)
    cells["backend"] = np.tile(np.repeat(np.arange(n_backends), len(reasons)), len(cells) // each)
    cells["reason"] = np.tile(reasons, len(cells) // len(reasons))
    return cells


def _policies(spec: WorldSpec, packer: Packer) -> tuple[NDArray[Any], NDArray[np.int64]]:
    records = a.records(len(spec.classes), a.policy_dtype)
    rule_numbers: list[int] = []
    for record, policy in zip(records, spec.policies, strict=False):
        if policy is None:
            continue
        record["caches"] = sum(1 << layer for layer in set(policy.caches))
        record["tenant_users"] = policy.tenant_users
        record["queries"] = len(policy.query_weights)
        if len(policy.query_weights):
            record["query_alias_at"] = packer.table(alias_table(policy.query_weights))
        record["difficulty"] = packer.distribution(policy.difficulty)
        record["quality_at"] = a.NONE
        if len(policy.quality):
            record["quality_at"] = packer.table([x for tier in policy.quality for row in tier for x in row])
        record["tiers"], record["mean_output"] = len(policy.tier_weights), policy.mean_output
        record["patience_s"], record["resends"] = policy.patience_s, policy.resends
        record["tier_alias_at"] = packer.table(alias_table(policy.tier_weights))
        record["rule_at"] = a.NONE
        if len(policy.rules):
            record["rule_at"] = len(rule_numbers)
            rule_numbers += [rule for tenant in policy.rules for rule in tenant]
    return records, np.array(rule_numbers or [a.NONE], np.int64)


def _rules(spec: WorldSpec, packer: Packer) -> tuple[NDArray[Any], NDArray[Any]]:
    rules = a.records(max(1, len(spec.rules)), a.rule_dtype)
    choices = a.records(max(1, sum(len(rule.choices) for rule in spec.rules)), a.choice_dtype)
    first = 0
    for record, rule in zip(rules, spec.rules, strict=False):
        for name in a.rule_dtype.names or ():
            if hasattr(rule, name):
                record[name] = getattr(rule, name)
        record["first"], record["n"] = first, len(rule.choices)
        if len(rule.guesses):
            record["guess_at"] = packer.table([float(x) for row in rule.guesses for x in cumulative(row)])
        if len(rule.weak_chance):
            record["curve_at"] = packer.table(rule.weak_chance)
        shares = cumulative([choice.weight for choice in rule.choices])
        for i, choice in enumerate(rule.choices):
            for name in ("backend", "context", "samples", "verifier", "accept_right", "accept_wrong"):
                choices[first + i][name] = getattr(choice, name)
            choices[first + i]["cumulative"] = shares[i]
        first += len(rule.choices)
    return rules, choices


def _backends(spec: WorldSpec, packer: Packer) -> tuple[NDArray[Any], NDArray[Any]]:
    records = a.records(len(spec.backends), a.backend_dtype)
    n_reps = 0
    for b, backend in enumerate(spec.backends):
        record = records[b]
        for name in ("rep_head", "queue_head", "queue_tail", "ttft", "itl", "prompt_store"):
            record[name] = a.NONE
        record["fallback"], record["slowdown"] = backend.fallback, 1.0
        record["model"] = backend.model if backend.model >= 0 else len(spec.backends) + b
        if isinstance(backend, ApiSpec):
            record["kind"] = a.API
            record["ttft"] = packer.distribution(backend.ttft)
            record["itl"] = packer.distribution(backend.itl)
            record["ttft_per_token_s"] = backend.ttft_per_token_s
            record["concurrency"], record["reject_full"] = backend.concurrency, backend.reject_full
            record["rpm"], record["rpm_level"] = backend.rpm, max(backend.rpm, 1.0)
            record["tpm"] = record["tpm_level"] = backend.tpm
            for name in ("error_probability", "cached_ratio", "long_tokens", "usd_call", "break_probability", "canned"):
                record[name] = getattr(backend, name)
            for prefix, price in (("usd_", backend.price), ("usd_long_", backend.long_price)):
                for name in ("prompt", "cached", "written", "output"):
                    record[prefix + name] = getattr(price, name)
            continue
        n_reps += max(backend.max_replicas, backend.replicas)
        step = backend.step
        record["kind"] = a.POOL
        for name in ("dispatch", "priority", "max_num_seqs", "block_size", "kv_blocks", "max_model_len", "overhead_s",
                     "work_prefill_s", "work_decode_s", "usd_work_s", "known_seqs", "known_tokens",
                     "known_context"):
            record[name] = getattr(backend, name)
        for name in ("base_s", "prefill_token_s", "decode_seq_s", "decode_context_s", "prefill_context_s",
                     "attention_s", "prefill_seq_s"):
            record[name] = getattr(step, name)
        record["budget"] = backend.max_num_batched_tokens
        record["caching"] = backend.prefix_caching
        record["knots_n"] = len(step.knots)
        record["knots_at"] = packer.table([number for knot in step.knots for number in knot])
        record["prefill_knots_n"] = len(step.prefill_knots)
        record["prefill_knots_at"] = packer.table([number for knot in step.prefill_knots for number in knot])
    return records, a.records(max(1, n_reps), a.replica_dtype)


def _stores(spec: WorldSpec, packer: Packer, backends: NDArray[Any]) -> NDArray[Any]:
    """The stores of the answer caches, then those of prompt caches, which their backends are told."""
    prompt = {b: api.prompt_cache for b, api in enumerate(spec.backends) if isinstance(api, ApiSpec)}
    numbers = sorted({cache.number for cache in prompt.values() if cache is not None})
    stores = a.records(a.LAYERS + len(numbers) if spec.caches or numbers else 1, a.store_dtype)
    for name in ("newest", "oldest", "helper"):
        stores[name] = a.NONE
    stores["ttl_s"] = math.inf
    for cache in spec.caches:
        record = stores[cache.layer]
        for name in ("backend", "scope", "capacity", "refresh", "miss_s", "helper", "hit", "false_hit", "stated"):
            record[name] = getattr(cache, name)
        ttl_s = list(cache.ttl_s) or [math.inf] * len(spec.classes)
        record["ttl_s"], record["ttl_at"] = max(ttl_s), packer.table(ttl_s)
    for b, made in prompt.items():
        if made is not None:
            backends["prompt_store"][b] = a.LAYERS + numbers.index(made.number)
            record = stores[a.LAYERS + numbers.index(made.number)]
            for name in ("min_tokens", "block", "ttl_s", "by_tenant", "history"):
                record[name] = getattr(made, name)
            record["refresh"] = 1
    return stores


def _kv_arrays(
    spec: WorldSpec, reps: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Block records, hash heads and holds, sized for the most there can be; untouched memory is never committed."""
    shared = any(cls.segmented or cls.system_tokens or len(cls.document_weights) or cls.turns for cls in spec.classes)
    shared = shared or any(agent_of(spec, c) for c in range(len(spec.classes)))
    reps["backend"] = a.NONE
    r = n_blocks = n_buckets = n_refs = 0
    for b, pool in enumerate(spec.backends):
        if not isinstance(pool, PoolSpec):
            continue
        buckets = 1 << (2 * pool.kv_blocks - 1).bit_length() if shared and pool.prefix_caching else 1
        for _ in range(max(pool.max_replicas, pool.replicas)):
            rep = reps[r]
            rep["backend"] = b
            r += 1
            rep["block_at"] = n_blocks
            rep["run_at"] = n_blocks + pool.kv_blocks
            rep["bucket_at"], rep["buckets"] = n_buckets, buckets
            n_blocks += 2 * pool.kv_blocks if pool.prefix_caching else 1
            n_buckets += buckets
            if shared and pool.prefix_caching:
                longest = min(pool.max_model_len // pool.block_size + 1, pool.kv_blocks)
                n_refs += longest * pool.max_num_seqs
    return (
        a.records(max(1, n_blocks), a.block_dtype),
        np.full(max(1, n_buckets), a.NONE, np.int64),
        a.records(max(1, n_refs), a.ref_dtype),
    )
