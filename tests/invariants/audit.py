"""A full audit of a world between two events: every list is walked, every count recounted, every block found.

It reads the engine's arrays as an accountant reads books, knowing how they are kept but computing nothing their way.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from simlab.engine import Engine
from simlab.engine import arrays as a
from simlab.engine.lockstep import ORDER

BUSY = (a.DECODE, a.CHUNKS, a.MIXED)
IN_FLIGHT = (a.BACKOFF, a.WAITING, a.RUNNING, a.ON_API, a.QUEUED_API)


def chain(records: Any, head: int, link: str = "next") -> list[int]:
    """The members of a linked list, in order.

    Raises:
        AssertionError: it runs in a circle.
    """
    members: list[int] = []
    at = int(head)
    while at != a.NONE:
        members.append(at)
        at = int(records[at][link])
        assert len(members) <= len(records), "a list runs in a circle"
    return members


def audit(engine: Engine) -> None:
    """Checks everything that must hold between two events.

    Raises:
        AssertionError: something does not.
    """
    w = engine.world
    _slots(w)
    _timers(w, engine.now)
    audit_backends(engine)


def audit_backends(engine: Engine) -> None:
    """Checks what must hold of APIs and replicas, whatever calls they have.

    Raises:
        AssertionError: something does not.
    """
    w = engine.world
    _apis(w)
    held_of_backend = Counter[int]()
    refs = 0
    for r in np.flatnonzero(w.reps["state"] != a.UNLEASED):
        refs += _replica(w, int(r), engine.now)
        held_of_backend[int(w.reps[r]["backend"])] += 1
    assert refs + len(chain(w.refs, w.state[0]["free_ref"])) == w.state[0]["n_refs"]
    _replica_heap(w, engine.now)
    for b, backend in enumerate(w.backends):
        listed = chain(w.reps, backend["rep_head"], "next_rep") if backend["kind"] == a.POOL else []
        assert len(listed) == held_of_backend[b]
        assert all(w.reps[r]["backend"] == b for r in listed)


def _slots(w: Any) -> None:
    state = w.state[0]
    slots = w.slots[: state["n_slots"]]
    free = chain(w.slots, state["free_slot"])
    assert sorted(free) == np.flatnonzero(slots["state"] == a.FREE).tolist()
    in_flight = int(np.isin(slots["state"], IN_FLIGHT).sum())
    assert state["in_flight"] == in_flight
    assert state["peak_in_flight"] >= in_flight
    total = w.tasks[1]
    assert (total["arrived"] - total["succeeded"] - total["failed"]).sum() == in_flight
    for c in range(len(w.classes)):
        here = slots[np.isin(slots["state"], IN_FLIGHT) & (slots["cls"] == c)]
        open_tasks = total[c]["arrived"] - total[c]["succeeded"] - total[c]["failed"]
        assert open_tasks == len(here)
        if w.classes[c]["users"] > 0:
            seated = np.isin(slots["state"], (a.THINKING, *IN_FLIGHT)) & (slots["cls"] == c)
            # Users of a feed leave when it is empty.
            leaves = w.classes[c]["explicit"] == 1 and w.classes[c]["feed_at"] == w.classes[c]["feed_n"]
            assert w.classes[c]["users"] == seated.sum() or (leaves and w.classes[c]["users"] > seated.sum())
    used = sum(len(chain(w.segs, s["segs"])) for i, s in enumerate(slots) if s["state"] != a.FREE)
    assert all(slots[i]["segs"] == a.NONE for i in free)
    assert len(chain(w.segs, state["free_seg"])) == state["spare_segs"]
    assert used + state["spare_segs"] == state["n_segs"] <= len(w.segs)
    watched = chain(w.slots, state["timeout_head"], "tnext")
    assert watched[::-1] == chain(w.slots, state["timeout_tail"], "tprev")
    started = w.slots["started_s"][watched]
    assert (np.diff(started) >= -a.TIME_EPS_S).all()
    if w.gateway[0]["timeout_s"] < math.inf:
        active = np.isin(slots["state"], (a.WAITING, a.RUNNING, a.ON_API, a.QUEUED_API))
        given_up = (slots["state"] == a.RUNNING) & (slots["aborting"] > 0)
        assert sorted(watched) == np.flatnonzero(active & ~given_up).tolist()
        assert (started + w.gateway[0]["timeout_s"] > state["now"]).all()


def _timers(w: Any, now: float) -> None:
    state = w.state[0]
    n = int(state["n_timers"])
    assert n <= len(w.timers)
    timers = w.timers[:n]
    for i in range(1, n):
        assert timers[(i - 1) // 2]["t"] <= timers[i]["t"]
    live = [t for t in timers if w.slots[t["slot"]]["gen"] == t["gen"]]
    assert all(t["t"] > now for t in live)
    kinds = Counter((int(t["slot"]), int(t["kind"])) for t in live)
    slots = w.slots[: state["n_slots"]]
    want = Counter(
        (i, kind)
        for i, s in enumerate(slots["state"])
        for of, kind in ((a.THINKING, a.T_NEXT), (a.BACKOFF, a.T_RETRY), (a.ON_API, a.T_API_DONE))
        if s == of
    )
    assert kinds == want


def _apis(w: Any) -> None:
    slots = w.slots[: w.state[0]["n_slots"]]
    for b, be in enumerate(w.backends):
        if be["kind"] != a.API:
            continue
        mine = slots["backend"] == b
        assert be["in_flight"] == (mine & (slots["state"] == a.ON_API)).sum()
        queue = chain(w.slots, be["queue_head"])
        assert len(queue) == (mine & (slots["state"] == a.QUEUED_API)).sum()
        assert queue[::-1] == chain(w.slots, be["queue_tail"], "prev")
        if be["concurrency"]:
            assert be["in_flight"] <= be["concurrency"]
            if queue:
                assert be["in_flight"] == be["concurrency"], "the endpoint idles while requests queue"
        assert be["rpm_level"] >= -1e-9
        assert be["tpm_level"] >= -1e-9


def _replica_heap(w: Any, now: float) -> None:
    n = int(w.state[0]["n_reps"])
    heap = w.rep_heap[:n]
    assert len(set(heap.tolist())) == n
    for i, r in enumerate(heap):
        assert w.reps[r]["hpos"] == i
        assert w.reps[heap[(i - 1) // 2 if i else 0]]["t_event"] <= w.reps[r]["t_event"]
        assert w.reps[r]["t_event"] > now


def _blocks(tokens: int, size: int) -> int:
    return -(-tokens // size)


def _replica(w: Any, r: int, now: float) -> int:
    """Audits one replica; returns the holds on its shared blocks."""
    rep = w.reps[r]
    be = w.backends[rep["backend"]]
    bs = int(be["block_size"])
    total = int(be["kv_blocks"]) - 1
    waiting, running = chain(w.slots, rep["wait_head"]), chain(w.slots, rep["run_head"])
    assert waiting[::-1] == chain(w.slots, rep["wait_tail"], "prev")
    assert running[::-1] == chain(w.slots, rep["run_tail"], "prev")
    assert len(waiting) == rep["n_waiting"]
    assert len(running) == rep["n_running"] <= be["max_num_seqs"]
    assert all(w.slots[s]["state"] == a.WAITING for s in waiting)
    assert all(w.slots[s]["state"] == a.RUNNING for s in running)
    assert all(w.slots[s]["replica"] == r for s in waiting + running)
    if rep["state"] in (a.STOPPED, a.STARTING):
        assert not waiting
        assert not running
        assert rep["free"] == rep["plain"] == total or rep["state"] == a.STARTING
    if rep["state"] == a.DRAINING:
        assert running or waiting, "an empty replica's lease goes on"
    if running or waiting:
        assert rep["mode"] in BUSY, "a replica idles beside its work"
        assert rep["t_event"] < math.inf
    else:
        assert rep["mode"] == a.IDLE
        assert rep["t_event"] == math.inf
    assert rep["aborting"] == sum(w.slots[s]["aborting"] > 0 for s in running)
    _decoding(w, r, running, bs)
    shared, refs, alone = _held(w, r, running, waiting, bs)
    _free(w, r, total, shared + alone)
    return refs


def _now_computed(w: Any, r: int, slot: int) -> int:
    s = w.slots[slot]
    grown = w.reps[r]["g"] - s["g_join"] if s["heap_pos"] != a.NONE else 0
    return int(s["computed"] + grown)


def _decoding(w: Any, r: int, running: list[int], bs: int) -> None:
    rep = w.reps[r]
    decoding = [s for s in running if w.slots[s]["heap_pos"] != a.NONE]
    rest = [s for s in running if w.slots[s]["heap_pos"] == a.NONE]
    assert rep["n_decode"] == rep["heap_n"] == len(decoding)
    assert rep["ctx"] == sum(_now_computed(w, r, s) for s in decoding)
    heap = w.finish[r][: rep["heap_n"]]
    assert sorted(heap["slot"].tolist()) == sorted(decoding)
    for i, entry in enumerate(heap):
        assert w.slots[entry["slot"]]["heap_pos"] == i
        assert heap[(i - 1) // 2 if i else 0]["key"] <= entry["key"]
        assert entry["key"] >> ORDER > rep["g"], "a finished sequence is still here"
    phases = Counter((_now_computed(w, r, s) - int(rep["g"])) % bs for s in decoding)
    assert {i: int(n) for i, n in enumerate(w.phases[r]) if n} == dict(phases)
    classes = Counter(int(w.slots[s]["cls"]) for s in decoding)
    assert {c: int(n) for c, n in enumerate(w.decode_cls[r]) if n} == dict(classes)
    assert rep["pf_head"] == (rest[0] if rest else a.NONE)
    for s in running:
        slot = w.slots[s]
        out = slot["out_done"] if slot["heap_pos"] == a.NONE else slot["out_join"] + rep["g"] - slot["g_join"]
        assert 0 <= out < slot["output"]
        assert _now_computed(w, r, s) < slot["prompt"] + slot["output"]
    if rep["mode"] in BUSY:
        assert rep["step_s"] >= 0
        assert rep["k"] >= 1


def _held(w: Any, r: int, running: list[int], waiting: list[int], bs: int) -> tuple[int, int, int]:
    """(Shared blocks in use, holds on them, blocks in use by one request alone)."""
    rep = w.reps[r]
    first, last = int(rep["block_at"]), int(rep["block_at"] + rep["n_blocks"])
    holds = Counter[int]()
    alone = n_holds = 0
    for s in waiting:
        assert w.slots[s]["blocks"] == 0
        assert w.slots[s]["refs"] == a.NONE
        assert w.slots[s]["n_refs"] == 0
    for s in running:
        slot = w.slots[s]
        mine = [int(w.refs[ref]["block"]) for ref in chain(w.refs, slot["refs"])]
        assert len(mine) == slot["n_refs"]
        assert len(set(mine)) == len(mine)
        assert all(first <= block < last for block in mine)
        holds.update(mine)
        n_holds += len(mine)
        tokens = _now_computed(w, r, s)
        if rep["prepaid"] == 1:
            tokens += 1 if slot["heap_pos"] != a.NONE else int(slot["sched"])
        blocks = max(int(slot["blocks"]), _blocks(tokens, bs))
        assert blocks >= len(mine)
        alone += blocks - len(mine)
    for block, n in holds.items():
        assert w.blocks[block]["refs"] == n
    return len(holds), n_holds, alone


def _free(w: Any, r: int, total: int, held: int) -> None:
    rep = w.reps[r]
    assert rep["plain"] >= 0
    assert rep["free"] + held == total, f"{rep['free']} free + {held} held of {total}"
    queue = chain(w.blocks, rep["lru_head"])
    assert queue[::-1] == chain(w.blocks, rep["lru_tail"], "prev")
    runs = [e for e in queue if e >= rep["run_at"]]
    cached = [e for e in queue if e < rep["run_at"]]
    assert all(w.blocks[e]["count"] >= 1 for e in runs)
    assert all(w.blocks[e]["refs"] == 0 for e in cached)
    assert rep["free"] == rep["plain"] + sum(int(w.blocks[e]["count"]) for e in runs) + len(cached)
    for e in runs:
        owner = int(w.blocks[e]["owner"])
        if owner != a.NONE:
            assert w.slots[owner]["run"] == e
            assert w.slots[owner]["run_rep"] == r
    assert rep["n_runs"] == len(runs) + len(chain(w.blocks, rep["free_run"]))
    first = int(rep["block_at"])
    known = set(range(first, first + int(rep["n_blocks"]))) - set(chain(w.blocks, rep["free_block"]))
    assert known == set(cached) | {e for e in known if w.blocks[e]["refs"] > 0}
    hashed: list[int] = []
    for bucket in range(int(rep["bucket_at"]), int(rep["bucket_at"] + rep["buckets"])):
        if w.buckets[bucket] != a.NONE:
            members = chain(w.blocks, w.buckets[bucket], "chain")
            mask = int(rep["buckets"]) - 1
            assert all(int(w.blocks[e]["key"]) & mask == bucket - rep["bucket_at"] for e in members)
            hashed += members
    assert sorted(hashed) == sorted(known)
