"""Estimates and KV blocks: limits a data sheet sets, and how they move with the set-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.errors import InputError
from simlab.profiles import Efficiency, estimate, gpu, kv_blocks, model, models, profiles, roofline, select
from simlab.profiles.roofline import touched_experts

PERFECT = Efficiency(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)


def test_one_sequence_cannot_beat_the_weights_at_peak_bandwidth():
    law = roofline(model("llama-3.1-8b"), gpu("h100"), 1, "bf16", PERFECT)
    floor = model("llama-3.1-8b").step_weight_bytes("bf16") / 3350e9
    assert law.step_s(0, 1, 0) == pytest.approx(floor, rel=1e-3)


def test_a_large_prefill_cannot_beat_peak_flops():
    law = roofline(model("llama-3.1-8b"), gpu("h100"), 1, "bf16", PERFECT)
    floor = 2 * model("llama-3.1-8b").active_parameters * 8192 / 989e12
    assert law.step_s(8192, 0, 0) == pytest.approx(floor, rel=0.01)


def test_kv_is_read_at_peak_bandwidth():
    law = roofline(model("llama-3.1-8b"), gpu("h100"), 1, "bf16", PERFECT)
    assert law.per_kv_token_s == pytest.approx(131072 / 3350e9)


def test_latent_kv_is_not_split_over_gpus():
    one, eight = (roofline(model("deepseek-r1"), gpu("h200"), tp, "fp8", PERFECT) for tp in (1, 8))
    assert one.per_kv_token_s == eight.per_kv_token_s


@given(st.integers(0, 2000), st.integers(0, 500))
def test_touched_experts_rise_to_all(tokens, more):
    here, there = touched_experts(tokens, 128, 4), touched_experts(tokens + more, 128, 4)
    assert 0 <= here <= there <= 1


@pytest.mark.parametrize("name", sorted(models()))
def test_every_model_can_be_estimated(name):
    profile = estimate(name, "b200", 8)
    assert profile.kind == "estimated"
    assert 1e-3 < profile.step_time.step_s(0, 1, 1000) < 0.1
    assert min(profile.uncertainty.relative_sd().values()) >= 0.2


def test_more_or_better_gpus_are_faster():
    times = [estimate("llama-3.1-70b", "h100", tp, "bf16").step_time.step_s(0, 32, 64_000) for tp in (2, 4, 8)]
    assert times == sorted(times, reverse=True)
    slow, fast = (estimate("llama-3.1-8b", card, 1, "bf16").step_time.step_s(0, 8, 8000) for card in ("l4", "h100"))
    assert slow > 3 * fast


def test_an_estimate_learns_from_the_measured_ones():
    measured = [one for one in profiles().values() if one.kind == "measured"]
    alone, taught = (estimate("qwen3-8b", "h100", 1, "bf16", measured=some) for some in ([], measured))
    assert alone.fitted_on == ()
    assert len(taught.fitted_on) >= 10
    assert alone.step_time != taught.step_time


def test_select_prefers_a_measurement():
    assert select("Llama-3.1-70B-Instruct", "H100", 4, "fp8").kind == "measured"
    assert select("llama-3.1-8b", "h100-sxm").kind == "estimated"
    assert select("qwen3-14b", "l40s", 2).name == "qwen3-14b.l40s.tp2.bf16"


def test_select_takes_the_twin_of_the_same_architecture():
    assert select("llama-3.3-70b", "h100", 4, "fp8").name == "llama-3.1-70b.h100-sxm.tp4.fp8"


def test_select_takes_the_published_precision():
    assert select("gpt-oss-120b", "h200", 1).precision == "fp4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lama-3.1-8b", "h100"), "did you mean llama-3.1-8b"),
        (("llama-3.1-8b", "h10"), "unknown GPU"),
        (("llama-3.1-8b", "h100", 1, "fp16"), "need a precision of bf16, fp8, fp4, int4"),
        (("llama-3.1-8b", "h100", 0), "tp >= 1"),
    ],
)
def test_select_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        select(*arguments)


def test_kv_blocks_closed_form():
    # 79.65 GiB x 0.985 x 0.9, less 14.96 GiB of weights and the reserve, in blocks of 2 MiB.
    budget = 81559 * 2**20 * 0.985 * 0.9
    reserve = 1.5 * 2**30 + 8192 * (6 * 4096 + 3 * 14336) * 2 + 2 * 256 * 128256 * 4
    blocks = (budget - model("llama-3.1-8b").weight_bytes("bf16") - reserve) // 2**21
    assert kv_blocks("llama-3.1-8b", "h100", 1, "bf16", 16, 0.9) == blocks


@given(st.sampled_from(["llama-3.1-8b", "qwen3-32b", "gpt-oss-120b"]), st.floats(0.85, 0.98), st.sampled_from([2, 4]))
def test_kv_blocks_grow_with_memory(name, utilization, tp):
    here = kv_blocks(name, "h200", tp, None, 16, utilization)
    assert kv_blocks(name, "h200", tp, None, 16, utilization + 0.01) > here
    assert kv_blocks(name, "h200", 2 * tp, None, 16, utilization) > here
    assert kv_blocks(name, "h200", tp, None, 16, utilization, kv_precision="fp8") >= 2 * here
    assert kv_blocks(name, "b300", tp, None, 16, utilization) > here


def test_weights_that_do_not_fit_say_how_many_gpus_would():
    with pytest.raises(InputError, match=r"llama-3.1-70b at bf16 needs 131.4 GiB.*use tp: 2"):
        kv_blocks("llama-3.1-70b", "h100", 1)
    with pytest.raises(InputError, match="use a GPU with more memory"):
        kv_blocks("kimi-k2", "l4", 16)


@pytest.mark.parametrize(("tp", "block", "share"), [(0, 16, 0.9), (1, 0, 0.9), (1, 16, 0.0), (1, 16, 1.5)])
def test_kv_blocks_refuse_impossible_numbers(tp, block, share):
    with pytest.raises(InputError, match="block_size >= 1"):
        kv_blocks("llama-3.1-8b", "h100", tp, None, block, share)


@pytest.mark.parametrize(("gpus", "tokens"), [(4, 1_901_504), (8, 3_305_376)])
def test_kv_blocks_are_near_what_a_server_logged(gpus, tokens):
    # vLLM 0.19.1 serving DeepSeek-R1 FP4 with an FP8 cache on B200 (InferenceX start-up logs).
    blocks = kv_blocks("deepseek-r1", "b200", gpus, "fp4", 16, 0.9, kv_precision="fp8")
    assert blocks * 16 == pytest.approx(tokens, rel=0.10)
