"""GPU and model tables: figures that agree with what was published, names that are found, errors that help."""

from __future__ import annotations

import csv

import pytest

from simlab.errors import InputError
from simlab.profiles import gpu, gpus, model, models


@pytest.mark.parametrize("name", sorted(gpus()))
def test_gpu_figures_are_plausible(name):
    card = gpu(name)
    assert card.source
    assert 16e9 <= card.memory_bytes <= 320e9
    assert 0.25e12 <= card.bandwidth_bytes_per_s <= 8e12
    rates = [rate for rate in (card.bf16_flops, card.fp8_flops, card.fp4_flops) if rate is not None]
    assert rates == sorted(rates)
    assert card.fp8_flops is None or card.fp8_flops == pytest.approx(2 * card.bf16_flops, rel=0.03)


def test_gpus_agree_with_an_independent_table(shared_data):
    with (shared_data / "op_profiles_vllm_aic" / "gpu_specs.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] not in {"a30", "b60"}]
    assert len(rows) >= 12
    for row in rows:
        card = gpu(row["system"])
        assert card.bandwidth_bytes_per_s == pytest.approx(float(row["mem_bw_bytes_s"]), rel=0.01)
        assert card.bf16_flops == pytest.approx(float(row["bf16_dense_flops"]), rel=0.01)
        # Theirs is the nominal size, ours what the driver leaves of it.
        assert card.memory_bytes == pytest.approx(float(row["mem_capacity_bytes"]), rel=0.07)
        if row["fp8_dense_flops"]:
            assert card.fp8_flops == pytest.approx(float(row["fp8_dense_flops"]), rel=0.01)


@pytest.mark.parametrize("name", sorted(models()))
def test_parameters_follow_from_the_architecture(name):
    entry = model(name)
    assert entry.n_parameters == pytest.approx(entry.published_parameters, rel=0.01)
    if entry.experts:
        # Cards count the input embedding or not, as they like: 10% of a small active count.
        assert entry.active_parameters == pytest.approx(entry.published_active_parameters, rel=0.10)


@pytest.mark.parametrize(
    ("name", "precision", "kib"),
    [
        ("llama-3.1-8b", "bf16", 128),
        ("llama-3.1-70b", "bf16", 320),
        ("llama-3.1-70b", "fp8", 160),
        ("qwen3-32b", "bf16", 256),
        ("mixtral-8x7b", "bf16", 128),
        # One vector of 576 a layer: 61 x 576 x 2 bytes.
        ("deepseek-r1", "bf16", 68.625),
    ],
)
def test_kv_bytes_per_token(name, precision, kib):
    assert model(name).kv_bytes_per_token(precision) == kib * 1024


def test_sliding_windows_cost_less_with_longer_context():
    short, long = (model("gemma-3-27b").kv_bytes_per_token(context=n) for n in (512, 100_000))
    every_layer = 2 * 16 * 128 * 62 * 2
    assert short == every_layer
    assert long < 0.2 * every_layer


def test_weight_bytes():
    dense = model("llama-3.1-8b")
    assert dense.weight_bytes("bf16") == pytest.approx(2 * dense.n_parameters)
    assert dense.weight_bytes("fp8") == pytest.approx(dense.n_parameters + 2 * dense.embedding_parameters)
    # The published checkpoint of gpt-oss-120b is 60.8 GiB, scales 32 wide; NVFP4's 16-wide ones are larger.
    assert 60 < model("gpt-oss-120b").weight_bytes() / 2**30 < 66
    assert model("deepseek-r1").precision(None) == "fp8"


@pytest.mark.parametrize("alias", ["H100", "h100_sxm", "H100 SXM", "h100-80gb"])
def test_gpu_aliases(alias):
    assert gpu(alias).name == "h100-sxm"


@pytest.mark.parametrize("alias", ["meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct", "LLAMA-3.1-8b"])
def test_model_aliases(alias):
    assert model(alias).name == "llama-3.1-8b"


def test_aliases_lead_to_one_entry_only():
    names = [alias for entry in gpus().values() for alias in entry.aliases] + list(gpus())
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("find", "name", "expected"),
    [
        (gpu, "h1000", "unknown GPU 'h1000'; did you mean h100-sxm"),
        (gpu, "tpu-v6", "unknown GPU 'tpu-v6'"),
        (model, "llama-3.1-80b", "unknown model 'llama-3.1-80b'; did you mean llama-3.1-8b"),
        (
            lambda name: model("llama-3.1-8b").weight_bytes(name),
            "fp16",
            "unknown weight precision 'fp16'; allowed: bf16",
        ),
        (lambda name: model("llama-3.1-8b").kv_bytes_per_token(name), "int4", "unknown KV-cache precision 'int4'"),
    ],
)
def test_unknown_names_say_what_is_near(find, name, expected):
    with pytest.raises(InputError, match=expected):
        find(name)
