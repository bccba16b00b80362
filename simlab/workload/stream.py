"""What the engine reads of one workload class: chunks of arrivals, and the laws of what it draws itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simlab.draws import Distribution
from simlab.workload.lengths import JointTable


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some arrivals of one class, in order.

    Args:
        arrival_s: f8[n], ascending, s from the start of the run.
        prompt_tokens: i8[n] or None: the engine draws prompts.
        output_tokens: i8[n] or None: the engine draws outputs.
        segment_ptr: i8[n + 1]: request i's prompt begins with segments ``segment_ptr[i]:segment_ptr[i + 1]``.
        segment_id: i8[m], >= 0; an equal chain of ids is an equal beginning of a prompt.
        segment_tokens: i8[m], tokens of each segment, >= 1; the chain is never longer than the prompt.
        query: i8[n] or None: which question is asked; equal ids are the same question.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64] | None = None
    output_tokens: NDArray[np.int64] | None = None
    segment_ptr: NDArray[np.int64] | None = None
    segment_id: NDArray[np.int64] | None = None
    segment_tokens: NDArray[np.int64] | None = None
    query: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)


class Source(Protocol):
    """Anything that yields chunks."""

    def next_chunk(self) -> Chunk | None:
        """The next chunk, or None when there are no more arrivals."""


@dataclass(frozen=True)
class Load:
    """What a stream asks of a deployment on average, for pre-flight checks.

    Args:
        mean_rate_rps: requests (turns of sessions and calls of agents included) per second over the horizon; closed
            loop: the most its users can offer, infinite without think time.
        peak_rate_rps: the highest rate of any piece of the rate function, 1/s.
        mean_prompt_tokens: tokens, shared prefixes and session history included.
        mean_output_tokens: tokens.
    """

    mean_rate_rps: float
    peak_rate_rps: float
    mean_prompt_tokens: float
    mean_output_tokens: float


@dataclass
class Stream:
    """The traffic of one class, deterministic in (seed, class index).

    Args:
        source: where arrivals come from; None for a closed loop.
        measure: works out the mean load on first use (for a trace it reads the file once).
        closed_users: users of a closed loop; 0 for open arrivals.
        think: closed loop and sessions: time from an answer to the next request, s.
        prompt: law of prompt lengths (of the new text, for sessions), tokens; None when chunks or ``joint`` say it.
        output: law of output lengths, tokens; likewise.
        joint: pairs of lengths, when they are drawn together.
        turns: turns of a session; None for single requests.
        assumptions: what a reader of results must know about this traffic.
    """

    source: Source | None
    measure: Callable[[], Load]
    closed_users: int = 0
    think: Distribution | None = None
    prompt: Distribution | None = None
    output: Distribution | None = None
    joint: JointTable | None = None
    turns: Distribution | None = None
    assumptions: list[str] = field(default_factory=list)
    _load: Load | None = None

    def next_chunk(self) -> Chunk | None:
        """The next arrivals (at most 65536), or None when there are no more."""
        return None if self.source is None else self.source.next_chunk()

    @property
    def load(self) -> Load:
        """The mean load, worked out once."""
        if self._load is None:
            self._load = self.measure()
        return self._load
