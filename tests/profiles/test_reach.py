"""How far beyond its measurements a profile is used, and what that does to its uncertainty."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.profiles import TERMS, Beyond, Profile, Reach, StepTime, Uncertainty, Validity, beyond, profiles, widened
from simlab.profiles.reach import NOTICED, SD_PER_LOG, may_go_beyond
from simlab.results import REPLICA_DTYPE

VALIDITY = Validity(max_decode_seqs=64, max_step_tokens=2048, max_context_tokens=4096)
WITHIN = Reach(64, 2048, 4096, busy_s=100.0, computed_tokens=10_000)
PROFILE = Profile(
    name="m.g.tp1.bf16",
    model="m",
    gpu="g",
    tp=1,
    precision="bf16",
    kind="measured",
    step_time=StepTime(base_s=0.01, per_seq_s=1e-4, per_kv_token_s=1e-8, linear=((1, 0.005), (8, 0.02))),
    uncertainty=Uncertainty(("base_s", "linear"), ((0.01, 0.002), (0.002, 0.04))),
    validity=VALIDITY,
)


def entry(profile: Profile, one: str, other: str) -> float:
    terms = profile.uncertainty.terms
    return profile.uncertainty.log_covariance[terms.index(one)][terms.index(other)]


def test_reach_is_read_from_the_meters_of_replicas() -> None:
    table = np.zeros(2, REPLICA_DTYPE)
    table["peak_seqs"], table["peak_tokens"], table["peak_context"] = [3, 5], [70, 60], [900, 1000]
    table["busy_s"], table["beyond_seqs_s"], table["beyond_tokens_s"] = [10, 20], [1, 2], [0, 4]
    table["prefill_tokens"], table["decode_tokens"], table["beyond_context_tokens"] = [100, 200], [30, 40], [5, 6]
    assert Reach.of(table) == Reach(5, 70, 1000, 30.0, 3.0, 4.0, 370, 11)
    assert Reach.of(table[:1]) + Reach.of(table[1:]) == Reach.of(table)
    assert Reach.of(table[:0]) == Reach()


def test_within_what_was_measured_nothing_is_said() -> None:
    assert beyond(VALIDITY, WITHIN) == ()
    assert beyond(VALIDITY, Reach()) == ()
    assert widened(PROFILE, ()) is PROFILE


def test_nothing_is_known_to_be_exceeded_where_no_limit_is_known() -> None:
    assert beyond(Validity(), Reach(10**6, 10**6, 10**6, 1.0, 1.0, 1.0, 10, 10)) == ()


def test_each_limit_has_its_share() -> None:
    far = Reach(128, 8192, 5000, 100.0, 25.0, 100.0, 10_000, 100)
    seqs, tokens, context = beyond(VALIDITY, far)
    assert (seqs.limit, seqs.measured, seqs.reached, seqs.share) == ("max_decode_seqs", 64, 128, 0.25)
    assert (tokens.limit, tokens.measured, tokens.reached, tokens.share) == ("max_step_tokens", 2048, 8192, 1.0)
    assert (context.limit, context.measured, context.reached, context.share) == ("max_context_tokens", 4096, 5000, 0.01)
    assert seqs.log_sd == pytest.approx(0.5 * SD_PER_LOG * math.log(2))
    assert tokens.log_sd == pytest.approx(SD_PER_LOG * math.log(4))
    assert "up to 128 sequences decoding at once, measured up to 64 (beyond for 25% of the busy time)" in seqs.sentence
    assert f"{math.expm1(tokens.log_sd):.0%} more uncertainty" in tokens.sentence


def test_a_moment_beyond_is_not_worth_a_word() -> None:
    moment = replace(WITHIN, seqs=65, beyond_seqs_s=0.99 * NOTICED * WITHIN.busy_s)
    assert beyond(VALIDITY, moment) == ()
    assert beyond(VALIDITY, replace(moment, beyond_seqs_s=1.01 * NOTICED * WITHIN.busy_s))


def test_the_terms_concerned_are_off_together_and_no_others() -> None:
    far = Beyond("max_decode_seqs", 64, 256, 1.0)
    wide = widened(PROFILE, [far])
    extra = far.log_sd**2
    assert set(wide.uncertainty.terms) == {"base_s", "linear", "per_seq_s"}
    assert entry(wide, "base_s", "base_s") == 0.01
    assert entry(wide, "base_s", "linear") == 0.002
    assert entry(wide, "linear", "linear") == pytest.approx(0.04 + extra)
    assert entry(wide, "per_seq_s", "per_seq_s") == pytest.approx(extra)
    assert entry(wide, "per_seq_s", "linear") == pytest.approx(extra)
    assert wide.step_time == PROFILE.step_time


def test_two_limits_add_up() -> None:
    seqs, tokens = Beyond("max_decode_seqs", 64, 128, 1.0), Beyond("max_step_tokens", 2048, 4096, 0.5)
    both = widened(PROFILE, [seqs, tokens])
    assert entry(both, "linear", "linear") == pytest.approx(0.04 + seqs.log_sd**2 + tokens.log_sd**2)


def test_a_profile_without_the_terms_concerned_is_less_sure_of_its_base() -> None:
    plain = replace(PROFILE, step_time=StepTime(base_s=0.01), uncertainty=Uncertainty())
    wide = widened(plain, [Beyond("max_context_tokens", 4096, 8192, 1.0)])
    assert wide.uncertainty.relative_sd() == {"base_s": pytest.approx(SD_PER_LOG * math.log(2))}


@given(
    st.sampled_from(sorted(profiles())),
    st.lists(st.tuples(st.integers(1, 20), st.floats(NOTICED, 1.0)), min_size=3, max_size=3),
)
def test_a_widened_profile_is_a_profile_that_can_be_drawn(name: str, how: list[tuple[int, float]]) -> None:
    known = profiles()[name]
    limits = ("max_decode_seqs", "max_step_tokens", "max_context_tokens")
    found = [Beyond(limit, 100, 100 * times, share) for limit, (times, share) in zip(limits, how, strict=True)]
    wide = widened(known, found)
    before, after = known.uncertainty.relative_sd(), wide.uncertainty.relative_sd()
    assert all(after[term] >= sd - 1e-12 for term, sd in before.items())
    assert wide.sampled([0.0] * len(after)) == known.step_time
    wide.sampled([1.0] * len(after))


def test_the_terms_are_those_of_a_step_time() -> None:
    for limit in ("max_decode_seqs", "max_step_tokens", "max_context_tokens"):
        terms = Beyond(limit, 1, 2, 1.0).terms
        assert terms
        assert set(terms) <= set(TERMS)


def test_what_a_plan_may_do_is_said_beforehand() -> None:
    most = {"max_decode_seqs": 256.0, "max_step_tokens": 2048.0, "max_context_tokens": 9000.4}
    assert may_go_beyond(VALIDITY, most) == [
        "up to 256 sequences decoding at once (measured up to 64)",
        "up to 9,000 tokens of context (measured up to 4,096)",
    ]
    assert may_go_beyond(Validity(), most) == []
