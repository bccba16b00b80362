"""The engine's memory: a few record arrays, one per noun; `simlab.engine.world` hands them to the kernels.

Compile time and call cost grow with the number of arrays, not of fields (docs/design.md), so each noun is one record
array. Everything is a 64-bit integer or float, so no kernel has to think about casts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray

NONE = -1
"""The empty link of every list."""

TIME_EPS_S = 1e-9
"""Times closer than this are the same instant: beyond the resolution of a double after a month."""

ENOUGH = 1.0 - 1e-9
"""A bucket that is this full for a request has room: it was waited for to the last digit."""

NEVER = math.inf
"""The time of an event that does not come."""

PASSED_OVER = -1
"""In place of a slot's tokens in a step: it decodes, but the step left it out."""

# What a slot is doing.
FREE, THINKING, BACKOFF, WAITING, RUNNING, ON_API, QUEUED_API = 0, 1, 2, 3, 4, 5, 6

# What a backend is.
POOL, API = 0, 1

# What a replica is doing.
UNLEASED, STARTING, UP, DRAINING, STOPPED = 0, 1, 2, 3, 4

# How a stretch of steps moves the replica on.
IDLE, PLAN, DECODE, CHUNKS, MIXED = 0, 1, 2, 3, 4

# Dispatch policies of a pool.
ROUND_ROBIN, LEAST_OUTSTANDING, LEAST_KV, PREFIX_AFFINITY, RANDOM = 0, 1, 2, 3, 4

# How a rule chooses a backend.
BY_WEIGHTS, BY_PRICE, BY_LATENCY, BY_CLASSIFIER, BY_LEARNED, BY_CASCADE, BY_OVERFLOW, BY_TROUGH = range(8)

# How an attempt ends. Cancelled is one that nobody waits for any more: a hedge that lost, a client who hung up.
OK, ERROR, RATE_LIMITED, TIMED_OUT, REJECTED, CANCELLED = 0, 1, 2, 3, 4, 5

# Why an attempt is made; a helper's is work for another attempt (an embedding, a classifier, a verifier).
FIRST, RETRY, HEDGE, ESCALATION, FALLBACK, SHADOW, DUPLICATE, HELPER = 0, 1, 2, 3, 4, 5, 6, 7
REASONS = 8

# In place of a ticket's parent: nobody waits for this call's answer, it only has to be paid.
ORPHAN = -2

# Timer kinds. Those before T_ATTEMPTS are of the attempt and stale when it has ended, the others of the task.
T_API_DONE, T_RETRY, T_NEXT, T_GATE, T_CALL, T_TTFT, T_HEDGE, T_JUDGED, T_BATCH = 0, 1, 2, 3, 4, 5, 6, 7, 8
T_ATTEMPTS = 16
T_DEADLINE, T_PATIENCE = 17, 18
T_ADMIT, T_ROOM, T_DROP = 24, 25, 26

# Why `run` came back.
DONE, NEED_CHUNK, GROW_SLOTS, GROW_TIMERS, GROW_SEGMENTS, LOG_FULL, GROW_ENTRIES = 0, 1, 2, 3, 4, 5, 6

# What a limit does with what is above it.
REFUSE, QUEUE, DEGRADE = 0, 1, 2

# In which order those who wait for a limit are served.
FIFO, FAIR, BY_PRIORITY, BY_DEADLINE = 0, 1, 2, 3

# In place of the outcome of a call to a batch endpoint: it waits to be handed in with others.
FORMING = 1

# Caches of answers, in the order in which they are asked; each has the store of this number.
RESULTS, EXACT, SEMANTIC = 0, 1, 2
LAYERS = 3

# What must be the same for an answer to be given again: bits of a store's scope.
SAME_TENANT, SAME_USER, SAME_PROMPT, SAME_MODEL, SAME_CORPUS = 1, 2, 4, 8, 16

# What a user waits for beside the model, as a class's distributions of it lie one behind the other.
NETWORK, APP, RETRIEVAL, RERANK, GATEWAY, SMOOTHING = 0, 1, 2, 3, 4, 5

# Columns of `World.spans`: how many tasks, and the seconds they spent in each part, in the order in which they met it.
(
    SPAN_TASKS,
    SPAN_NETWORK,
    SPAN_APP,
    SPAN_RETRIEVAL,
    SPAN_RERANK,
    SPAN_GATEWAY,
    SPAN_HELPERS,
    SPAN_LIMITS,
    SPAN_RETRIES,
    SPAN_TOOLS,
    SPAN_QUEUE,
    SPAN_MODEL,
    SPAN_OUTPUT,
    SPAN_SMOOTHING,
) = range(14)
SPANS = 14

