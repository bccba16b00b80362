"""What users wait for beside the model: the way to the gateway and back, the application, and holding answers back."""

from __future__ import annotations

from pydantic import Field

from simlab.scenario.base import Model
from simlab.scenario.dist import Fixed, SecondsDist
from simlab.scenario.units import Seconds

_NOTHING = Fixed[Seconds](kind="fixed", value=0.0)


class Latency(Model):
    """Parts of a class's latency budget beside the model; giving it, even empty, meters where the time goes."""

    network: SecondsDist = Field(_NOTHING, description="from user to gateway, one way; the way back is drawn again, s")
    app: SecondsDist = Field(_NOTHING, description="the application in front of the gateway, once a task, s")
    retrieval: SecondsDist = Field(_NOTHING, description="looking up what goes into the prompt, once a task, s")
    rerank: SecondsDist = Field(_NOTHING, description="ordering what was found, once a task, s")
    gateway: SecondsDist = Field(
        _NOTHING, description="the gateway's own time before a task's first attempt (of an agent: each step's), s"
    )
    smoothing: SecondsDist = Field(
        _NOTHING, description="an answer is held back so that it flows evenly, its first token and its last alike, s"
    )
