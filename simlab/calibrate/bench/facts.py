"""What is known of the server that was measured: kept in `server.json`, and turned into flags of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from simlab.calibrate.bench.flags import DATA_PARALLEL, TENSOR_PARALLEL, given, value, whole
from simlab.calibrate.bench.limits import Limits, limits, precision
from simlab.calibrate.bench.machine import GpuCard, gpu_cards, processor
from simlab.calibrate.bench.server import Serving, served_name
from simlab.calibrate.bench.startup import device, phases
from simlab.calibrate.read.servers import gpu_name, model_name, precision_in, precision_name
from simlab.calibrate.run import Server
from simlab.errors import InputError, Problem

_SAME = ("vllm", "gpus", "processor")
"""What must not change between the sessions that fill one folder."""


@dataclass(frozen=True)
class Start:
    """One cold start of the server.

    Attributes:
        date: ISO date and time, UTC.
        command: words of the command.
        ready_s: from the command to the first healthy answer, s.
        phases: of it, s, as the log tells.
        log: name of the log.
    """

    date: str
    command: tuple[str, ...]
    ready_s: float
    phases: Mapping[str, float]
    log: str


@dataclass(frozen=True)
class Facts:
    """What is known of a server.

    Attributes:
        model: as the user names it.
        served: as the server names it.
        flags: of ``vllm serve``.
        vllm: version.
        gpus: names of its GPUs by their driver; empty where not known.
        driver: of the GPUs.
        gpu_memory_bytes: of the first GPU; 0 where not known.
        processor: of its machine; empty where it is another machine.
        gpu: the GPU's name for the fit; None where nobody says.
        limits: of one data-parallel rank.
        cache_config: labels of ``vllm:cache_config_info``.
        starts: its cold starts by us.
    """

    model: str
    served: str
    flags: tuple[str, ...]
    vllm: str
    gpus: tuple[str, ...] = ()
    driver: str = ""
    gpu_memory_bytes: int = 0
    processor: str = ""
    gpu: str | None = None
    limits: Limits = field(default_factory=Limits)
    cache_config: Mapping[str, str] = field(default_factory=dict)
    starts: tuple[Start, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    def differences(self, before: Facts) -> list[str]:
        """What shows that another server was known before, in words."""
        pairs = [(name, getattr(before, name), getattr(self, name)) for name in _SAME]
        return [f"{name} was {_shown(then)}, is now {_shown(now)}" for name, then, now in pairs if then != now]

    @property
    def server(self) -> Server:
        """The set-up, named as a profile is; its GPU is ``unknown`` where nobody says."""
        stated = precision(self.flags)
        weights = (precision_name(stated) if stated else None) or precision_in(self.model) or _published(self.model)
        return Server(
            model=model_name(self.model)[0],
            gpu=gpu_name(self.gpu)[0] if self.gpu else "unknown",
            tp=whole(self.flags, *TENSOR_PARALLEL) or 1,
            precision=weights,
            dp=whole(self.flags, *DATA_PARALLEL) or 1,
            expert_parallel=given(self.flags, "--enable-expert-parallel", "-ep"),
        )

    def told(self) -> dict[str, Any]:
        """What a reader of a result has to know of the server: attributes of `Server`, without what nobody says."""
        server, known = self.server, self.limits
        names = ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "kv_blocks", "block_size", "prefix_caching")
        told = {
            "gpu": server.gpu if self.gpu else None,
            "tp": server.tp,
            "dp": server.dp,
            "expert_parallel": server.expert_parallel,
            "precision": server.precision,
            "engine": self.engine,
            "kv_precision": self.cache_config.get("cache_dtype"),
            **{name: getattr(known, name) for name in names},
        }
        return {name: value for name, value in told.items() if value not in (None, "")}

    @property
    def engine(self) -> str:
        """Engine and version; empty where not known."""
        return f"vLLM {self.vllm}" if self.vllm else ""

    def fit_command(self, runs: Sequence[Path]) -> list[str]:
        """The command that fits a profile to the results."""
        server, known = self.server, self.limits
        words = ["simlab", "calibrate", "fit", *map(str, runs), "--gpu", server.gpu, "--model", server.model]
        words += ["--tp", str(server.tp), "--precision", server.precision]
        words += ["--dp", str(server.dp)] if server.dp > 1 else []
        words += ["--expert-parallel"] if server.expert_parallel else []
        words += ["--engine", self.engine] if self.engine else []
        for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "kv_blocks", "block_size"):
            if (number := getattr(known, name)) is not None:
                words += [f"--{name.replace('_', '-')}", str(number)]
        if known.prefix_caching is not None:
            words += ["--prefix-caching" if known.prefix_caching else "--no-prefix-caching"]
        return [*words, "-o", f"{server.setup}.json"]


def learn(
    serving: Serving,
    *,
    model: str,
    flags: tuple[str, ...],
    gpu: str | None,
    log: str = "",
    starts: tuple[Start, ...] = (),
) -> Facts:
    """Asks a running server, its log and this machine.

    Args:
        serving: the server.
        model: as the user has it.
        flags: of ``vllm serve``.
        gpu: name that the user gives; it goes before the driver's.
        log: what the server printed, where it is ours.
        starts: its cold starts.

    Raises:
        InputError: the server does not answer as vLLM does.
    """
    endpoint = serving.endpoint
    models = endpoint.models()
    served = served_name(models, model, flags)
    longest = next((entry.get("max_model_len") for entry in models if entry.get("id") == served), None)
    config = endpoint.metrics().cache_config
    cards = _cards(serving, log, flags)
    on_cpu = device(log) == "cpu"
    return Facts(
        model=model,
        served=served,
        flags=flags,
        vllm=endpoint.version(),
        gpus=tuple(card.name for card in cards),
        driver=cards[0].driver if cards else "",
        gpu_memory_bytes=cards[0].memory_bytes if cards else 0,
        processor=processor() if endpoint.local else "",
        gpu=gpu or ("cpu" if on_cpu else cards[0].name if cards else None),
        limits=limits(
            flags,
            log=log,
            cache_config=config,
            max_model_len=longest if isinstance(longest, int) else None,
            cards=cards if cards or on_cpu else _card_of(gpu),
        ),
        cache_config=config,
        starts=starts,
    )


def start(date: str, command: Sequence[str], ready_s: float, log: Path) -> Start:
    """A cold start, its phases read from the log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return Start(date, tuple(command), round(ready_s, 2), phases(text), log.name)


