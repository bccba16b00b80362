"""How the kernels see the arrays: one record of addresses and shapes, and an accessor for each array.

Handing numba a tuple of thirty arrays copies two hundred words and counts thirty references at every call of every
kernel: 4.7 µs an event. Passing one array still counts a reference at every call (0.27 µs); an address does not.
The `World` itself stays with the engine, which owns the memory and makes the record again whenever an array was
replaced. With ``NUMBA_DISABLE_JIT=1`` the accessors read the `World` directly.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numba import carray, config, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simlab.draws.distribution import distribution_dtype
from simlab.draws.kernel import kernel
from simlab.engine.arrays import (
    agent_dtype,
    allowance_dtype,
    backend_dtype,
    block_dtype,
    cell_dtype,
    choice_dtype,
    class_dtype,
    context_dtype,
    counter_dtype,
    entry_dtype,
    finish_dtype,
    gateway_dtype,
    limit_dtype,
    line_dtype,
    log_dtype,
    policy_dtype,
    ref_dtype,
    replica_dtype,
    rule_dtype,
    saving_dtype,
    segment_dtype,
    slot_dtype,
    state_dtype,
    store_dtype,
    task_dtype,
    tenant_dtype,
    ticket_dtype,
    timer_dtype,
    window_dtype,
)


class World(NamedTuple):
    """Everything the kernels see. Shapes: C classes, B backends, R replicas, S slots, W windows, M buckets."""

    state: NDArray[Any]  # [1] state_dtype
    gateway: NDArray[Any]  # [1] gateway_dtype
    classes: NDArray[Any]  # [C]
    policies: NDArray[Any]  # [C]
    rules: NDArray[Any]  # routes
    choices: NDArray[Any]  # their backends
    rule_numbers: NDArray[np.int64]  # rule of each tenant of a class with policies, tier by tier; NONE: by `routes`
    reason_cols: NDArray[np.int64]  # [REASONS] column of the ledger cells for each reason of an attempt
    backends: NDArray[Any]  # [B]
    routes: NDArray[np.float64]  # [C, B] cumulative weights
    dists: NDArray[Any]  # packed distributions
    tables: NDArray[np.float64]  # their tables, alias tables, step-time knots
    joint: NDArray[np.int64]  # [J, 2] prompt, output tokens
    reps: NDArray[Any]  # [R]
    rep_heap: NDArray[np.int64]  # [R]
    finish: NDArray[Any]  # [R, max_num_seqs]
    phases: NDArray[np.int64]  # [R, block_size]: decoding sequences by (computed - g) mod block_size
    decode_cls: NDArray[np.int64]  # [R, C]: decoding sequences by class
    slots: NDArray[Any]  # [S]
    tickets: NDArray[Any]  # [S], or [1] when no class has a policy
    timers: NDArray[Any]  # binary heap
    segs: NDArray[Any]
    refs: NDArray[Any]
    blocks: NDArray[Any]  # shared blocks of all replicas, then their runs
    buckets: NDArray[np.int64]  # hash heads of shared blocks
    found: NDArray[np.int64]  # what the last lookup found, block by block
    stores: NDArray[Any]  # answer caches by layer, then prompt caches; [1] when there is none
    entries: NDArray[Any]  # of all stores
    entry_heads: NDArray[np.int64]  # hash heads of entries, a power of two of them
    savings: NDArray[Any]  # [tenants of all classes * LAYERS], or [1] when there is no answer cache
    limits: NDArray[Any]  # of the gateway, or [1]
    allowances: NDArray[Any]  # of all limits, or [1]
    limit_places: NDArray[np.int64]  # allowances of each tenant of a class, and of each key of a backend; NONE: none
    lines: NDArray[Any]  # of those who wait at a limit, or [1]
    flows: NDArray[np.float64]  # finish tags of tenants in lines, for fair queueing
    contexts: NDArray[Any]  # [C], or [1]
    agents: NDArray[Any]  # [C], or [1] when there is none
    spans: NDArray[np.float64]  # [2, C, M / 10, SPANS], or [1, 1, 1, 1]: where time goes by TTFT and by E2E
    counters: NDArray[Any]  # [C]
    wait_hist: NDArray[np.int64]  # [C, M], or [1, 1] where nothing waits: time in lines
    feed_t: NDArray[np.float64]  # [C, N] arrival times of the current chunk
    feed_len: NDArray[np.int64]  # [C, N or 1, 2] explicit prompt and output tokens
    feed_ptr: NDArray[np.int64]  # [C, N + 1 or 1] where a request's segments begin in feed_seg
    feed_seg: NDArray[np.int64]  # [C, M, 2] segment id, tokens
    feed_query: NDArray[np.int64]  # [C, N or 1] ids of questions
    cells: NDArray[Any]  # ledger meters [tenants of all classes * B * reasons in use]
    tasks: NDArray[Any]  # [2, C]: after warm-up, whole horizon
    tenants: NDArray[Any]  # [tenants of all classes]
    hist: NDArray[np.int64]  # [4, C, B, M]
    hist_sum: NDArray[np.float64]  # [4, C, B]
    hist_count: NDArray[np.int64]  # [4, C, B]
    windows: NDArray[Any]  # [W, B]
    window_hist: NDArray[np.int64]  # [W, 2, M / 10]
    log: NDArray[Any]  # ring of ended attempts; length 1 = no log


def _pointers_dtype() -> np.dtype[np.void]:
    dimensions = {
        "routes": 2, "joint": 2, "finish": 2, "phases": 2, "decode_cls": 2, "feed_t": 2, "feed_len": 3, "feed_ptr": 2,
        "feed_seg": 3, "feed_query": 2,
        "spans": 4,
        "wait_hist": 2, "tasks": 2, "hist": 4, "hist_sum": 3, "hist_count": 3, "windows": 2, "window_hist": 3,
    }  # fmt: skip
    fields = []
    for name in World._fields:
        fields.append((name, "i8"))
        fields += [(f"{name}_{axis}", "i8") for axis in range(dimensions.get(name, 1))]
    return np.dtype(fields)


pointers_dtype = _pointers_dtype()
"""The record of addresses: for each array of `World` its address and, as ``name_0``, ``name_1`` …, its shape."""


def pointers(world: World) -> NDArray[Any]:
    """The record of addresses of a world's arrays."""
    pointers = np.zeros(1, pointers_dtype)
    for name, array in zip(World._fields, world, strict=True):
        assert array.flags.c_contiguous
        pointers[name] = array.ctypes.data
        for axis, size in enumerate(array.shape):
            pointers[f"{name}_{axis}"] = size
    return pointers


