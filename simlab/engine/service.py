"""Helpers: services that are asked on a task's behalf (a classifier, a verifier, an embedding), paid and waited for."""

from __future__ import annotations

from simlab.draws.counter import key, uniform
from simlab.draws.distribution import draw
from simlab.draws.kernel import kernel
from simlab.engine.arrays import ERROR, FOR_HELPER, HELPER, OK
from simlab.engine.limits import spend
from simlab.engine.meters import cell_of
from simlab.engine.world import (
    World,
    backends_of,
    classes_of,
    dists_of,
    log_of,
    slots_of,
    state_of,
    tables_of,
    tickets_of,
    windows_of,
)


@kernel
def book_call(
    w: World, slot: int, b: int, t: float, took_s: float, prompt: int, cached: int, output: int, outcome: int
) -> None:
    """Books a call to backend ``b`` made beside the task's own attempts: it is paid for, whether it ended OK or not."""
    s = slots_of(w)[slot]
    be = backends_of(w)[b]
    usd = be.usd_call + (prompt - cached) * be.usd_prompt + cached * be.usd_cached + output * be.usd_output
    cell = cell_of(w, slot, b, HELPER)
    if be.long_tokens > 0 and prompt > be.long_tokens:
        usd = be.usd_call + (prompt - cached) * be.usd_long_prompt + cached * be.usd_long_cached
        usd += output * be.usd_long_output
        cell.long_prompt_tokens += prompt
        cell.long_cached_tokens += cached
        cell.long_output_tokens += output
    cell.attempts += 1
    if outcome == ERROR:
        cell.failed += 1
        cell.lost_usd += usd
    else:
        cell.succeeded += 1
    cell.prompt_tokens += prompt
    cell.cached_tokens += cached
    cell.output_tokens += output
    window = windows_of(w)[state_of(w).window, b]
    window.prompt_tokens += prompt
    window.output_tokens += output
    tickets_of(w)[slot].usd += usd
    spend(w, slot, b, usd)
    if len(log_of(w)) <= 1:
        return
    row = log_of(w)[state_of(w).log_n]
    state_of(w).log_n += 1
    row.task = s.seq
    row.cls = s.cls
    row.tenant = s.tenant
    row.group = tickets_of(w)[slot].group if classes_of(w)[s.cls].groups > 1 else 0
    row.backend = b
    row.attempt = s.attempt
    row.reason = HELPER
    row.prompt_tokens = prompt
    row.cached_tokens = cached
    row.written_tokens = 0
    row.output_tokens = output
    row.outcome = outcome
    row.preemptions = 0
    row.arrival_s = s.arrival_s
    row.started_s = t
    row.first_token_s = t + took_s
    row.finish_s = t + took_s
    row.usd = usd


@kernel
def ask(w: World, slot: int, b: int, t: float, prompt: int, output: int) -> float:
    """Asks helper ``b``; returns how long it takes, s. Its time does not depend on how busy it is."""
    s = slots_of(w)[slot]
    u = uniform(key(key(s.task, FOR_HELPER + 64 * s.attempt), b))
    took_s = draw(dists_of(w), tables_of(w), backends_of(w)[b].ttft, u)
    book_call(w, slot, b, t, took_s, prompt, 0, output, OK)
    return float(took_s)
