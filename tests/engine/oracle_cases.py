"""The workloads whose answers vLLM's own scheduler has given: what is asked, not what was answered."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

H100_LIKE = {"base_s": 6e-3, "per_prefill_token_s": 3e-5, "per_decode_seq_s": 2e-5, "per_context_token_s": 4e-9}
CONTEXT_HEAVY = {"base_s": 2e-3, "per_prefill_token_s": 8e-5, "per_decode_seq_s": 1.5e-4, "per_context_token_s": 2e-7}
# Powers of two: every sum is exact, so an arrival can fall on the very end of a step.
EXACT = {"base_s": 2**-7, "per_prefill_token_s": 2**-14, "per_decode_seq_s": 2**-12, "per_context_token_s": 2**-22}

Row = dict[str, Any]


class Case(NamedTuple):
    """One workload on one replica."""

    name: str
    requests: list[Row]
    limits: dict[str, Any]


def limits(
    seqs: int = 64,
    budget: int = 2048,
    blocks: int = 4000,
    block_size: int = 16,
    caching: bool = False,
    step_time: dict[str, float] = H100_LIKE,
    scheduling: str = "fcfs",
) -> dict[str, Any]:
    """The parameters of a replica under the names of `simlab.replay`."""
    return {
        "step_time": step_time,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": budget,
        "kv_blocks": blocks,
        "block_size": block_size,
        "prefix_caching": caching,
        "scheduling": scheduling,
    }


def chat(
    n: int,
    rate_rps: float,
    seed: int,
    prompt: tuple[int, int] = (20, 900),
    output: tuple[int, int] = (1, 160),
    burst: int = 1,
) -> list[Row]:
    """Poisson arrivals (of `burst` requests at once) with log-uniform lengths."""
    random = Random(seed)
    now, rows = 0.0, []
    for i in range(n):
        if i % burst == 0:
            now += random.expovariate(rate_rps / burst)
        lengths = [round(lo * (hi / lo) ** random.random()) for lo, hi in (prompt, output)]
        rows.append({"arrival_s": round(now, 7), "prompt_tokens": lengths[0], "output_tokens": lengths[1]})
    return rows


def documents(
    rows: list[Row], seed: int, count: int, tokens: tuple[int, int], system: int = 0, whole: int = 0
) -> list[Row]:
    """Puts a system prompt and a popular document in front; every `whole`-th prompt has nothing of its own."""
    random = Random(seed)
    length = [random.randint(*tokens) for _ in range(count)]
    for i, row in enumerate(rows):
        doc = min(int(random.paretovariate(0.9)) - 1, count - 1)
        chain = [[900_000, system]] if system else []
        chain.append([doc, length[doc]])
        row["segments"] = chain
        own = 0 if whole and i % whole == 0 else row["prompt_tokens"]
        row["prompt_tokens"] = sum(size for _, size in chain) + own
    return rows


def sessions(users: int, turns: int, seed: int) -> list[Row]:
    """Conversations: every turn begins with all segments of the turn before, and adds one."""
    random = Random(seed)
    rows = []
    for user in range(users):
        now, chain = random.uniform(0, 5), [[900_000, 100]]
        for turn in range(turns):
            chain = [*chain, [user * 1000 + turn, random.randint(5, 120)]]
            rows.append(
                {
                    "arrival_s": round(now, 7),
                    "prompt_tokens": sum(size for _, size in chain) + (random.randint(1, 30) if turn % 3 else 0),
                    "output_tokens": random.randint(1, 60),
                    "segments": chain,
                }
            )
            now += random.expovariate(0.5)
    return sorted(rows, key=lambda row: row["arrival_s"])


def ranked(rows: list[Row], seed: int, levels: int = 3) -> list[Row]:
    """Gives every row a priority."""
    random = Random(seed)
    for row in rows:
        row["priority"] = random.randrange(levels)
    return rows


def on_a_grid(rows: list[Row], ticks_per_s: int) -> list[Row]:
    """Moves arrivals to exact binary fractions of a second, where they meet the ends of `EXACT` steps."""
    for row in rows:
        row["arrival_s"] = round(row["arrival_s"] * ticks_per_s) / ticks_per_s
    return rows


def cases() -> Iterator[Case]:
    """Every case, in a fixed order."""
    yield Case("light", chat(80, 2.0, 1), limits())
    yield Case("saturated", chat(160, 200.0, 2), limits(seqs=32))
    yield Case("preempting", chat(90, 60.0, 3, (50, 400), (40, 300)), limits(blocks=130))
    yield Case("preempting-hard", chat(60, 90.0, 4, (8, 60), (150, 420)), limits(blocks=60, budget=256))
    rows = documents(chat(90, 60.0, 5, (5, 200), (40, 250)), 6, 8, (30, 300), system=50)
    yield Case("preempting-cached", rows, limits(blocks=140, caching=True))
    rows = documents(chat(60, 90.0, 7, (1, 30), (100, 300)), 8, 5, (10, 60), whole=3)
    yield Case("preempting-hard-cached", rows, limits(blocks=110, block_size=8, budget=128, caching=True))
    yield Case("own-cache-only", chat(70, 60.0, 9, (30, 300), (60, 300)), limits(blocks=120, caching=True))
    yield Case(
        "small-budget", chat(60, 8.0, 10, (50, 1500), (1, 80)), limits(seqs=16, budget=64, step_time=CONTEXT_HEAVY)
    )
    yield Case("budget-is-seqs", chat(50, 20.0, 11, (10, 300), (1, 80)), limits(seqs=24, budget=24))
    yield Case("few-seqs", chat(60, 10.0, 12), limits(seqs=3))
    yield Case("one-seq", chat(30, 10.0, 13, (10, 300), (1, 40)), limits(seqs=1, budget=128))
    rows = documents(chat(100, 20.0, 14, (5, 200), (1, 80)), 15, 12, (50, 700), system=133)
    yield Case("shared-prefix", rows, limits(caching=True))
    rows = documents(chat(120, 12.0, 16, (5, 120), (1, 60)), 17, 40, (100, 900))
    yield Case("evicting", rows, limits(blocks=150, caching=True, step_time=CONTEXT_HEAVY))
    rows = documents(chat(90, 30.0, 18, (1, 60), (1, 40), burst=3), 19, 6, (500, 1500), whole=4)
    yield Case("documents-over-budget", rows, limits(budget=256, blocks=1200, caching=True))
    rows = documents(chat(80, 40.0, 20, (16, 16), (1, 70), burst=2), 21, 5, (1, 6), whole=1)
    for row in rows:  # whole blocks only: the last one must be computed again
        row["segments"] = [[name, size * 16] for name, size in row["segments"]]
        row["prompt_tokens"] *= 16
    yield Case("whole-blocks", rows, limits(blocks=90, caching=True))
    yield Case("bursts", chat(120, 12.0, 22, burst=30), limits(seqs=20, budget=1024))
    rows = documents(chat(60, 60.0, 23, (1, 60), (1, 60)), 24, 6, (5, 90), whole=5)
    yield Case("block-1", rows, limits(blocks=400, block_size=1, budget=100, caching=True))
    rows = documents(chat(80, 60.0, 25, (5, 300), (1, 120)), 26, 10, (20, 500))
    yield Case("block-32", rows, limits(blocks=60, block_size=32, caching=True))
    rows = documents(chat(80, 60.0, 27, (5, 600), (1, 200)), 28, 10, (100, 900), system=60)
    yield Case("block-128", rows, limits(blocks=40, block_size=128, budget=512, caching=True))
    yield Case("one-token", chat(120, 100.0, 29, (5, 1200), (1, 1)), limits(budget=512))
    yield Case(
        "long-context",
        chat(30, 3.0, 30, (1500, 6000), (20, 300)),
        limits(blocks=500, budget=512, step_time=CONTEXT_HEAVY),
    )
    yield Case("sessions", sessions(14, 7, 31), limits(seqs=16, blocks=100, budget=256, caching=True))
    rows = documents(on_a_grid(chat(90, 50.0, 32, (2, 120), (1, 50), burst=2), 128), 33, 6, (10, 100), whole=4)
    yield Case("ties", rows, limits(seqs=12, blocks=30, budget=64, caching=True, step_time=EXACT))
    yield Case(
        "priority", ranked(chat(90, 60.0, 34, (50, 400), (20, 200)), 35), limits(blocks=120, scheduling="priority")
    )
    rows = ranked(documents(chat(80, 60.0, 36, (5, 150), (20, 200)), 37, 6, (30, 300), whole=4), 38)
    yield Case("priority-cached", rows, limits(seqs=24, blocks=110, budget=200, caching=True, scheduling="priority"))
