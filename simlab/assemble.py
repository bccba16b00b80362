"""From a scenario to what the engine runs and what money and words need: profiles, prices, traffic, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simlab import policies, prices, profiles
from simlab.engine import (
    AnswerCacheSpec,
    ApiSpec,
    ClassSpec,
    GatewaySpec,
    LimitSpec,
    PolicySpec,
    PoolSpec,
    RuleSpec,
    StepCoefficients,
    TokenPrice,
    WorldSpec,
)
from simlab.engine import arrays as codes
from simlab.errors import InputError, Problem
from simlab.policies import VersionChange
from simlab.results import BackendFacts, ProfileFacts, TokenPrices
from simlab.results.groups import TaskGroups
from simlab.workload import open_class

if TYPE_CHECKING:
    from simlab.profiles import Profile, StepTime
    from simlab.results import Measurements
    from simlab.scenario import Api, Pool, Scenario, WorkloadClass
    from simlab.workload import Stream

UNLIMITED = 1 << 40
"""In place of a limit there is not."""

TYPICAL_BATCH = 32
"""Sequences that share a step's fixed time when the cost of a replica is split by work."""

_DISPATCH = {
    "round_robin": codes.ROUND_ROBIN,
    "least_outstanding": codes.LEAST_OUTSTANDING,
    "least_kv": codes.LEAST_KV,
    "prefix_affinity": codes.PREFIX_AFFINITY,
    "random": codes.RANDOM,
}


Beyond = profiles.Beyond
Overreach = Sequence[tuple[Beyond, ...]]
"""For each backend, the limits of its profile that a run goes beyond."""