def handle(world: World, record: NDArray[Any]) -> Any:
    """What kernels are given as ``w``: the record's address, or the world itself when nothing is compiled."""
    return world if config.DISABLE_JIT else record.ctypes.data


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """An address as a pointer, for `carray`."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@kernel
def _shape(w: World) -> Any:
    """The record of addresses, at the address that kernels get as ``w``."""
    return carray(_pointer(w), 1, pointers_dtype)[0]


@kernel
def state_of(w: World) -> Any:
    """Where the run is."""
    return carray(_pointer(_shape(w).state), 1, state_dtype)[0]


@kernel
def gateway_of(w: World) -> Any:
    """The gateway's settings."""
    return carray(_pointer(_shape(w).gateway), 1, gateway_dtype)[0]


@kernel
def classes_of(w: World) -> NDArray[Any]:
    """`World.classes`."""
    p = _shape(w)
    return carray(_pointer(p.classes), p.classes_0, class_dtype)


@kernel
def policies_of(w: World) -> NDArray[Any]:
    """`World.policies`."""
    p = _shape(w)
    return carray(_pointer(p.policies), p.policies_0, policy_dtype)


@kernel
def rules_of(w: World) -> NDArray[Any]:
    """`World.rules`."""
    p = _shape(w)
    return carray(_pointer(p.rules), p.rules_0, rule_dtype)


@kernel
def choices_of(w: World) -> NDArray[Any]:
    """`World.choices`."""
    p = _shape(w)
    return carray(_pointer(p.choices), p.choices_0, choice_dtype)


@kernel
def rule_numbers_of(w: World) -> NDArray[Any]:
    """`World.rule_numbers`."""
    p = _shape(w)
    return carray(_pointer(p.rule_numbers), p.rule_numbers_0, np.int64)


@kernel
def reason_cols_of(w: World) -> NDArray[Any]:
    """`World.reason_cols`."""
    p = _shape(w)
    return carray(_pointer(p.reason_cols), p.reason_cols_0, np.int64)


@kernel
def backends_of(w: World) -> NDArray[Any]:
    """`World.backends`."""
    p = _shape(w)
    return carray(_pointer(p.backends), p.backends_0, backend_dtype)


@kernel
def routes_of(w: World) -> NDArray[Any]:
    """`World.routes`."""
    p = _shape(w)
    return carray(_pointer(p.routes), (p.routes_0, p.routes_1), np.float64)


@kernel
def dists_of(w: World) -> NDArray[Any]:
    """`World.dists`."""
    p = _shape(w)
    return carray(_pointer(p.dists), p.dists_0, distribution_dtype)


@kernel
def tables_of(w: World) -> NDArray[Any]:
    """`World.tables`."""
    p = _shape(w)
    return carray(_pointer(p.tables), p.tables_0, np.float64)


