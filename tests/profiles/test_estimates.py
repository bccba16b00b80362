"""Estimates and KV blocks: limits a data sheet sets, and how they move with the set-up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.errors import InputError
from simlab.profiles import (
    Efficiency,
    Profile,
    Validity,
    estimate,
    gpu,
    gpus,
    kv_blocks,
    model,
    models,
    profiles,
    roofline,
    select,
)
from simlab.profiles.kernels import GENERATIONS, ring_share
from simlab.profiles.pooling import evidence, expected
from simlab.profiles.roofline import touched_experts, work

PERFECT = Efficiency(
    **dict.fromkeys((name for name in Efficiency().as_dict() if not name.endswith("_s")), 1.0),
    **dict.fromkeys((name for name in Efficiency().as_dict() if name.endswith("_s")), 0.0),
)


def test_one_sequence_cannot_beat_the_weights_at_peak_bandwidth():
    law = roofline(model("llama-3.1-8b"), gpu("h100"), 1, "bf16", PERFECT)
    floor = model("llama-3.1-8b").step_weight_bytes("bf16") / 3350e9
    assert law.step_s(0, 1, 0) == pytest.approx(floor, rel=1e-3)


def test_a_large_prefill_cannot_beat_peak_flops():
    entry = model("llama-3.1-8b")
    law = roofline(entry, gpu("h100"), 1, "bf16", replace(PERFECT, traffic=0.0))
    # The output layer computes for sampled tokens alone.
    body = entry.active_parameters - entry.embedding_parameters
    floor = 2 * (body * 8192 + entry.embedding_parameters * 256) / 989e12
    assert law.step_s(8192, 0, 0) == pytest.approx(floor, rel=0.01)
    assert roofline(entry, gpu("h100"), 1, "bf16", PERFECT).step_s(8192, 0, 0) > law.step_s(8192, 0, 0)


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
    assert 0.1 < spread(profile, 0, 16, 32_000) < 0.4
    assert 0.2 < spread(profile, 4096, 0, 0) < 0.6


def spread(profile, prompt, seqs, context):
    """Standard deviation of the logarithm of a step's time under the profile's uncertainty."""
    rng = np.random.default_rng(7)
    size = len(profile.uncertainty.terms)
    draws = [profile.sampled(rng.standard_normal(size)).step_s(prompt, seqs, context) for _ in range(400)]
    return float(np.std(np.log(draws)))


def test_an_estimate_without_any_profile_is_the_least_sure():
    alone = estimate("llama-3.1-70b", "a100", 4, measured=[])
    taught = estimate("llama-3.1-70b", "a100", 4)
    assert spread(alone, 0, 16, 32_000) > 1.05 * spread(taught, 0, 16, 32_000)
    assert alone.error == {}
    assert taught.error["tpot_other_hardware_median_ape"] < 0.2


def test_uncertainty_of_decodes_and_prompts_is_not_one_factor():
    profile = estimate("llama-3.1-70b", "h200", 4, "fp8")
    rng = np.random.default_rng(7)
    draws = [profile.sampled(rng.standard_normal(len(profile.uncertainty.terms))) for _ in range(600)]
    steps = np.log([(one.step_s(0, 16, 32_000), one.step_s(4096, 0, 0, 4096, 4096 * 4097 / 2)) for one in draws])
    assert 0.1 < np.corrcoef(steps.T)[0, 1] < 0.8


def test_the_efficiencies_come_back_from_a_step_time():
    # A profile made by the roofline itself: the regression finds its step-time again, whatever its record says.
    entry, card = model("llama-3.1-70b"), gpu("h100")
    truth = replace(expected(entry, card, "fp8"), bandwidth=0.6, layer_s=60e-6, eager_s=0.08, overhead_s=0.03)
    law = roofline(entry, card, 4, "fp8", truth)
    covered = Validity(64, 8192, 8192)
    seen = Profile("x", entry.name, card.name, 4, "fp8", "measured", law, validity=covered, efficiency=None)
    again = estimate(entry.name, card.name, 4, "fp8", measured=[seen]).step_time
    before = estimate(entry.name, card.name, 4, "fp8", measured=[]).step_time

    def off(found):
        states = [(0, 4, 8000), (0, 64, 300_000), (1024, 0, 0), (4096, 0, 0)]
        return [abs(found.step_s(*state) / law.step_s(*state) - 1) for state in states]

    assert max(off(again)) < 0.5 * max(off(before))
    assert max(off(again)) < 0.12


def test_a_server_without_cuda_graphs_teaches_nothing():
    entry, card = model("qwen3-235b-a22b"), gpu("h200")
    usual = expected(entry, card, "fp8")
    kinds = {}
    for name, layer_s in (("usual", usual.layer_s), ("eager", 8 * usual.layer_s)):
        law = roofline(entry, card, 4, "fp8", replace(usual, layer_s=layer_s))
        kinds[name] = evidence(Profile(name, entry.name, card.name, 4, "fp8", "measured", law))
    assert kinds["usual"] is not None
    assert kinds["eager"] is None


def test_a_profile_the_tables_do_not_know_teaches_nothing():
    law = roofline(model("llama-3.1-8b"), gpu("h100"), 1, "bf16", Efficiency())
    for named in ({"model": "my-model"}, {"gpu": "my-gpu"}, {"precision": "fp32"}):
        odd = {"model": "llama-3.1-8b", "gpu": "h100-sxm", "precision": "bf16", **named}
        assert evidence(Profile("x", tp=1, kind="measured", step_time=law, **odd)) is None


def test_ranks_share_the_experts_and_pay_for_it():
    one, spread_out = (
        estimate("deepseek-r1", "h200", 8, "fp8", dp=dp, expert_parallel=dp > 1, measured=[]) for dp in (1, 2)
    )
    assert spread_out.name == "deepseek-r1.h200-sxm.tp8.dp2.ep.fp8"
    assert (spread_out.dp, spread_out.expert_parallel) == (2, True)
    few = [law.step_time.step_s(0, 1, 1000) for law in (one, spread_out)]
    # Half of the experts to read with many tokens, two collectives more with few.
    assert few[1] > 0.9 * few[0]
    read = [
        work(model("deepseek-r1"), gpu("h200"), 8, "fp8", dp=dp, expert_parallel=True).expert_read_s for dp in (1, 2)
    ]
    assert read[0] == pytest.approx(2 * read[1])


def test_prompts_leave_the_cuda_graph():
    law = estimate("llama-3.1-70b", "b200", 8, "fp4").step_time
    assert law.prefill_linear_s(513) > law.prefill_linear_s(512) > 0
    # Beyond its knots all of a prompt is in one table.
    assert law.linear_s(4096) == law.linear_s(2048)


@pytest.mark.parametrize("card", sorted(gpus()))
def test_every_gpu_has_kernel_shares(card):
    entry = gpu(card)
    assert entry.architecture in GENERATIONS
    assert ring_share(entry, 2) == 1.0
    assert ring_share(entry, 8) == (1.0 if entry.link_bytes_per_s > 100e9 else 0.107)


@given(st.sampled_from(sorted(models())), st.sampled_from(sorted(gpus())), st.sampled_from([1, 2, 4, 8]))
def test_more_work_never_takes_less_time(name, card, tp):
    law = roofline(model(name), gpu(card), tp, "bf16", expected(model(name), gpu(card), "bf16"))
    decodes = [law.step_s(0, size, size * 1000) for size in (1, 8, 64, 512, 1024)]
    prompts = [law.step_s(size, 4, 4000) for size in (1, 500, 509, 600, 1021, 2000, 8000)]
    assert decodes == sorted(decodes)
    assert prompts == sorted(prompts)
    assert prompts[0] > law.step_s(0, 4, 4000)


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
    reserve = 0.75 * 2**30 + 8192 * (6 * 4096 + 3 * 14336) * 2 + 2 * 256 * 128256 * 4
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
    assert blocks * 16 == pytest.approx(tokens, rel=0.02)


def test_weights_per_gpu_are_what_a_server_logged():
    # The same start-up logs: 94.08 GiB of weights on each of four GPUs; all but the experts is in BF16.
    assert model("deepseek-r1").weight_bytes("fp4") / 4 / 2**30 == pytest.approx(94.08, rel=0.01)


def test_kv_blocks_of_a_consumer_card():
    # vLLM 0.19.0 serving Llama-3.1-8B on an RTX 4090 (LLMServingSim's runs): 41 408 tokens.
    blocks = kv_blocks("llama-3.1-8b", "rtx-4090", max_num_batched_tokens=2048)
    assert blocks * 16 == pytest.approx(41_408, rel=0.01)


def test_ranks_with_expert_parallelism_hold_a_part_of_the_experts():
    with pytest.raises(InputError, match="no room for a KV cache"):
        kv_blocks("deepseek-r1", "h200", 1, "fp8", dp=8)
    assert kv_blocks("deepseek-r1", "h200", 1, "fp8", dp=8, expert_parallel=True) > 1000
