"""What the run leaves behind: ledger cells, latency histograms, time windows, and the log of ended attempts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simlab.draws.kernel import inlined, kernel
from simlab.engine.arrays import (
    API,
    CANCELLED,
    DRAINING,
    ERROR,
    IDLE,
    OK,
    PLAN,
    RATE_LIMITED,
    REJECTED,
    TIMED_OUT,
    UNLEASED,
    UP,
)
from simlab.engine.world import (
    World,
    backends_of,
    cells_of,
    classes_of,
    hist_count_of,
    hist_of,
    hist_sum_of,
    log_of,
    reason_cols_of,
    reps_of,
    slots_of,
    state_of,
    tasks_of,
    tenants_of,
    tickets_of,
    window_hist_of,
    windows_of,
)

HIST_LOW_S = 1e-6
HIST_GAMMA = 1.005 / 0.995
HIST_BUCKETS = 2600
COARSE = 10
"""Histogram shape; a test holds it equal to that of `simlab.results`."""

TTFT, ITL, TPOT, E2E = 0, 1, 2, 3

_MANTISSA_BITS = 7
_SHIFT = 52 - _MANTISSA_BITS
_EDGES = HIST_LOW_S * HIST_GAMMA ** np.arange(HIST_BUCKETS)
"""Upper edges of the buckets."""


def _cell_of(x: float) -> int:
    """Exponent and leading mantissa bits of a positive double: cells 0.8% wide or less, narrower than a bucket."""
    return int(np.float64(x).view(np.int64)) >> _SHIFT


_FIRST_CELL = _cell_of(HIST_LOW_S)
_CELL_LOW = (np.arange(_FIRST_CELL, _cell_of(_EDGES[-1]) + 2, dtype=np.int64) << _SHIFT).view(np.float64)
_CELL_BUCKET = np.searchsorted(_EDGES, _CELL_LOW, side="left")
"""The bucket of each cell's lower end; a cell holds at most one edge."""


@inlined
def bucket_of(x: float) -> int:
    """Histogram bucket of a time: bucket i holds (low g^(i-1), low g^i]."""
    if x <= HIST_LOW_S:
        return 0
    if x >= _EDGES[HIST_BUCKETS - 1]:
        return HIST_BUCKETS - 1
    i = _CELL_BUCKET[(np.float64(x).view(np.int64) >> _SHIFT) - _FIRST_CELL]
    if x > _EDGES[i]:
        i += 1
    return int(i)


@inlined
def add_time(w: World, metric: int, c: int, b: int, x: float, n: int) -> int:
    """Counts a time ``n`` times; returns its bucket."""
    i = bucket_of(x)
    hist_of(w)[metric, c, b, i] += n
    hist_sum_of(w)[metric, c, b] += x * n
    hist_count_of(w)[metric, c, b] += n
    return i


@inlined
def add_steps(w: World, c: int, b: int, first: float, inc: float, k: int, n: int) -> None:
    """Counts the inter-token times of ``k`` steps lasting first, first + inc, … for ``n`` sequences each."""
    low = bucket_of(first)
    high = bucket_of(first + inc * (k - 1))
    hist_sum_of(w)[ITL, c, b] += n * (k * first + inc * 0.5 * k * (k - 1))
    hist_count_of(w)[ITL, c, b] += n * k
    done = 0
    for i in range(low, high):
        upto = min(k, int((_EDGES[i] - first) / inc) + 1)
        if upto > done:
            hist_of(w)[ITL, c, b, i] += n * (upto - done)
            done = upto
    hist_of(w)[ITL, c, b, high] += n * (k - done)


@inlined
def account(w: World, r: int, t: float) -> None:
    """Adds the replica's time since it was last accounted to the current window; call before its state changes."""
    rep = reps_of(w)[r]
    dt = t - rep.t_acc
    if dt <= 0.0:
        return
    rep.t_acc = t
    if rep.state != UP and rep.state != DRAINING:
        return
    rep.up_s += dt
    rep.running_s += dt * rep.n_running
    rep.waiting_s += dt * rep.n_waiting
    rep.free_block_s += dt * rep.free
    if rep.mode != IDLE and rep.mode != PLAN:
        rep.window_busy_s += dt


@inlined
def meter_step(w: World, r: int, seqs: int, tokens: int) -> None:
    """Notes what is in the steps that begin: decoding sequences, and tokens in all."""
    rep = reps_of(w)[r]
    rep.step_seqs = seqs
    rep.step_tokens = tokens
    if seqs > rep.peak_seqs:
        rep.peak_seqs = seqs
    if tokens > rep.peak_tokens:
        rep.peak_tokens = tokens


@inlined
def meter_beyond(w: World, r: int, t: float) -> None:
    """Books the steps that end at ``t`` as beyond what the step time is known for, if they are."""
    rep = reps_of(w)[r]
    be = backends_of(w)[rep.backend]
    if rep.step_seqs > be.known_seqs:
        rep.beyond_seqs_s += t - rep.t0
    if rep.step_tokens > be.known_tokens:
        rep.beyond_tokens_s += t - rep.t0


@kernel
def book_replicas(w: World, t: float) -> None:
    """Books what the replicas did up to ``t`` in the current window."""
    state = state_of(w)
    for r in range(len(reps_of(w))):
        rep = reps_of(w)[r]
        if rep.state == UNLEASED:
            continue
        account(w, r, t)
        cell = windows_of(w)[state.window, rep.backend]
        total = backends_of(w)[rep.backend].kv_blocks - 1
        cell.up_s += rep.up_s
        cell.busy_s += rep.window_busy_s
        cell.running_s += rep.running_s
        cell.waiting_s += rep.waiting_s
        cell.kv_total_block_s += rep.up_s * total
        cell.kv_block_s += rep.up_s * total - rep.free_block_s
        rep.busy_s += rep.window_busy_s
        rep.up_s = 0.0
        rep.window_busy_s = 0.0
        rep.running_s = 0.0
        rep.waiting_s = 0.0
        rep.free_block_s = 0.0


@kernel
def close_window(w: World, t: float) -> None:
    """Books the current window, which ends at ``t``, and begins the next one."""
    book_replicas(w, t)
    state = state_of(w)
    if state.window + 1 < len(windows_of(w)):
        state.window += 1
        state.window_end = (state.window + 1) * state.window_s
    else:
        state.window_end = math.inf


@inlined
def cell_of(w: World, slot: int, b: int, reason: int) -> Any:
    """The ledger cell of the task in a slot, for attempts at backend ``b`` made for a reason."""
    s = slots_of(w)[slot]
    cls = classes_of(w)[s.cls]
    place = s.tenant
    if cls.groups > 1:
        place = place * cls.groups + tickets_of(w)[slot].group
    at = (place * len(backends_of(w)) + b) * state_of(w).reasons + reason_cols_of(w)[reason]
    return cells_of(w)[cls.cell_base + at]


@kernel
def log_attempt(w: World, slot: int, t: float, outcome: int, output_tokens: int, billed: bool) -> None:
    """Appends the attempt to the log; the loop stops to have it emptied before it overflows."""
    if len(log_of(w)) <= 1:
        return
    state = state_of(w)
    s = slots_of(w)[slot]
    row = log_of(w)[state.log_n]
    state.log_n += 1
    row.task = s.seq
    row.cls = s.cls
    row.tenant = s.tenant
    row.group = tickets_of(w)[slot].group if classes_of(w)[s.cls].groups > 1 else 0
    row.backend = s.backend
    row.attempt = s.attempt
    row.reason = s.reason
    row.prompt_tokens = s.prompt
    row.cached_tokens = s.cached
    row.written_tokens = s.written
    row.output_tokens = output_tokens
    row.outcome = outcome
    row.preemptions = s.preempts
    row.arrival_s = s.arrival_s
    row.started_s = s.started_s
    row.first_token_s = s.first_s
    row.finish_s = t
    row.usd = attempt_usd(w, slot, output_tokens) if billed else 0.0


@inlined
def replica_work_s(w: World, slot: int, output_tokens: int) -> float:
    """Replica seconds of marginal work of the current attempt, by which a pool's cost is shared out."""
    s = slots_of(w)[slot]
    be = backends_of(w)[s.backend]
    return float(s.prefilled * be.work_prefill_s + output_tokens * be.work_decode_s + s.ctx_work * be.decode_context_s)


@kernel
def api_usd(w: World, slot: int, output_tokens: int) -> float:
    """What the current attempt costs at an API that bills ``output_tokens``, USD."""
    s = slots_of(w)[slot]
    be = backends_of(w)[s.backend]
    fresh = s.prompt - s.cached - s.written
    call = be.usd_call
    if be.long_tokens > 0 and s.prompt > be.long_tokens:
        return float(
            call
            + fresh * be.usd_long_prompt
            + s.cached * be.usd_long_cached
            + s.written * be.usd_long_written
            + output_tokens * be.usd_long_output
        )
    return float(
        call
        + fresh * be.usd_prompt
        + s.cached * be.usd_cached
        + s.written * be.usd_written
        + output_tokens * be.usd_output
    )


@kernel
def attempt_usd(w: World, slot: int, output_tokens: int) -> float:
    """What the current attempt costs, USD; on a replica the price of the time it took up."""
    be = backends_of(w)[slots_of(w)[slot].backend]
    if be.kind == API:
        return float(api_usd(w, slot, output_tokens))
    return float(replica_work_s(w, slot, output_tokens) * be.usd_work_s)


