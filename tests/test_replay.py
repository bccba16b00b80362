"""`simlab.replay`: what goes in, what comes out, and what is told to those who put in something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from simlab.errors import InputError
from simlab.one_replica import replay

STEP = {"base_s": 0.125, "per_prefill_token_s": 0.0, "per_decode_seq_s": 0.0, "per_context_token_s": 0.0}
LIMITS: dict[str, Any] = {
    "step_time": STEP,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 64,
    "kv_blocks": 33,
    "block_size": 4,
}
COLUMNS = ["first_token_s", "finish_s", "preemptions", "cached_tokens"]


def requests(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"arrival_s": [0.0, 1.0], "prompt_tokens": [8, 8], "output_tokens": [3, 1]} | columns)


def test_each_token_takes_a_step() -> None:
    answer = replay(requests(), **LIMITS)
    assert answer.columns.tolist() == COLUMNS
    assert answer.dtypes.tolist() == [np.float64, np.float64, np.int64, np.int64]
    assert answer["first_token_s"].tolist() == [0.125, 1.125]
    assert answer["finish_s"].tolist() == [0.375, 1.125]
    assert answer["preemptions"].tolist() == answer["cached_tokens"].tolist() == [0, 0]


def test_step_time_is_the_formula_of_its_four_coefficients() -> None:
    step = {"base_s": 1.0, "per_prefill_token_s": 0.01, "per_decode_seq_s": 0.1, "per_context_token_s": 0.001}
    answer = replay(requests(arrival_s=[0.0, 0.0]), **(LIMITS | {"step_time": step}))
    first = 1.0 + 0.01 * 16 + 0.001 * 16
    second = first + 1.0 + 0.1 + 0.001 * 9
    np.testing.assert_allclose(answer["first_token_s"], [first, first])
    np.testing.assert_allclose(answer["finish_s"], [second + 1.0 + 0.1 + 0.001 * 10, first])


def test_a_recomputed_request_of_one_token_is_prefill_when_it_has_no_output_yet() -> None:
    step = STEP | {"per_prefill_token_s": 1.0, "per_decode_seq_s": 100.0}
    answer = replay(requests(prompt_tokens=[1, 1], output_tokens=[1, 1]), **(LIMITS | {"step_time": step}))
    assert (answer["finish_s"] - [0.0, 1.125]).tolist() == [1.125, 1.125]


def test_the_index_is_kept_and_rows_stay_where_they_are() -> None:
    frame = requests().set_axis(["late", "early"], axis=0).assign(arrival_s=[5.0, 0.0])
    answer = replay(frame, **LIMITS)
    assert answer.index.tolist() == ["late", "early"]
    assert answer["first_token_s"].tolist() == [5.125, 0.125]


def test_any_order_of_rows_gives_the_same_answers() -> None:
    random = np.random.default_rng(1)
    n = 60
    frame = pd.DataFrame(
        {
            "arrival_s": np.sort(random.uniform(0, 20, n)),
            "prompt_tokens": random.integers(1, 60, n),
            "output_tokens": random.integers(1, 40, n),
        }
    )
    shuffled = frame.sample(frac=1.0, random_state=2)
    pd.testing.assert_frame_equal(replay(frame, **LIMITS), replay(shuffled, **LIMITS).sort_index())


def test_requests_that_arrive_together_are_served_in_the_order_given() -> None:
    frame = requests(arrival_s=[0.0, 0.0], output_tokens=[2, 2])
    one = LIMITS | {"max_num_seqs": 1}
    assert replay(frame, **one)["finish_s"].tolist() == [0.25, 0.5]
    assert replay(frame.iloc[::-1], **one)["finish_s"].tolist() == [0.25, 0.5]


def test_an_arrival_at_the_start_of_a_step_is_in_it() -> None:
    answer = replay(requests(arrival_s=[0.0, 0.125]), **LIMITS)
    assert answer["first_token_s"].tolist() == [0.125, 0.25]
    answer = replay(requests(arrival_s=[0.0, 0.126]), **LIMITS)
    assert answer["first_token_s"].tolist() == [0.125, 0.375]


def test_no_requests_no_answers() -> None:
    answer = replay(requests().iloc[:0], **LIMITS)
    assert answer.columns.tolist() == COLUMNS
    assert len(answer) == 0


def test_segments_are_shared_only_with_prefix_caching() -> None:
    frame = requests(segments=[[[1, 8]], [(1, 8)]], prompt_tokens=[10, 10])
    assert replay(frame, **LIMITS, prefix_caching=True)["cached_tokens"].tolist() == [0, 8]
    assert replay(frame, **LIMITS)["cached_tokens"].tolist() == [0, 0]


@pytest.mark.parametrize("nothing", [None, float("nan"), (), []])
def test_a_request_may_have_no_segments(nothing: Any) -> None:
    frame = requests(segments=pd.Series([nothing, [[1, 4]]], dtype=object))
    assert replay(frame, **LIMITS, prefix_caching=True)["cached_tokens"].tolist() == [0, 0]


def test_the_frame_is_left_as_it_was() -> None:
    frame = requests(segments=[[[1, 8]], [[1, 8]]])
    before = frame.copy(deep=True)
    replay(frame, **LIMITS, prefix_caching=True)
    pd.testing.assert_frame_equal(frame, before)


def test_a_request_that_just_fits_is_served() -> None:
    """32 blocks of 4 beside the null block: 128 tokens; the last generated one needs no place."""
    answer = replay(requests(prompt_tokens=[100, 128], output_tokens=[29, 1]), **LIMITS)
    assert np.isfinite(answer["finish_s"]).all()


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no column": ({"prompt_tokens": None}, {}, "prompt_tokens: column is missing from the requests"),
    "coefficient missing": (
        {},
        {"step_time": {"base_s": 1.0}},
        "step_time.per_prefill_token_s: must be a number >= 0, read None",
    ),
    "coefficient negative": (
        {},
        {"step_time": STEP | {"base_s": -1.0}},
        "step_time.base_s: must be a number >= 0, read -1.0",
    ),
    "coefficient nan": (
        {},
        {"step_time": STEP | {"base_s": float("nan")}},
        "step_time.base_s: must be a number >= 0, read nan",
    ),
    "coefficient text": (
        {},
        {"step_time": STEP | {"base_s": "fast"}},
        "step_time.base_s: must be a number >= 0, read 'fast'",
    ),
    "coefficient unknown": (
        {},
        {"step_time": STEP | {"bas_s": 1.0}},
        "step_time.bas_s: is not a coefficient; allowed are base_s, per_prefill_token_s, per_decode_seq_s, "
        "per_context_token_s",
    ),
    "no time": (
        {},
        {"step_time": STEP | {"base_s": 0.0}},
        "step_time: steps would take no time; give base_s a value above 0",
    ),
    "no places": ({}, {"max_num_seqs": 0}, "max_num_seqs: must be at least 1, read 0"),
    "no blocks": ({}, {"kv_blocks": 1}, "kv_blocks: must be at least 2, read 1"),
    "no block size": ({}, {"block_size": 0}, "block_size: must be at least 1, read 0"),
    "budget below places": (
        {},
        {"max_num_batched_tokens": 3},
        "max_num_batched_tokens: must be at least max_num_seqs (4), as in vLLM, read 3",
    ),
    "negative time": (
        {"arrival_s": [0.0, -1.0]},
        {},
        "row 1: arrival_s: must be a time in s from 0 to 1e9, read -1.0",
    ),
    "time nan": (
        {"arrival_s": [float("nan"), 1.0]},
        {},
        "row 0: arrival_s: must be a time in s from 0 to 1e9, read nan",
    ),
    "time inf": (
        {"arrival_s": [0.0, float("inf")]},
        {},
        "row 1: arrival_s: must be a time in s from 0 to 1e9, read inf",
    ),
    "no prompt": (
        {"prompt_tokens": [0, 8]},
        {},
        "row 0: prompt_tokens: must be a whole number of tokens from 1 to 1e9, read 0.0",
    ),
    "half a token": (
        {"output_tokens": [1.0, 2.5]},
        {},
        "row 1: output_tokens: must be a whole number of tokens from 1 to 1e9, read 2.5",
    ),
    "too long": (
        {"prompt_tokens": [8, 126], "output_tokens": [3, 4]},
        {},
        "row 1: prompt_tokens: request of 130 tokens can never run: the KV blocks hold 128 tokens; raise kv_blocks",
    ),
    "segments of text": (
        {"segments": ["abc", []]},
        {},
        "row 0: segments: must be a list of [id, tokens], read 'abc'",
    ),
    "segments flat": ({"segments": [[1, 2], []]}, {}, "row 0: segments: must be a list of [id, tokens], read [1, 2]"),
    "segments beyond the prompt": (
        {"segments": [[[1, 5], [2, 4]], []]},
        {},
        "row 0: segments: must have tokens >= 0 that add up to at most prompt_tokens (8), read 9",
    ),
    "segments negative": (
        {"segments": [[], [[1, 5], [2, -4]]]},
        {},
        "row 1: segments: must have tokens >= 0 that add up to at most prompt_tokens (8), read 1",
    ),
    "segment ids that are no numbers": (
        {"segments": [[["doc", 4]], []]},
        {},
        "row 0: segments: must be a list of [id, tokens], read [['doc', 4]]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_where_and_how(name: str) -> None:
    columns, limits, message = BAD[name]
    frame = requests(**{key: value for key, value in columns.items() if value is not None})
    frame = frame.drop(columns=[key for key, value in columns.items() if value is None])
    with pytest.raises(InputError) as caught:
        replay(frame, **(LIMITS | limits))
    assert f"replay: {message}" in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        replay(requests().drop(columns=["arrival_s"]), **(LIMITS | {"kv_blocks": 0, "block_size": 0, "step_time": {}}))
    assert len(caught.value.problems) == 4 + 1 + 1 + 1