@dataclass(frozen=True)
class Backends:
    """A scenario's backends, ready for the engine, and what its gateway does.

    Args:
        specs: pools, APIs, their batch endpoints, then what only policies use (caches, helpers).
        facts: of each.
        profiles: the speed profile of each pool; None for an API, whose latency is stated, and for extras.
        policies: of each class.
        rules: routes that are more than weights.
        caches: of answers.
        changes: of versions, in order of time.
        gateway: time-outs, retries and what else holds for all classes.
        limits: on tasks and calls.
    """

    specs: tuple[PoolSpec | ApiSpec, ...]
    facts: tuple[BackendFacts, ...]
    profiles: tuple[Profile | None, ...]
    policies: tuple[PolicySpec | None, ...]
    rules: tuple[RuleSpec, ...]
    caches: tuple[AnswerCacheSpec, ...]
    changes: tuple[VersionChange, ...]
    gateway: GatewaySpec
    groups: tuple[TaskGroups, ...]
    limits: tuple[LimitSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(facts.name for facts in self.facts)

    @property
    def uncertain(self) -> bool:
        """Whether any pool's step time is known only so well."""
        return any(any(profile.uncertainty.relative_sd().values()) for profile in self.profiles if profile is not None)

    def drawn(self, seed: int, overreach: Overreach = ()) -> Backends:
        """The same with the step time of each pool drawn from the uncertainty of its profile.

        Args:
            seed: of the replication; pools with one profile see one draw of it, see `simlab.profiles.drawn`.
            overreach: where each backend goes beyond its profile, which widens it; empty: nowhere.
        """
        specs = list(self.specs)
        for b, (spec, profile) in enumerate(zip(self.specs, self.profiles, strict=True)):
            if profile is not None and isinstance(spec, PoolSpec):
                wide = profiles.widened(profile, overreach[b]) if overreach else profile
                specs[b] = replace(spec, **_timing(profiles.drawn(wide, seed)))
        return replace(self, specs=tuple(specs))

    def overreach(self, measured: Sequence[Measurements]) -> Overreach:
        """Where each backend went beyond what its profile was measured on, over some replications."""
        found = []
        for b, profile in enumerate(self.profiles):
            reach = profiles.Reach()
            for one in measured:
                reach += profiles.Reach.of(one.replicas[one.replicas["backend"] == b])
            found.append(() if profile is None else profiles.beyond(profile.validity, reach))
        return tuple(found)


def backends(scenario: Scenario) -> Backends:
    """Looks up the profile, memory and price of each backend.

    Raises:
        InputError: an unknown model, GPU, profile or precision, or a model that does not fit its GPUs.
    """
    ordered = {
        name: sum(op.replicas for op in scenario.operations if op.pool == name and op.action == "add")
        for name in scenario.pools
    }
    pools, problems = [], []
    for name, pool in scenario.pools.items():
        unknown = list(_unknown_names(name, pool))
        try:
            if not unknown:
                pools.append(_pool(name, pool, ordered[name], scenario))
        except InputError as error:
            unknown = [Problem(found.where, found.path or f"pools.{name}", found.message) for found in error.problems]
        problems += [replace(found, where=found.where or scenario.place(found.path)) for found in unknown]
    if problems:
        raise InputError(problems)
    apis = [(*_api(name, api, scenario), None) for name, api in scenario.apis.items()]
    batches = [
        (*policies.batch_endpoint(name, api, *_api(name, api, scenario)), None)
        for name, api in scenario.batch_endpoints.items()
    ]
    both: list[tuple[PoolSpec | ApiSpec, BackendFacts, Profile | None]] = [*pools, *apis, *batches]
    priced = {facts.name: facts.priced for _, facts, _ in both}
    unknown = [replace(found, where=scenario.place(found.path)) for found in policies.incomparable(scenario, priced)]
    if unknown:
        raise InputError(unknown)
    numbers = policies.model_numbers(scenario)
    specs = tuple(replace(spec, model=number) for (spec, _, _), number in zip(both, numbers, strict=True))
    plan = policies.plan(scenario)
    facts = (*(facts for _, facts, _ in both), *plan.facts)
    changes = tuple(policies.changes(scenario))
    ordered_specs = policies.with_fallbacks(scenario, (*specs, *plan.specs), plan.canned)
    groups = policies.task_groups(scenario)
    return Backends(
        specs=ordered_specs,
        facts=facts,
        profiles=(*(profile for _, _, profile in both), *(None for _ in plan.facts)),
        policies=plan.classes,
        rules=plan.rules,
        caches=plan.caches,
        changes=changes,
        gateway=plan.gateway,
        groups=groups,
        limits=plan.limits,
    )


def _unknown_names(name: str, pool: Pool) -> Iterator[Problem]:
    """What no table knows of a pool; a pool with a profile of its own may name what it likes."""
    if pool.profile is None:
        for field, look_up in (("model", profiles.model), ("gpu", profiles.gpu)):
            try:
                look_up(getattr(pool, field))
            except InputError as error:
                yield from (Problem("", f"pools.{name}.{field}", found.message) for found in error.problems)


def world(scenario: Scenario, ready: Backends, seed: int, *, log_rows: int = 0) -> tuple[WorldSpec, list[str]]:
    """One replication's world, and what its traffic assumes.

    Raises:
        InputError: a trace is missing or broken.
    """
    assumptions: list[str] = []
    classes: list[ClassSpec] = []
    for name, cls in scenario.workload.items():
        stream = open_class(scenario, name, seed)
        assumptions += [f"{name}: {text}" for text in stream.assumptions]
        classes.append(_class(scenario, name, cls, stream, ready.names))
    spec = WorldSpec(
        classes=classes,
        backends=ready.specs,
        horizon_s=scenario.horizon,
        warmup_s=scenario.warmup,
        window_s=scenario.window_s,
        gateway=ready.gateway,
        seed=seed,
        log_rows=log_rows,
        policies=ready.policies,
        rules=ready.rules,
        caches=ready.caches,
        limits=ready.limits,
    )
    return spec, assumptions


def _zipf(count: int, exponent: float) -> Sequence[float]:
    """Weights 1/k^exponent of items 1..count (Zipf's law)."""
    return [float(weight) for weight in np.arange(1, count + 1, dtype=np.float64) ** -exponent]


def _class(
    scenario: Scenario, name: str, cls: WorkloadClass, stream: Stream, backend_names: Sequence[str]
) -> ClassSpec:
    shares = scenario.route_of(name)
    prefix, sessions = cls.prefix, cls.sessions
    documents = prefix.documents if prefix is not None else None
    slo = scenario.slo_of(name)
    limits = {key: getattr(slo, key, None) or math.inf for key in ("ttft", "itl", "e2e")}
    deadline = cls.task.deadline
    hurried = any(other.task.deadline is None for other in scenario.workload.values())
    return ClassSpec(
        feed=None if stream.closed_users else stream,
        users=stream.closed_users,
        think=stream.think,
        prompt=stream.prompt,
        output=stream.output,
        joint=None if stream.joint is None else np.column_stack([stream.joint.prompt, stream.joint.output]),
        tenant_weights=_zipf(cls.tenants.count, cls.tenants.skew),
        priority=cls.priority,
        system_tokens=(prefix.system + prefix.template if prefix is not None else 0)
        + (cls.context.policy if cls.context is not None else 0),
        document_tokens=documents.tokens if documents is not None else 0,
        document_weights=_zipf(documents.count, documents.zipf) if documents is not None else (),
        turns=stream.turns,
        max_context=(sessions.max_context or 0) if sessions is not None else 0,
        route=[shares.get(backend, 0.0) for backend in backend_names],
        slo_ttft_s=limits["ttft"],
        slo_itl_s=limits["itl"],
        slo_e2e_s=min(limits["e2e"], deadline or math.inf),
        patient=deadline is not None and hurried,
        segmented=cls.arrivals.kind == "trace",
    )


def coefficients(step: StepTime) -> StepCoefficients:
    """A profile's step time in the engine's terms."""
    return StepCoefficients(
        base_s=step.base_s,
        prefill_token_s=step.per_prefill_token_s,
        decode_seq_s=step.per_seq_s,
        decode_context_s=step.per_kv_token_s,
        prefill_context_s=step.per_prefill_kv_token_s,
        attention_s=step.attn_s,
        prefill_seq_s=step.per_prefill_seq_s,
        knots=step.linear,
        prefill_knots=step.prefill_linear,
    )


def pool_profile(pool: Pool, base_dir: Path | None = None) -> Profile:
    """The profile a pool runs by: the one it names, else the measured one that fits, else an estimate.

    Args:
        pool: as written.
        base_dir: folder of the scenario, where a profile's file is looked for first; None: the current folder.

    Raises:
        InputError: no such profile, model or GPU.
    """
    if pool.profile is None:
        return profiles.select(pool.model, pool.gpu, pool.tp, pool.precision)
    if base_dir is not None and pool.profile.endswith(".json") and not Path(pool.profile).is_file():
        return profiles.profile(base_dir / pool.profile)
    return profiles.profile(pool.profile)


def pool_kv_blocks(pool: Pool, profile: Profile) -> int:
    """KV blocks of a replica: stated, from stated memory, or what fits beside the weights.

    Where a profile of the user's own has a model or a GPU that no table knows, the blocks its server had.

    Raises:
        InputError: the weights leave no room for one block, vLLM cannot split the model over so many GPUs, or nothing
            tells how many blocks there are.
    """
    _check_split(pool)
    if pool.kv_blocks is not None:
        return pool.kv_blocks
    unknown = [f"{what} {name!r}" for what, name, known in _names(pool) if not known]
    if unknown:
        if profile.kv_blocks is None or pool.kv_cache_memory is not None:
            message = f"no table knows the {' and the '.join(unknown)}, so the KV cache cannot be sized; give kv_blocks"
            raise InputError([Problem("", "", f"{message} (a vLLM server logs it when it starts)")])
        return max(2, profile.kv_blocks * (profile.block_size or pool.block_size) // pool.block_size)
    if pool.kv_cache_memory is not None:
        model = profiles.model(pool.model)
        token_bytes = model.kv_bytes_per_token(profile.kv_precision) / model.kv_shards(pool.tp)
        return max(2, int(pool.kv_cache_memory / (token_bytes * pool.block_size)))
    return profiles.kv_blocks(
        pool.model,
        pool.gpu,
        pool.tp,
        pool.precision,
        pool.block_size,
        pool.gpu_memory_utilization,
        kv_precision=profile.kv_precision,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        max_num_seqs=pool.max_num_seqs,
    )


def _names(pool: Pool) -> Iterator[tuple[str, str, bool]]:
    """(what it is, name, whether a table knows it) of the names from which memory is computed."""
    for what, look_up in (("model", profiles.model), ("gpu", profiles.gpu)):
        try:
            look_up(getattr(pool, what))
        except InputError:
            yield what, getattr(pool, what), False
        else:
            yield what, getattr(pool, what), True


def _canonical(look_up: Callable[[str], Any], name: str) -> str:
    """A name as its table has it, or as it is written where no table knows it."""
    try:
        return str(look_up(name).name)
    except InputError:
        return name


def _max_context(model: str) -> int:
    """The longest request a model takes; a model of the user's own takes what its KV cache holds."""
    try:
        return profiles.model(model).max_context
    except InputError:
        return UNLIMITED


def _check_split(pool: Pool) -> None:
    """Tensor parallelism gives each GPU whole attention heads; vLLM does not start otherwise."""
    try:
        heads = profiles.model(pool.model).heads
    except InputError:
        return  # a model of the user's own, with a profile of its own
    if heads % pool.tp:
        allowed = ", ".join(str(tp) for tp in range(1, 17) if heads % tp == 0)
        message = f"tp is {pool.tp}: vLLM cannot split the {heads} attention heads of {pool.model}; allowed: {allowed}"
        raise InputError([Problem("", "", message)])


def _timing(step: StepTime) -> dict[str, Any]:
    """The part of a pool's specification that follows from its step time."""
    slope = (step.linear_s(2048) - step.linear_s(1)) / 2047
    prefill_s = step.per_prefill_token_s + slope + (step.prefill_linear_s(2048) - step.prefill_linear_s(1)) / 2047
    decode_s = step.per_seq_s + slope + step.base_s / TYPICAL_BATCH
    return {
        "step": coefficients(step),
        "overhead_s": step.overhead_s,
        "work_prefill_s": prefill_s if prefill_s + decode_s > 0 else 1.0,
        "work_decode_s": decode_s if prefill_s + decode_s > 0 else 1.0,
    }


def _pool(name: str, pool: Pool, ordered: int, scenario: Scenario) -> tuple[PoolSpec, BackendFacts, Profile]:
    profile = pool_profile(pool, scenario.base_dir)
    blocks = pool_kv_blocks(pool, profile)
    validity = profile.validity
    spec = PoolSpec(
        **_timing(profile.step_time),
        replicas=pool.replicas,
        max_replicas=pool.replicas + ordered,
        dispatch=_DISPATCH[pool.dispatch],
        priority=pool.scheduling == "priority",
        max_num_seqs=pool.max_num_seqs,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        block_size=pool.block_size,
        kv_blocks=blocks,
        prefix_caching=pool.prefix_caching,
        max_model_len=pool.max_model_len or _max_context(pool.model),
        known_seqs=validity.max_decode_seqs or UNLIMITED,
        known_tokens=validity.max_step_tokens or UNLIMITED,
        known_context=validity.max_context_tokens or UNLIMITED,
    )
    price = pool.price
    usd = price.usd_per_gpu_hour
    source, as_of = "stated in the scenario", ""
    if usd is None:
        known = {what: known for what, _, known in _names(pool)}["gpu"]
        found = prices.gpu_price(pool.gpu, price.provider, price.market, missing_ok=True) if known else None
        usd = found.usd_per_gpu_hour if found is not None else None
        source = f"{found.provider}, {found.market.replace('_', '-')} ({found.source})" if found is not None else ""
        as_of = found.as_of if found is not None else ""
    facts = BackendFacts(
        name=name,
        kind="pool",
        model=pool.model,
        provider="self-hosted",
        gpu=pool.gpu,
        gpus_per_replica=pool.tp,
        usd_per_gpu_hour=usd,
        billing_granularity_s=pool.billing_granularity,
        operations_usd_per_month=pool.operations_usd_per_month,
        profile=ProfileFacts(
            name=profile.name,
            kind=profile.kind,
            error=profile.error_in_words(),
            source="; ".join(part for part in (", ".join(profile.fitted_on), profile.engine) if part),
            date=profile.date,
        ),
        price_source=source,
        price_as_of=as_of,
        assumptions=_pool_assumptions(pool, profile, blocks, scenario),
    )
    return replace(spec, usd_work_s=(usd or 0.0) * pool.tp / 3600.0), facts, profile


def _pool_assumptions(pool: Pool, profile: Profile, blocks: int, scenario: Scenario) -> tuple[str, ...]:
    found = []
    if pool.kv_blocks is None:
        known = all(known for _, _, known in _names(pool))
        whence = "estimated from GPU memory and weights" if known else "as the server had that its profile is from"
        found.append(f"{blocks:,} KV blocks of {pool.block_size} tokens a replica, {whence}")
    asked = (_canonical(profiles.model, pool.model), _canonical(profiles.gpu, pool.gpu), pool.tp)
    if (profile.model, profile.gpu, profile.tp) != asked:
        found.append(f"step times are those of {profile.model} on {profile.tp} × {profile.gpu}")
    if profile.kind == "estimated":
        found.append("no benchmark of this set-up; step times are estimated from architecture and data sheet")
    unlike = [
        f"{name} {getattr(pool, name):,} (measured with {measured:,})"
        for name in ("max_num_seqs", "max_num_batched_tokens")
        if (measured := getattr(profile, name)) is not None and measured != getattr(pool, name)
    ]
    if unlike:
        found.append(f"runs with {' and '.join(unlike)}; batches follow the pool's own limits")
    if scenario.gateway.timeout is not None:
        found.append("a timed-out request leaves its replica at the end of the running step")
    return tuple(found)


def _api(name: str, api: Api, scenario: Scenario) -> tuple[ApiSpec, BackendFacts]:
    tokens, source, as_of, note = _token_prices(api)
    assumptions = ["latencies, limits and errors are as stated in the scenario, not measured here"]
    if note:
        assumptions.append(note)
    cache, words = policies.prompt_cache(scenario, api)
    assumptions += words
    spec = ApiSpec(
        ttft=api.ttft.distribution(),
        itl=api.itl.distribution(),
        ttft_per_token_s=api.ttft_per_prompt_token,
        concurrency=api.concurrency or 0,
        reject_full=api.when_full == "reject",
        rpm=api.rpm or 0.0,
        tpm=api.tpm or 0.0,
        error_probability=api.error_probability,
        break_probability=api.stream_break_probability,
        cached_ratio=api.cached_input_ratio,
        long_tokens=(tokens.long_threshold_tokens or 0) if tokens is not None else 0,
        price=TokenPrice() if tokens is None else _per_token(tokens.base),
        long_price=TokenPrice() if tokens is None else _per_token(tokens.long),
        prompt_cache=cache,
    )
    facts = BackendFacts(
        name=name,
        kind="api",
        model=api.model,
        provider=api.provider,
        token_prices=tokens,
        profile=ProfileFacts(name=api.model, kind="stated", error="as written in the scenario"),
        price_source=source,
        price_as_of=as_of,
        assumptions=tuple(assumptions),
    )
    return spec, facts


def _per_token(usd_per_mtok: tuple[float, float, float, float]) -> TokenPrice:
    return TokenPrice(*(usd / 1e6 for usd in usd_per_mtok))


def _token_prices(api: Api) -> tuple[TokenPrices | None, str, str, str]:
    """Prices of an API: (tokens, source, date, note)."""
    if api.price is not None:
        own = api.price
        stated = TokenPrices(
            own.input_usd_per_mtok,
            own.output_usd_per_mtok,
            own.cached_input_usd_per_mtok,
            cache_write_usd_per_mtok=own.cache_write_usd_per_mtok,
        )
        return stated, "stated in the scenario", "", ""
    found = prices.api_price(api.provider, api.model, missing_ok=True)
    if found is None:
        return None, "", "", ""
    listed = TokenPrices(
        found.input_usd_per_mtok,
        found.output_usd_per_mtok,
        found.cached_input_usd_per_mtok,
        found.long_threshold_tokens,
        found.long_input_usd_per_mtok,
        found.long_cached_input_usd_per_mtok,
        found.long_output_usd_per_mtok,
        found.cache_write_usd_per_mtok,
    )
    return listed, found.source, found.as_of, found.note
