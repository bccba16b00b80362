"""Names of models, GPUs and precisions as files have them, and what the user may say of a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlab.calibrate import ServerHints
from simlab.calibrate.read.servers import (
    Facts,
    gpu_name,
    model_name,
    precision_in,
    precision_name,
    slug,
    told,
    usual_names,
)  # fmt: skip
from simlab.errors import InputError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("b200_sxm", "b200-sxm"), ("H100-SXM-80GB", "h100-sxm"), ("A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"), ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("RTX 4090 24GB", "rtx-4090"), ("NVIDIA L40S", "l40s"),
        ("RTX PRO 6000 Blackwell 96GB", "rtx-pro-6000"), ("H200-SXM-141GB", "h200-sxm"), ("Mi300x", "mi300x"),
        ("B300-SXM (b300_sxm)", "b300-sxm"), ("B200-SXM-180GB", "b200-sxm"),
    ],
)  # fmt: skip
def test_gpus_as_files_have_them(written: str, name: str) -> None:
    assert gpu_name(written) == (name, True)


@pytest.mark.parametrize(
    ("written", "name", "known", "precision"),
    [
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b", True, None),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b", True, "fp8"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b", True, None),
        ("nvidia/DeepSeek-R1-0528-NVFP4", "deepseek-r1", True, "fp4"),
        ("Llama-3.1-405B-FP8", "llama-3.1-405b", True, "fp8"),
        (
            "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
            "meta-llama-3.1-8b-instruct-quantized.w4a16",
            False,
            None,
        ),
        ("deepseek-ai/DeepSeek-V4-Flash", "deepseek-v4-flash", False, None),
        ("zai-org/GLM-9-FP8", "glm-9", False, "fp8"),
        ("my model/", "my-model", False, None),
    ],
)
def test_models_as_files_have_them(written: str, name: str, known: bool, precision: str | None) -> None:
    assert model_name(written) == (name, known)
    assert precision_in(written) == precision


@given(st.text(max_size=30))
def test_a_slug_can_be_part_of_a_file_name(text: str) -> None:
    name = slug(text)
    assert slug(name) == name
    assert not set(name) & set("/\\: \n*?")


@pytest.mark.parametrize(
    ("written", "name"),
    [("bfloat16", "bf16"), ("half", "bf16"), ("FP8_E4M3", "fp8"), ("nvfp4", "fp4"), ("awq", "int4"),
     ("float32", "fp32"), ("auto", None), ("", None)],
)  # fmt: skip
def test_precisions_as_files_have_them(written: str, name: str | None) -> None:
    assert precision_name(written) == name


def test_a_quantised_name_tells_more_than_its_dtype() -> None:
    facts = Facts()
    facts.say("model", "Qwen/Qwen3-235B-A22B-FP8", "model")
    facts.say("precision", "bfloat16", "dtype")
    assert usual_names(facts).values["precision"] == "fp8"
    assert facts.values["precision"] == "bfloat16"


def test_published_weights_tell_the_precision_of_a_known_model() -> None:
    facts = Facts()
    facts.say("model", "openai/gpt-oss-120b", "model")
    usual = usual_names(facts)
    assert usual.values["precision"] == "fp4"
    assert usual.notes == ["precision fp4, that of the published weights, is assumed"]


def test_hints_are_brought_to_the_tables_names() -> None:
    hints = ServerHints(gpu="H100", model="Qwen/Qwen3-235B-A22B-FP8", tp=2, prefix="512", expert_parallel=False)
    assert told(hints) == {
        "gpu": "h100-sxm", "model": "qwen3-235b-a22b", "precision": "fp8", "tp": 2, "expert_parallel": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"prefix": "512xy"}, "--prefix: read '512xy'; allowed: tokens (512), or tokens x kinds (768x5)"),
        ({"prefix": "768x0"}, "--prefix: read '768x0'; allowed: tokens (512), or tokens x kinds (768x5)"),
        ({"tp": 0}, "--tp: read 0; must be 1 or more"),
        ({"max_num_seqs": -1}, "--max-num-seqs: read -1; must be 1 or more"),
    ],
)
def test_hints_that_cannot_be(said: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ServerHints(**said)  # type: ignore[arg-type]
    assert str(caught.value) == message