MOST_PARALLEL = 16
"""Tools that one step of an agent calls at most."""

ENDLESS = 10_000
"""Steps of a runaway task: more than any limit lets it make."""

# What a draw is for: with the task's key and the attempt this names one random number.
(
    FOR_ROUTE,
    FOR_PROMPT,
    FOR_OUTPUT,
    FOR_TENANT,
    FOR_DOCUMENT,
    FOR_TTFT,
    FOR_ITL,
    FOR_ERROR,
    FOR_JITTER,
    FOR_THINK,
    FOR_TURNS,
    FOR_DISPATCH,
    FOR_QUERY,
    FOR_DIFFICULTY,
    FOR_QUALITY,
    FOR_TIER,
    FOR_GUESS,
    FOR_CONFIDENCE,
    FOR_HELPER,
    FOR_SAMPLE,
    FOR_BREAK,
    FOR_USER,
    FOR_SEMANTIC,
    FOR_FALSE_HIT,
    FOR_CHUNKS,
    FOR_TOOLS,
    FOR_PART,
    FOR_STEPS,
    FOR_LOOP,
    FOR_RUNAWAY,
) = range(1, 31)
"""Purposes stay below 64; an attempt's draws add 64 for each attempt before it."""


def _record(integers: str = "", floats: str = "", words: str = "") -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = [(name, "f8") for name in floats.split()]
    fields += [(name, "i8") for name in integers.split()]
    fields += [(name, "u8") for name in words.split()]
    return np.dtype(fields)


state_dtype = _record(
    "events free_slot n_slots n_timers arrival_cls need_cls need_segs timeout_head timeout_tail free_seg n_segs "
    "spare_segs window free_ref n_refs log_n log_room in_flight peak_in_flight n_reps reasons longest_chain "
    "n_entries free_entry spare_entries entry_room",
    "now arrival_t warmup_s window_s window_end",
    "seed",
)
"""One record: where the run is, and the heads and sizes of its lists. ``log_room``: rows one event can log a slot."""

gateway_dtype = _record(
    "policy clones max_attempts retry_rate_limited retry_error retry_timed_out retry_rejected retry_after "
    "retries_refused "
    "guarded budgeted refused_at order length timers_a_slot shed_keep "
    "abort resume dedupe hedge_max hedge_to breaker_on breaker_consecutive breaker_minimum breaker_probes",
    "timeout_s backoff_s backoff_factor max_backoff_s jitter retry_budget retry_burst retry_credit ttft_timeout_s "
    "deadline_s hedge_s breaker_ratio breaker_window_s breaker_cool_down_s queue_deadline_s shed_queue shed_ttft_s "
    "clock_s",
)
"""One record: time-outs, the retry policy (seconds; jitter is the share subtracted at random), hedges, breakers.

``policy``: where the compiled policies are (0: nobody uses them). ``clones``: whether a task can have several calls at
once, each with a slot of its own. ``retry_credit``: retries that the budget has left, ``retries_refused``: how many it
refused. ``abort``: whether a server is told that nobody waits. ``guarded``: calls are looked at before they are made
(limits of providers, shedding); ``budgeted``: some limit is on money. ``refused_at``: backend on which the gateway
books what it refuses. ``order`` and ``length``: of lines at limits. ``timers_a_slot``: how many timers one event can
start for each slot. ``clock_s``: time of day at the start.
"""

policy_dtype = _record(
    "queries query_alias_at difficulty quality_at tiers tier_alias_at rule_at caches tenant_users "
    "resends joined guarded limits_at limits_n capped max_prompt cut_prompt max_output max_tries "
    "timed latency_at looped",
    "mean_output patience_s max_usd max_session_usd deadline_s",
)
"""What the gateway does for a class beyond routing by weights and one retry policy; of classes that are `policed`.

``queries`` is how many different questions there are (0: no two requests are alike), ``difficulty`` a packed
distribution, ``quality_at`` where each backend's chance of a right answer begins in the tables, tier by tier,
``rule_at`` where the rules of its tenants, tier by tier, begin in `World.rule_numbers`. ``guarded``: it has a context
budget, caps or limits; ``limits_n`` of these, whose allowances begin, tenant by tenant, at ``limits_at`` of
`World.limit_places`. ``capped``: it has a ``max_…``; ``cut_prompt``: longer prompts are cut, not refused.
``deadline_s``: until when after its arrival a task should be done.
``timed``: it is metered where its tasks' time goes; ``latency_at``: the first of its distributions of what users wait
for beside the model (NONE: nothing). ``looped``: its tasks are loops of model and tool calls.
"""

