"""What the run leaves behind: ledger cells, latency histograms, time windows, and the log of ended attempts."""

from __future__ import annotations

import math

from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    API,
    DRAINING,
    ERROR,
    IDLE,
    OK,
    PLAN,
    RATE_LIMITED,
    REJECTED,
    TIMED_OUT,
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
    reps_of,
    slots_of,
    state_of,
    tasks_of,
    tenants_of,
    window_hist_of,
    windows_of,
)

HIST_LOW_S = 1e-6
HIST_GAMMA = 1.005 / 0.995
HIST_BUCKETS = 2600
COARSE = 10
"""Histogram shape; a test holds it equal to that of `simlab.results`."""

TTFT, ITL, TPOT, E2E = 0, 1, 2, 3

_INV_LOG_GAMMA = 1.0 / math.log(HIST_GAMMA)
_LOG_LOW = math.log(HIST_LOW_S)


@kernel
def bucket_of(x: float) -> int:
    """Histogram bucket of a time: bucket i holds (low g^(i-1), low g^i]."""
    if x <= HIST_LOW_S:
        return 0
    i = math.ceil((math.log(x) - _LOG_LOW) * _INV_LOG_GAMMA)
    return min(int(i), HIST_BUCKETS - 1)


@kernel
def add_time(w: World, metric: int, c: int, b: int, x: float, n: int) -> int:
    """Counts a time ``n`` times; returns its bucket."""
    i = bucket_of(x)
    hist_of(w)[metric, c, b, i] += n
    hist_sum_of(w)[metric, c, b] += x * n
    hist_count_of(w)[metric, c, b] += n
    return i


@kernel
def add_steps(w: World, c: int, b: int, first: float, inc: float, k: int, n: int) -> None:
    """Counts the inter-token times of ``k`` steps lasting first, first + inc, … for ``n`` sequences each."""
    low = bucket_of(first)
    high = bucket_of(first + inc * (k - 1))
    hist_sum_of(w)[ITL, c, b] += n * (k * first + inc * 0.5 * k * (k - 1))
    hist_count_of(w)[ITL, c, b] += n * k
    done = 0
    for i in range(low, high):
        edge = HIST_LOW_S * math.exp(i / _INV_LOG_GAMMA)
        upto = min(k, int((edge - first) / inc) + 1)
        if upto > done:
            hist_of(w)[ITL, c, b, i] += n * (upto - done)
            done = upto
    hist_of(w)[ITL, c, b, high] += n * (k - done)


@kernel
def window_of(w: World, t: float) -> int:
    """The time window of ``t``."""
    return min(int(t / state_of(w).window_s), len(windows_of(w)) - 1)


@kernel
def account(w: World, r: int, t: float) -> None:
    """Adds the replica's time since it was last accounted to its windows; call before its state changes."""
    rep = reps_of(w)[r]
    start = rep.t_acc
    if t <= start:
        return
    rep.t_acc = t
    if rep.state != UP and rep.state != DRAINING:
        return
    busy = rep.mode != IDLE and rep.mode != PLAN
    if busy:
        rep.busy_s += t - start
    total = backends_of(w)[rep.backend].kv_blocks - 1
    window_s = state_of(w).window_s
    i = window_of(w, start)
    while True:
        end = t
        if i + 1 < len(windows_of(w)) and (i + 1) * window_s < t:
            end = (i + 1) * window_s
        dt = end - start
        if dt > 0.0:
            cell = windows_of(w)[i, rep.backend]
            cell.up_s += dt
            if busy:
                cell.busy_s += dt
            cell.running_s += dt * rep.n_running
            cell.waiting_s += dt * rep.n_waiting
            cell.kv_block_s += dt * (total - rep.free)
            cell.kv_total_block_s += dt * total
        if end >= t:
            return
        start = end
        i += 1


@kernel
def log_attempt(w: World, slot: int, t: float, outcome: int, output_tokens: int) -> None:
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
    row.backend = s.backend
    row.attempt = s.attempt
    row.prompt_tokens = s.prompt
    row.cached_tokens = s.cached
    row.output_tokens = output_tokens
    row.outcome = outcome
    row.preemptions = s.preempts
    row.arrival_s = s.arrival_s
    row.started_s = s.started_s
    row.first_token_s = s.first_s
    row.finish_s = t


@kernel
def meter_attempt(w: World, slot: int, t: float, outcome: int, output_tokens: int, billed: bool) -> None:
    """Books one ended attempt on its ledger cell: outcome, tokens if billable, and replica work."""
    s = slots_of(w)[slot]
    be = backends_of(w)[s.backend]
    cls = classes_of(w)[s.cls]
    cell = cells_of(w)[cls.cell_base + s.tenant * len(backends_of(w)) + s.backend]
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
    if billed:
        cell.prompt_tokens += s.prompt
        cell.cached_tokens += s.cached
        cell.output_tokens += output_tokens
        if be.kind == API:
            if be.long_tokens > 0 and s.prompt > be.long_tokens:
                cell.long_prompt_tokens += s.prompt
                cell.long_cached_tokens += s.cached
                cell.long_output_tokens += output_tokens
        else:
            cell.work_s += (
                s.prefilled * be.work_prefill_s + output_tokens * be.work_decode_s + s.ctx_work * be.decode_context_s
            )
        window = windows_of(w)[window_of(w, t), s.backend]
        window.prompt_tokens += s.prompt
        window.output_tokens += output_tokens
    log_attempt(w, slot, t, outcome, output_tokens)


@kernel
def meter_task(w: World, slot: int, t: float, success: bool) -> None:
    """Books one ended task: success, SLO, latencies (TTFT and E2E from arrival at the gateway)."""
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
    window = windows_of(w)[window_of(w, t), b]
    for which in range(2):
        if which == 0 and not measured:
            continue
        tasks = tasks_of(w)[which, c]
        tasks.retries += s.attempt
        if success:
            tasks.succeeded += 1
        else:
            tasks.failed += 1
        if good:
            tasks.good += 1
    if success:
        window.finished += 1
        window.ttft_sum_s += ttft
        window.e2e_sum_s += e2e
    else:
        window.failed += 1
    if not measured:
        return
    tenant = tenants_of(w)[cls.tenant_base + s.tenant]
    if not success:
        tenant.failed += 1
        return
    tenant.succeeded += 1
    if good:
        tenant.good += 1
    tenant.ttft_sum_s += ttft
    tenant.e2e_sum_s += e2e
    coarse = window_hist_of(w)[window_of(w, t)]
    i = add_time(w, TTFT, c, b, ttft, 1)
    coarse[0, i // COARSE] += 1
    i = add_time(w, E2E, c, b, e2e, 1)
    coarse[1, i // COARSE] += 1
    if s.output > 1:
        add_time(w, TPOT, c, b, tpot, 1)