@kernel
def joint_of(w: World) -> NDArray[Any]:
    """`World.joint`."""
    p = _shape(w)
    return carray(_pointer(p.joint), (p.joint_0, p.joint_1), np.int64)


@kernel
def reps_of(w: World) -> NDArray[Any]:
    """`World.reps`."""
    p = _shape(w)
    return carray(_pointer(p.reps), p.reps_0, replica_dtype)


@kernel
def rep_heap_of(w: World) -> NDArray[Any]:
    """`World.rep_heap`."""
    p = _shape(w)
    return carray(_pointer(p.rep_heap), p.rep_heap_0, np.int64)


@kernel
def finish_of(w: World) -> NDArray[Any]:
    """`World.finish`."""
    p = _shape(w)
    return carray(_pointer(p.finish), (p.finish_0, p.finish_1), finish_dtype)


@kernel
def phases_of(w: World) -> NDArray[Any]:
    """`World.phases`."""
    p = _shape(w)
    return carray(_pointer(p.phases), (p.phases_0, p.phases_1), np.int64)


@kernel
def decode_cls_of(w: World) -> NDArray[Any]:
    """`World.decode_cls`."""
    p = _shape(w)
    return carray(_pointer(p.decode_cls), (p.decode_cls_0, p.decode_cls_1), np.int64)


@kernel
def slots_of(w: World) -> NDArray[Any]:
    """`World.slots`."""
    p = _shape(w)
    return carray(_pointer(p.slots), p.slots_0, slot_dtype)


@kernel
def tickets_of(w: World) -> NDArray[Any]:
    """`World.tickets`."""
    p = _shape(w)
    return carray(_pointer(p.tickets), p.tickets_0, ticket_dtype)


@kernel
def timers_of(w: World) -> NDArray[Any]:
    """`World.timers`."""
    p = _shape(w)
    return carray(_pointer(p.timers), p.timers_0, timer_dtype)


@kernel
def segs_of(w: World) -> NDArray[Any]:
    """`World.segs`."""
    p = _shape(w)
    return carray(_pointer(p.segs), p.segs_0, segment_dtype)


@kernel
def refs_of(w: World) -> NDArray[Any]:
    """`World.refs`."""
    p = _shape(w)
    return carray(_pointer(p.refs), p.refs_0, ref_dtype)


@kernel
def blocks_of(w: World) -> NDArray[Any]:
    """`World.blocks`."""
    p = _shape(w)
    return carray(_pointer(p.blocks), p.blocks_0, block_dtype)


@kernel
def buckets_of(w: World) -> NDArray[Any]:
    """`World.buckets`."""
    p = _shape(w)
    return carray(_pointer(p.buckets), p.buckets_0, np.int64)


@kernel
def found_of(w: World) -> NDArray[Any]:
    """`World.found`."""
    p = _shape(w)
    return carray(_pointer(p.found), p.found_0, np.int64)


@kernel
def stores_of(w: World) -> NDArray[Any]:
    """`World.stores`."""
    p = _shape(w)
    return carray(_pointer(p.stores), p.stores_0, store_dtype)


@kernel
def entries_of(w: World) -> NDArray[Any]:
    """`World.entries`."""
    p = _shape(w)
    return carray(_pointer(p.entries), p.entries_0, entry_dtype)


@kernel
def entry_heads_of(w: World) -> NDArray[Any]:
    """`World.entry_heads`."""
    p = _shape(w)
    return carray(_pointer(p.entry_heads), p.entry_heads_0, np.int64)


@kernel
def savings_of(w: World) -> NDArray[Any]:
    """`World.savings`."""
    p = _shape(w)
    return carray(_pointer(p.savings), p.savings_0, saving_dtype)


@kernel
def limits_of(w: World) -> NDArray[Any]:
    """`World.limits`."""
    p = _shape(w)
    return carray(_pointer(p.limits), p.limits_0, limit_dtype)


@kernel
def allowances_of(w: World) -> NDArray[Any]:
    """`World.allowances`."""
    p = _shape(w)
    return carray(_pointer(p.allowances), p.allowances_0, allowance_dtype)


@kernel
def limit_places_of(w: World) -> NDArray[Any]:
    """`World.limit_places`."""
    p = _shape(w)
    return carray(_pointer(p.limit_places), p.limit_places_0, np.int64)


@kernel
def lines_of(w: World) -> NDArray[Any]:
    """`World.lines`."""
    p = _shape(w)
    return carray(_pointer(p.lines), p.lines_0, line_dtype)


@kernel
def flows_of(w: World) -> NDArray[Any]:
    """`World.flows`."""
    p = _shape(w)
    return carray(_pointer(p.flows), p.flows_0, np.float64)