rule_dtype = _record(
    "mode first n helper guess_at curve_at gate",
    "top strong_share queue_per_replica ttft_s resume explore lead_s",
)
"""A route: how one of its ``n`` choices is made; ``helper`` is the service that is asked first (NONE: none).

``gate`` is the number of the route whose tasks wait for room in a pool, as limits have it (NONE: it is no such route).
"""

choice_dtype = _record(
    "backend context samples verifier spilling",
    "cumulative accept_right accept_wrong",
)
"""One backend of a rule: its share summed up, the longest request it takes (0: any), and what passes as an answer."""

ticket_dtype = _record(
    "parent kid tries retries resends hedges force wrong verdict refused over resumed hit tier rule level group came "
    "holds passed lane blocked cleared turned line waits_for dropped probe judging step steps answer",
    "difficulty usd delay_s rank first_s tag joined_s wait_s queued_s session_usd gateway_s helped_s tools_s queue_s "
    "model_s output_s streamed_queued_s judged_s",
    "query results_key exact_key semantic_key",
)
"""What the gateway knows of the task in a slot; record i belongs to slot i.

``parent``: NONE for a task, else the task's slot that this extra call is made for, or ORPHAN. ``kid``: its extra call
in flight. ``tries``: attempts made after the first, extra calls included; ``retries`` those on this backend in a row.
``force``: the backend of the next attempt, NONE: by the route. ``refused``: a breaker was open. ``probe``: at which of
the breaker's openings its attempt is a probe, 0: it is none. ``judging``: it has an answer that is being looked at.
``over``: nothing is tried again. ``resumed``: streamed tokens that are part of the prompt now, since ``first_s`` the
user sees the answer. ``verdict``: how the attempt is booked when it ends, NONE: as it ends. ``delay_s``: what the
first attempt waits for. ``hit``: 1 + the layer of caches that has the answer. ``…_key``: where its answer will be kept
in a layer, 0: nowhere. ``level``: which of its rule's choices the task has come to, where the rule keeps one.
``rank``: its place, from 0 to 1, among all tasks by what a learned router expects of the strong model. ``group``: its
tier and prompt version, as its class's ledger numbers them. ``came``: why it is at its current backend: FIRST,
ESCALATION or FALLBACK. Limits: ``holds`` and ``passed`` are sets of its class's limits, those it counts in and those
it was sent past. ``lane`` is the key that its attempt counts in, ``cleared`` the backend whose limits let the next
attempt through, ``turned``: they did not. ``line`` is where it waits, for backend ``waits_for`` or (NONE) to be let
in, by ``tag``, since ``joined_s``; ``blocked`` and ``wait_s`` are the allowance without room, and for how long.
``dropped``: the line is full. ``queued_s`` is the time it has waited in all. ``session_usd``: spent on the
conversation before.

Agents: ``step`` counts the times that tools were called, ``steps`` the model calls it takes to be done, ``answer`` the
tokens of the last. Where its time went: ``gateway_s``, ``helped_s`` (services that were asked), ``tools_s``, and of the
calls whose answer was taken ``queue_s``, ``model_s`` (to the first token) and ``output_s``; ``streamed_queued_s`` is
``queued_s`` when the stream began that is resumed now; ``judged_s`` is when the answer came that is being looked at.
"""

class_dtype = _record(
    "users think prompt output joint_at joint_n tenants tenant_alias_at prio system_tokens document_tokens documents "
    "document_alias_at turns grows max_context cell_base tenant_base feed_at feed_n feed_done seq explicit segmented "
    "stream content arrivals asked prompt_version model_version corpus_version groups versions patient policed",
    "slo_ttft_s slo_itl_s slo_e2e_s",
    "system_id",
)
"""A workload class: indices of packed distributions (-1 = none), alias tables, and its feed's cursor.

``grows``: later prompts of a conversation or of a task begin with the earlier ones.
``groups`` is how many combinations of a tier and a prompt version (of ``versions``) its ledger keeps apart.
``patient``: nobody waits for its answers. ``policed``: it has policies, see `policy_dtype`.
"""