@kernel
def meter_lost(w: World, slot: int, outcome: int, output_tokens: int) -> None:
    """Books a billed attempt as made in vain: it ended as ``outcome``, or well (OK) and its answer is discarded."""
    s = slots_of(w)[slot]
    cell = cell_of(w, slot, s.backend, s.reason)
    if backends_of(w)[s.backend].kind == API:
        usd = api_usd(w, slot, output_tokens)
        cell.lost_usd += usd
        if outcome == TIMED_OUT:
            cell.timed_out_usd += usd
        elif outcome == CANCELLED:
            cell.cancelled_usd += usd
        elif outcome == OK:
            cell.discarded_usd += usd
        return
    work_s = replica_work_s(w, slot, output_tokens)
    cell.lost_work_s += work_s
    if outcome == TIMED_OUT:
        cell.timed_out_work_s += work_s
    elif outcome == CANCELLED:
        cell.cancelled_work_s += work_s
    elif outcome == OK:
        cell.discarded_work_s += work_s


@inlined
def meter_attempt(w: World, slot: int, t: float, outcome: int, output_tokens: int, billed: bool) -> None:
    """Books one ended attempt on its ledger cell: outcome, tokens if billable, and replica work."""
    s = slots_of(w)[slot]
    be = backends_of(w)[s.backend]
    cell = cell_of(w, slot, s.backend, s.reason)
    cell.attempts += 1
    if outcome == OK:
        cell.succeeded += 1
    elif outcome == RATE_LIMITED:
        cell.rate_limited += 1
    elif outcome == ERROR:
        cell.failed += 1
    elif outcome == TIMED_OUT:
        cell.timed_out += 1
    elif outcome == REJECTED:
        cell.rejected += 1
    else:
        cell.cancelled += 1
    if billed:
        cell.prompt_tokens += s.prompt
        cell.cached_tokens += s.cached
        cell.written_tokens += s.written
        cell.output_tokens += output_tokens
        if be.kind == API:
            if be.long_tokens > 0 and s.prompt > be.long_tokens:
                cell.long_prompt_tokens += s.prompt
                cell.long_cached_tokens += s.cached
                cell.long_written_tokens += s.written
                cell.long_output_tokens += output_tokens
        else:
            cell.work_s += replica_work_s(w, slot, output_tokens)
            rep = reps_of(w)[s.replica]
            context = s.prompt + output_tokens
            if context > rep.peak_context:
                rep.peak_context = context
            if context > be.known_context:
                rep.beyond_context_tokens += s.prefilled + output_tokens
        if outcome != OK:
            meter_lost(w, slot, outcome, output_tokens)
        window = windows_of(w)[state_of(w).window, s.backend]
        window.prompt_tokens += s.prompt
        window.output_tokens += output_tokens
    log_attempt(w, slot, t, outcome, output_tokens, billed)


@inlined
def meter_task(w: World, slot: int, t: float, answered: bool, right: bool) -> None:
    """Books one ended task: success, SLO, latencies (TTFT and E2E from arrival at the gateway) where answered.

    An answer that is not right is a failed task whose user waited all the same.
    """
    success = answered and right
    s = slots_of(w)[slot]
    c = s.cls
    b = s.backend
    cls = classes_of(w)[c]
    ttft = s.first_s - s.arrival_s
    e2e = t - s.arrival_s
    tpot = 0.0
    if s.output > 1:
        tpot = (t - s.first_s) / (s.output - 1)
    good = success and ttft <= cls.slo_ttft_s and e2e <= cls.slo_e2e_s and tpot <= cls.slo_itl_s
    measured = s.arrival_s >= state_of(w).warmup_s
    cell = cell_of(w, slot, b, s.reason)
    if success:
        cell.tasks_right += 1
    elif answered:
        cell.tasks_wrong += 1
    else:
        cell.tasks_failed += 1
    window = windows_of(w)[state_of(w).window, b]
    for which in range(2):
        if which == 0 and not measured:
            continue
        tasks = tasks_of(w)[which, c]
        tasks.retries += s.attempt
        if success:
            tasks.succeeded += 1
        else:
            tasks.failed += 1
        if answered and not right:
            tasks.wrong += 1
        if good:
            tasks.good += 1
    if answered:
        window.finished += 1
        window.ttft_sum_s += ttft
        window.e2e_sum_s += e2e
    else:
        window.failed += 1
    if not measured:
        return
    tenant = tenants_of(w)[cls.tenant_base + s.tenant]
    if success:
        tenant.succeeded += 1
    else:
        tenant.failed += 1
    if good:
        tenant.good += 1
    if not answered:
        return
    if not right:
        tenant.wrong += 1
    tenant.ttft_sum_s += ttft
    tenant.e2e_sum_s += e2e
    i = add_time(w, TTFT, c, b, ttft, 1)
    j = add_time(w, E2E, c, b, e2e, 1)
    if cls.patient == 0:
        coarse = window_hist_of(w)[state_of(w).window]
        coarse[0, i // COARSE] += 1
        coarse[1, j // COARSE] += 1
    if s.output > 1:
        add_time(w, TPOT, c, b, tpot, 1)