@kernel
def contexts_of(w: World) -> NDArray[Any]:
    """`World.contexts`."""
    p = _shape(w)
    return carray(_pointer(p.contexts), p.contexts_0, context_dtype)


@kernel
def agents_of(w: World) -> NDArray[Any]:
    """`World.agents`."""
    p = _shape(w)
    return carray(_pointer(p.agents), p.agents_0, agent_dtype)


@kernel
def spans_of(w: World) -> NDArray[Any]:
    """`World.spans`."""
    p = _shape(w)
    return carray(_pointer(p.spans), (p.spans_0, p.spans_1, p.spans_2, p.spans_3), np.float64)


@kernel
def counters_of(w: World) -> NDArray[Any]:
    """`World.counters`."""
    p = _shape(w)
    return carray(_pointer(p.counters), p.counters_0, counter_dtype)


@kernel
def wait_hist_of(w: World) -> NDArray[Any]:
    """`World.wait_hist`."""
    p = _shape(w)
    return carray(_pointer(p.wait_hist), (p.wait_hist_0, p.wait_hist_1), np.int64)


@kernel
def feed_query_of(w: World) -> NDArray[Any]:
    """`World.feed_query`."""
    p = _shape(w)
    return carray(_pointer(p.feed_query), (p.feed_query_0, p.feed_query_1), np.int64)


@kernel
def feed_t_of(w: World) -> NDArray[Any]:
    """`World.feed_t`."""
    p = _shape(w)
    return carray(_pointer(p.feed_t), (p.feed_t_0, p.feed_t_1), np.float64)


@kernel
def feed_len_of(w: World) -> NDArray[Any]:
    """`World.feed_len`."""
    p = _shape(w)
    return carray(_pointer(p.feed_len), (p.feed_len_0, p.feed_len_1, p.feed_len_2), np.int64)


@kernel
def feed_ptr_of(w: World) -> NDArray[Any]:
    """`World.feed_ptr`."""
    p = _shape(w)
    return carray(_pointer(p.feed_ptr), (p.feed_ptr_0, p.feed_ptr_1), np.int64)


@kernel
def feed_seg_of(w: World) -> NDArray[Any]:
    """`World.feed_seg`."""
    p = _shape(w)
    return carray(_pointer(p.feed_seg), (p.feed_seg_0, p.feed_seg_1, p.feed_seg_2), np.int64)


@kernel
def cells_of(w: World) -> NDArray[Any]:
    """`World.cells`."""
    p = _shape(w)
    return carray(_pointer(p.cells), p.cells_0, cell_dtype)


@kernel
def tasks_of(w: World) -> NDArray[Any]:
    """`World.tasks`."""
    p = _shape(w)
    return carray(_pointer(p.tasks), (p.tasks_0, p.tasks_1), task_dtype)


@kernel
def tenants_of(w: World) -> NDArray[Any]:
    """`World.tenants`."""
    p = _shape(w)
    return carray(_pointer(p.tenants), p.tenants_0, tenant_dtype)


@kernel
def hist_of(w: World) -> NDArray[Any]:
    """`World.hist`."""
    p = _shape(w)
    return carray(_pointer(p.hist), (p.hist_0, p.hist_1, p.hist_2, p.hist_3), np.int64)


@kernel
def hist_sum_of(w: World) -> NDArray[Any]:
    """`World.hist_sum`."""
    p = _shape(w)
    return carray(_pointer(p.hist_sum), (p.hist_sum_0, p.hist_sum_1, p.hist_sum_2), np.float64)


@kernel
def hist_count_of(w: World) -> NDArray[Any]:
    """`World.hist_count`."""
    p = _shape(w)
    return carray(_pointer(p.hist_count), (p.hist_count_0, p.hist_count_1, p.hist_count_2), np.int64)


@kernel
def windows_of(w: World) -> NDArray[Any]:
    """`World.windows`."""
    p = _shape(w)
    return carray(_pointer(p.windows), (p.windows_0, p.windows_1), window_dtype)


@kernel
def window_hist_of(w: World) -> NDArray[Any]:
    """`World.window_hist`."""
    p = _shape(w)
    return carray(_pointer(p.window_hist), (p.window_hist_0, p.window_hist_1, p.window_hist_2), np.int64)


@kernel
def log_of(w: World) -> NDArray[Any]:
    """`World.log`."""
    p = _shape(w)
    return carray(_pointer(p.log), p.log_0, log_dtype)


if config.DISABLE_JIT:
    for _name in World._fields:
        globals()[f"{_name}_of"] = attrgetter(_name)
    state_of = lambda w: w.state[0]  # noqa: E731
    gateway_of = lambda w: w.gateway[0]  # noqa: E731