backend_dtype = _record(
    "kind dispatch priority max_num_seqs budget block_size kv_blocks caching max_model_len rr rep_head knots_at "
    "knots_n prefill_knots_at prefill_knots_n concurrency reject_full in_flight queue_head queue_tail ttft itl "
    "long_tokens model prompt_store canned fallback breaker probes passed failures calls bad_calls openings "
    "limits_at limits_n keys turn queued known_seqs known_tokens known_context batch batch_requests max_queued_tokens "
    "queued_tokens forming",
    "base_s prefill_token_s decode_seq_s decode_context_s prefill_context_s attention_s prefill_seq_s overhead_s "
    "work_prefill_s work_decode_s ttft_per_token_s rpm tpm rpm_level tpm_level level_t error_probability "
    "cached_ratio usd_work_s usd_call recent_ttft_s heard_s retry_after_s slowdown break_probability open_until_s "
    "counted_until_s usd_prompt usd_cached usd_written usd_output usd_long_prompt usd_long_cached "
    "usd_long_written usd_long_output batch_window_s collect_s leaves_s",
)
"""A backend: a pool's limits and step-time coefficients (``known_``: the largest batch, step and context that these are
good for), or an API's latency law, limits and buckets.

``model`` numbers what gives the answers, the same at every provider of a model. ``prompt_store`` is the store of its
prompt cache, NONE: it has none. ``canned``: it says the same to everybody, which no cache keeps. ``batch``: it is a
batch endpoint, with ``forming`` requests to be handed in together at ``leaves_s`` and ``queued_tokens`` handed in.
``usd_`` are prices of one token, and of one second of a replica's work.
"""

limit_dtype = _record(
    "concurrency requests_per_day over degrade_to refused queued degraded gate pool",
    "rpm tpm burst burst_tokens usd_per_day fill_to kv waiting lead_s every_s",
)
"""A limit of the gateway (0: not limited so), and how many it refused, sent to a line, sent elsewhere.

Or room in a pool, for tasks of the route ``gate`` alone (NONE: a limit), see `TroughSpec`.
"""
allowance_dtype = _record("limit line in_flight day used coming", "requests tokens level_t usd coming_s")
"""What one tenant, feature, key … has of a limit: its buckets as of ``level_t``, and what is used of today.

``coming`` counts what was sent to a pool at the instant ``coming_s`` and may not have reached it yet.
"""
line_dtype = _record("head tail waiting flow_at flows armed_slot order length", "virtual armed_s deadline_s")
"""Those who wait for an allowance (or for any key of a provider), in order; ``virtual`` is the time of fair queueing.

``flows`` counts the tenants it tells apart, whose finish tags begin at ``flow_at`` of `World.flows`. ``armed_s`` is
when the slot at its head will look again. At most ``length`` wait, in its ``order``, for ``deadline_s``.
"""
context_dtype = _record(
    "used chunks tools chunk_tokens max_chunks max_tools max_history summary_tokens helper", ""
)
"""What else a class's prompts consist of, and how much of it may be: distributions of retrieved chunks and of the
tokens of tool results (NONE: none), and caps. ``helper`` writes summaries of ``summary_tokens`` (NONE: history is cut).
"""
counter_dtype = _record(
    "refused queued full expired shed long_prompts cut_prompts cut_answers cut_history summaries cut_chunks cut_tools "
    "stopped_tries stopped_usd over_usd over_session_usd loops tool_steps tool_calls tool_failures stopped_steps "
    "stopped_loops runaways in_time missed",
    "waited_s",
)
"""What limits and budgets did to a class; see `simlab.results.counts.COUNTERS`."""

agent_dtype = _record(
    "steps calls parallel tool_s results errors retries helper max_steps partial", "failure share from_s until_s"
)
"""The loop of a class's tasks: distributions of model calls in all, of the tokens of a call that asks for tools, of
tools at once (NONE: one), of a tool's time, and of the tokens of its result and (NONE: nothing) of its error.

``helper`` is the backend that tools are booked at, ``max_steps`` the most times they are called, ``partial``: a task
that is stopped says what it has. ``share`` of the tasks that come between two times never end by themselves.
"""

replica_dtype = _record(
    "backend state next_rep k mode g n_decode ctx n_running n_waiting wait_head wait_tail run_head run_tail pf_head "
    "chunk free plain lru_head lru_tail free_block n_blocks free_run n_runs block_at bucket_at buckets run_at "
    "prepaid phase passed_over heap_n admits aborting steps preemptions prefill_tokens decode_tokens cached_tokens "
    "prompt_tokens hpos step_seqs step_tokens peak_seqs peak_tokens peak_context beyond_context_tokens",
    "t0 step_s step_inc_s t_event t_acc start_s ready_s stop_s busy_s up_s window_busy_s running_s waiting_s "
    "free_block_s beyond_seqs_s beyond_tokens_s",
)
"""A replica: its batch, the stretch of steps it is in, its free blocks and its running totals; ``peak_`` is the most
there was, ``beyond_`` how long (or for how many tokens) it was above what the backend's ``known_`` fields say."""

