"""Prompt and output lengths that belong together: a table of equally likely pairs, and how one is condensed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
"""Probabilities at which lengths are summarised."""


@dataclass(frozen=True, eq=False)
class JointTable:
    """Equally likely (prompt, output) pairs: row ``floor(u · k)`` is drawn by one uniform number u.

    Args:
        prompt: i8[k], tokens, >= 1.
        output: i8[k], tokens, >= 1.
    """

    prompt: NDArray[np.int64]
    output: NDArray[np.int64]

    @classmethod
    def from_pairs(cls, prompt: ArrayLike, output: ArrayLike) -> JointTable:
        """A table of the pairs as they are; lengths below one token count as one."""
        table = cls(
            np.maximum(np.asarray(prompt, dtype=np.int64), 1), np.maximum(np.asarray(output, dtype=np.int64), 1)
        )
        if len(table.prompt) == 0 or table.prompt.shape != table.output.shape or table.prompt.ndim != 1:
            raise ValueError(
                f"a joint table needs as many prompts as outputs, got {len(table.prompt)} and {len(table.output)}"
            )
        return table

    @property
    def mean_prompt_tokens(self) -> float:
        """Mean prompt length, tokens."""
        return float(self.prompt.mean())

    @property
    def mean_output_tokens(self) -> float:
        """Mean output length, tokens."""
        return float(self.output.mean())

    def condensed(self, rows: int = 1000) -> JointTable:
        """A smaller table with the same marginals and nearly the same dependence.

        Each marginal is replaced by the means of ``rows`` equal groups of its sorted values, which keeps the mean (up
        to rounding to whole tokens) and every quantile to 1 / rows. They are coupled as the data are: sorted by
        prompt, cut into about √rows strata, each stratum sorted by output and thinned evenly, and the rank of a kept
        pair among the kept ones picks its group in each marginal.

        Returns:
            The table itself when it has no more than ``rows`` pairs.
        """
        count = len(self.prompt)
        if count <= rows:
            return self
        strata = max(1, round(rows**0.5))
        by_prompt = np.lexsort((self.output, self.prompt))
        kept: list[NDArray[np.int64]] = []
        quota = np.diff(np.round(np.linspace(0, rows, strata + 1)).astype(np.int64))
        for stratum, wanted in zip(np.array_split(by_prompt, strata), quota, strict=True):
            by_output = stratum[np.lexsort((self.prompt[stratum], self.output[stratum]))]
            places = ((np.arange(wanted) + 0.5) / wanted * len(by_output)).astype(np.int64)
            kept.append(by_output[places])
        chosen = np.concatenate(kept)
        return JointTable(
            _marginal(self.prompt, rows)[_ranks(self.prompt[chosen])],
            _marginal(self.output, rows)[_ranks(self.output[chosen])],
        )


def _marginal(values: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Means of ``rows`` equal groups of the sorted values, rounded so that the running sum stays right."""
    ordered = np.sort(values).astype(np.float64)
    cumulative = np.concatenate(([0.0], np.cumsum(ordered)))
    cuts = np.linspace(0.0, len(ordered), rows + 1)
    sums = np.interp(cuts, np.arange(len(ordered) + 1), cumulative)
    means = np.diff(sums) * rows / len(ordered)
    rounded = np.diff(np.round(np.concatenate(([0.0], np.cumsum(means))))).astype(np.int64)
    return np.maximum(np.sort(rounded), 1)


def _ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks
