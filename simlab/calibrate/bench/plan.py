"""The grid of benchmarks of one session: which loads, what each is to tell, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simlab.calibrate.bench.limits import Limits
from simlab.calibrate.run import Load

MOST_REQUESTS = 2000
"""Requests of a point at most: more tell little more, and the result file grows with them."""

_FEWEST = 8
_FEWEST_OPEN = 40


@dataclass(frozen=True)
class Point:
    """One benchmark to run.

    Attributes:
        tells: which coefficients it identifies, in words.
        load: how the server is driven; ``requests`` None: as many as fit in ``seconds``.
        seconds: how long it should take, s; the fewest requests that make sense may take longer.
        share: for an open loop, the rate as a share of the capacity measured before at the same lengths; None where
            ``load`` says the rate.
        seed: of its lengths, prompts and arrivals.
    """

    tells: str
    load: Load
    seconds: float = 20.0
    share: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """The operating point in short, which names its files; a rate that is a share of the capacity is ``u``.

        >>> Point("", Load(prompt_tokens=512, output_tokens=128), share=0.6).name
        'i512-o128-u0.6'
        >>> Point("", Load(prompt_tokens=512, output_tokens=128)).name
        'i512-o128-inf'
        """
        unlimited = self.load.concurrency is None and math.isinf(self.load.rate_rps)
        if not unlimited:
            return self.load.point
        word = "inf" if self.share is None else f"u{self.share:g}"
        return self.load.point.replace(f"-n{self.load.requests}", f"-{word}", 1)

    @property
    def open(self) -> bool:
        """Whether requests are sent at a rate, whatever becomes of the earlier ones."""
        return self.share is not None or math.isfinite(self.load.rate_rps)

    @property
    def longest(self) -> float:
        """Tokens of the longest request."""
        return (self.load.prompt_tokens + self.load.output_tokens) * self.load.high

    def like(self, other: Point) -> bool:
        """Whether requests of both are alike, so that the capacity of one is that of the other."""
        mine, its = self.load, other.load
        return (mine.prompt_tokens, mine.output_tokens, mine.shared_tokens, mine.shared_kinds) == (
            its.prompt_tokens, its.output_tokens, its.shared_tokens, its.shared_kinds,
        )  # fmt: skip

    def settled(self, throughput_rps: float, capacity_rps: float) -> Load:
        """The load with its number of requests and its rate.

        Args:
            throughput_rps: requests/s that the server is expected to finish at this point.
            capacity_rps: requests/s that it can finish at these lengths; only used with ``share``.
        """
        load = self.load if self.share is None else replace(self.load, rate_rps=_rounded(self.share * capacity_rps))
        if load.requests is not None:
            return load
        rate = min(load.rate_rps, throughput_rps) if self.open else throughput_rps
        fewest = _FEWEST_OPEN if self.open else max(_FEWEST, 2 * (load.concurrency or 32))
        requests = min(max(math.ceil(self.seconds * rate), fewest), MOST_REQUESTS)
        # Every kind of beginning is used equally often.
        kinds = load.shared_kinds
        return replace(load, requests=math.ceil(requests / kinds) * kinds)


@dataclass(frozen=True)
class Plan:
    """The points of a session.

    Attributes:
        name: ``quick``, ``full`` or the file's name.
        points: in any order; names are unique.
        designed: points that a server cannot hold are left out rather than measured; so it is with our own grids, but
            who writes a plan may want to see a server preempt.
    """

    name: str
    points: tuple[Point, ...]
    designed: bool = True

    def left_out(self, limits: Limits) -> dict[str, str]:
        """Points that a server's limits do not allow, by name, and why."""
        found: dict[str, str] = {}
        for point in self.points:
            load = point.load
            own = load.prompt_tokens - load.shared_tokens + load.output_tokens
            tokens = (load.concurrency or 1) * own + load.shared_kinds * load.shared_tokens
            if limits.max_model_len is not None and point.longest > limits.max_model_len:
                found[point.name] = f"{point.longest:.0f} tokens are above max_model_len {limits.max_model_len}"
            elif self.designed and (load.concurrency or 1) > limits.sequences:
                found[point.name] = f"concurrency {load.concurrency} is above max_num_seqs {limits.sequences}"
            elif self.designed and limits.kv_tokens is not None and tokens > limits.kv_tokens:
                found[point.name] = f"{tokens:.0f} tokens at once do not fit in the KV cache of {limits.kv_tokens}"
        return found


def in_rounds(points: Sequence[Point]) -> list[Point]:
    """The order in which points are measured: most told for the fewest minutes first.

    One point of each kind (``tells``) in turn, the quickest of a kind before its others, kinds in the order of their
    first point: whenever a session is cut short, all coefficients have been measured about equally well. A point whose
    rate is a share of the capacity comes after one that measures this capacity.
    """
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(point.tells, []).append(point)
    queues = [sorted(group, key=lambda point: (point.seconds, point.load.concurrency or 0)) for group in kinds.values()]
    turns = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    ordered: list[Point] = []
    for point in turns:
        if point.share is not None and not any(point.like(other) for other in ordered if other.share is None):
            sources = [other for other in turns if other.share is None and point.like(other)]
            ordered += sources[-1:]
        if point not in ordered:
            ordered.append(point)
    return ordered


def _rounded(rate_rps: float) -> float:
    """Three digits: the command is read by people, and the capacity is not known any better."""
    return float(f"{rate_rps:.3g}")