slot_dtype = _record(
    "state cls tenant prompt output attempt backend replica gen computed target out_done out_join g_join blocks refs "
    "n_refs segs seg_tokens tail_shared heap_pos prev next tprev tnext sched admit preempts cached prefilled run "
    "run_rep aborting session turn turns history seq prio place link phase reason life written",
    "arrival_s started_s served_s first_s last_s ctx_work",
    "task tail",
)
"""A task in flight and its current attempt, or an extra call for one. Slots are reused; ``gen`` counts attempts and
``life`` tasks, which tells a stale timer from a live one. ``served_s`` is when the backend took the attempt up."""

store_dtype = _record(
    "newest oldest size capacity refresh scope backend helper ttl_at stated min_tokens block by_tenant history",
    "ttl_s miss_s hit false_hit",
)
"""A store of what was answered or read before: its entries by last use, how many (0: no limit) and how long they keep.

``ttl_s`` is the longest time of any class, ``ttl_at`` where each class's own begins in the tables. ``backend`` answers
a hit, ``helper`` is asked at every lookup. ``hit`` and ``false_hit`` are chances of a semantic cache, of a lookup
itself where they are ``stated``. The last four are of a provider's prompt cache.
"""
entry_dtype = _record("store chain newer older wrong tokens", "stored_s", "key")
"""What a store keeps under a key: an answer's tokens and whether it is wrong, or the tokens of a prompt's beginning."""
saving_dtype = _record("lookups hits wrong prompt_tokens output_tokens", "usd")
"""What a layer of caches did for a tenant: tokens that no backend saw, and the USD they would have cost there."""
timer_dtype = _record("slot gen kind", "t")
finish_dtype = _record("key slot")
segment_dtype = _record("end next", "", "key")
"""A prompt's segment: ``key`` names the chain of ids up to and including it, ``end`` is where its tokens end."""
ref_dtype = _record("block next")
"""One hold of a slot on a shared block; a slot's holds are linked from the deepest block to the first."""
block_dtype = _record("refs prev next chain count owner", "", "key")
"""A shared KV block, or (beyond the blocks) a run of ``count`` blocks that only ``owner`` (or nobody) can hit again."""

log_dtype = _record(
    "task cls tenant group backend attempt reason prompt_tokens cached_tokens written_tokens output_tokens outcome "
    "preemptions",
    "arrival_s started_s first_token_s finish_s usd",
)
"""One attempt that ended; ``usd`` is what it cost, on a replica the price of its work."""


cell_dtype = _record(
    "cls tenant group backend reason attempts succeeded failed rate_limited timed_out rejected cancelled prompt_tokens "
    "cached_tokens written_tokens output_tokens long_prompt_tokens long_cached_tokens long_written_tokens "
    "long_output_tokens tasks_right tasks_wrong tasks_failed",
    "work_s lost_work_s timed_out_work_s cancelled_work_s discarded_work_s lost_usd timed_out_usd cancelled_usd "
    "discarded_usd",
)
"""Ledger meters of one tenant's group of tasks on one backend, for attempts made for one reason.

``lost_`` is of attempts in vain, with the parts that timed out, were cancelled, or were answered and then discarded;
the rest failed. ``tasks_`` count the tasks that ended there, by how.
"""
task_dtype = _record("arrived succeeded failed good retries wrong")
"""Tasks of a class."""
tenant_dtype = _record("cls tenant arrived succeeded failed good wrong", "ttft_sum_s e2e_sum_s")
"""Tasks of a tenant after warm-up."""
window_dtype = _record(
    "arrived finished failed prompt_tokens output_tokens",
    "ttft_sum_s e2e_sum_s busy_s up_s waiting_s running_s kv_block_s kv_total_block_s",
)
"""A backend in a time window."""


def records(shape: int | tuple[int, ...], dtype: np.dtype[np.void]) -> NDArray[Any]:
    """Zeroed records. Memory is committed by the system only where it is touched, so generous bounds cost nothing.

    With ``NUMBA_DISABLE_JIT=1`` the kernels are plain Python and need attribute access, which a recarray has.
    """
    array = np.zeros(shape, dtype)
    return array.view(np.recarray) if config.DISABLE_JIT else array


def grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    """A copy with ``n`` records, the old ones first."""
    bigger = records(n, array.dtype)
    bigger[: len(array)] = array
    return bigger
