"""Work on several processes, where it is worth starting them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

_WORTH_PROCESSES_S = 3.0
"""Work below this is done here: each process takes about as long to load the compiled engine."""


def in_parallel(
    job: Callable[[S], T],
    items: Sequence[S],
    *,
    workers: int | None = None,
    finished: Callable[[int], None] | None = None,
) -> list[T]:
    """The job's result for each item, in the order of the items, whatever the number of workers.

    Args:
        job: a function of a module, or a partial of one: it may travel to another process.
        items: what it is called with, one by one.
        workers: processes to use; None: one for each core.
        finished: called with the number of items that are done.
    """
    said = finished or (lambda done: None)
    workers = workers or os.cpu_count() or 1
    results: dict[int, T] = {}
    began = time.perf_counter()
    for i, item in enumerate(items):
        left = len(items) - i
        spent = time.perf_counter() - began
        # The first item pays for loading what is compiled, and is not typical of the rest.
        if workers > 1 and left > 1 and i > 1 and spent / i * left > _WORTH_PROCESSES_S:
            break
        results[i] = job(item)
        said(len(results))
    if len(results) < len(items):
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            futures = {pool.submit(job, item): i for i, item in enumerate(items) if i not in results}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                said(len(results))
    return [results[i] for i in range(len(items))]
