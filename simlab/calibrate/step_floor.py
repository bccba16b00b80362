"""What a data sheet says that no step can beat."""

from __future__ import annotations

from simlab.calibrate.run import Server
from simlab.profiles import Efficiency, StepTime, gpus, models, roofline


def step_floor(server: Server) -> StepTime | None:
    """The KV cache read at the peak of the memory, attention at the peak of the arithmetic: floors for `fit_steps`.

    None where the model or the GPU is in no table, or where layers attend to a window only: their cost by token of
    context is less the longer the context, so that one number is no floor.
    """
    model, gpu = models().get(server.model), gpus().get(server.gpu)
    if model is None or gpu is None or model.sliding_window:
        return None
    law = roofline(
        model,
        gpu,
        server.tp,
        server.precision,
        Efficiency(kv_bandwidth=1.0, attention_flops=1.0),
        kv_precision=server.kv_precision or "bf16",
        dp=server.dp,
        expert_parallel=server.expert_parallel,
    )
    return StepTime(per_kv_token_s=law.per_kv_token_s, attn_s=law.attn_s)