def remembered(kept: Mapping[str, Any], where: str) -> Facts:
    """Facts from what was kept of them.

    Args:
        kept: of `Facts.as_json`.
        where: the file, for the error.

    Raises:
        InputError: it is something else.
    """
    try:
        data = {name: kept[name] for name in (entry.name for entry in fields(Facts))}
        data["flags"], data["gpus"] = tuple(data["flags"]), tuple(data["gpus"])
        data["starts"] = tuple(Start(**{**entry, "command": tuple(entry["command"])}) for entry in data["starts"])
        return Facts(**{**data, "limits": Limits(**data["limits"])})
    except (KeyError, TypeError) as error:
        message = f"is not what this version of simlab writes ({error}); give another --out"
        raise InputError([Problem(where, "", message)]) from error


def guessed(model: str, flags: tuple[str, ...], gpu: str | None, *, here: bool) -> Facts:
    """What can be said of a server before it runs.

    Args:
        model: as the user has it.
        flags: of ``vllm serve``.
        gpu: its name, where the user gives one.
        here: it is to run on this machine.
    """
    cards = gpu_cards() if here else []
    return Facts(
        model=model,
        served=value(flags, "--served-model-name") or model,
        flags=flags,
        vllm="",
        gpus=tuple(card.name for card in cards),
        gpu=gpu or (cards[0].name if cards else None),
        limits=limits(flags, cards=cards or _card_of(gpu)),
    )


def _cards(serving: Serving, log: str, flags: tuple[str, ...]) -> list[GpuCard]:
    """The GPUs that the server uses, as far as this machine can tell."""
    if not serving.endpoint.local or device(log) == "cpu":
        return []
    ranks = (whole(flags, *TENSOR_PARALLEL) or 1) * (whole(flags, *DATA_PARALLEL) or 1)
    return gpu_cards()[: ranks * (whole(flags, "--pipeline-parallel-size", "-pp") or 1)]


def _card_of(gpu: str | None) -> list[GpuCard]:
    """The GPU that the user names as the tables have it; none where they do not."""
    from simlab.profiles import gpu as find

    name, known = gpu_name(gpu) if gpu else ("", False)
    return [GpuCard(name, "", int(find(name).memory_bytes))] if known else []


def _published(model: str) -> str:
    """The precision of a model's published weights; bf16 where no table knows it."""
    from simlab.profiles import model as find

    name, known = model_name(model)
    return find(name).native_precision if known else "bf16"


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "unknown"
