"""A profile: how fast one model runs on one GPU set-up, how well that is known, and from what."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simlab.errors import InputError, OutputError, Problem
from simlab.profiles.roofline import Efficiency
from simlab.profiles.step_time import TERMS, StepTime

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 1

_QUANTITIES = (
    (("itl", "ITL"), ("tpot", "TPOT"), ("step_decode", "decode steps")),
    (("ttft", "TTFT"), ("ttft_p50", "median TTFT"), ("step_mixed", "mixed steps")),
    (("throughput", "output rate"),),
)
"""What an error can be of: the beginning of its key, and in words; of nearly the same ones the best first."""

_ERRORS = (
    ("_left_out_median_ape", "median, runs left out of the fit"),
    ("_other_hardware_median_ape", "median of such estimates, other hardware"),
    ("_median_ape", "median"),
)
"""Kinds of errors, the most telling first: the end of their keys, and in words."""


@dataclass(frozen=True)
class Uncertainty:
    """How sure the coefficients are: a normal law of the logarithms of factors on step-time terms.

    Attributes:
        terms: which of ``StepTime``'s terms a row and column stand for.
        log_covariance: covariance of log factors, one row a term; the diagonal's roots are relative deviations.

    Raises:
        ValueError: the matrix is not square and symmetric, is not positive semi-definite, or a term is unknown.
    """

    terms: tuple[str, ...] = ()
    log_covariance: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.terms)
        wrong = [term for term in self.terms if term not in TERMS]
        if wrong or len(set(self.terms)) < n:
            raise ValueError(f"terms must be different names of {', '.join(TERMS)}; got {', '.join(self.terms)}")
        if len(self.log_covariance) != n or any(len(row) != n for row in self.log_covariance):
            raise ValueError(f"log_covariance must be {n} × {n}, one row for each of terms")
        self.root()

    def root(self) -> list[list[float]]:
        """Lower triangle L with L·Lᵀ = log_covariance (Cholesky; a term of zero variance gets a row of zeros)."""
        cov, n = self.log_covariance, len(self.terms)
        low = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i + 1):
                rest = cov[i][j] - sum(low[i][k] * low[j][k] for k in range(j))
                slack = 1e-9 * (1.0 + abs(cov[i][i]))
                if not math.isfinite(cov[i][j]) or abs(cov[i][j] - cov[j][i]) > slack or (i == j and rest < -slack):
                    raise ValueError("log_covariance must be finite, symmetric and positive semi-definite")
                if i == j:
                    low[i][i] = math.sqrt(max(rest, 0.0))
                elif low[j][j] > 0.0:
                    low[i][j] = rest / low[j][j]
        return low

    def relative_sd(self) -> dict[str, float]:
        """Relative standard deviation of each term."""
        return {term: math.sqrt(self.log_covariance[i][i]) for i, term in enumerate(self.terms)}


@dataclass(frozen=True)
class Validity:
    """What the measured runs covered; outside of it a profile is an extrapolation. None where nothing is known.

    Attributes:
        max_decode_seqs: largest number of decoding sequences in a step.
        max_step_tokens: most tokens in a step.
        max_context_tokens: longest context of a request.
    """

    max_decode_seqs: int | None = None
    max_step_tokens: int | None = None
    max_context_tokens: int | None = None


@dataclass(frozen=True)
class Profile:
    """How fast one model runs on one GPU set-up.

    Attributes:
        name: unique name, ``model.gpu.tpN.precision``.
        model, gpu: names of the model and GPU tables (free text where no table knows them).
        tp: GPUs of one replica (tensor parallel).
        precision: of the weights.
        kind: ``measured`` on this set-up, or ``estimated`` from architecture and data sheet.
        step_time: the coefficients.
        uncertainty: covariance of their logarithms, for Monte-Carlo runs.
        fitted_on: the runs it is from.
        error: what the fit missed by, share (0.04 is 4%), by metric, e.g. ``tpot_median_ape``.
        validity: what the runs covered.
        efficiency: share of the data sheet reached; estimates for other set-ups learn from it. None where not known.
        kv_precision: of the KV cache.
        max_num_batched_tokens, max_num_seqs, kv_blocks, block_size: the server's limits in those runs; None where not
            known.
        dp: data-parallel ranks of the deployment, each a scheduler of its own; the step-time is of one rank.
        expert_parallel: experts are spread over the ranks.
        points: operating points it was fitted on, in short (``i1024-o128-c16``); others lie between or outside.
        engine: engine and version.
        date: when measured or estimated, ISO date.
        notes: what a reader should know.
    """

    name: str
    model: str
    gpu: str
    tp: int
    precision: str
    kind: Literal["measured", "estimated"]
    step_time: StepTime
    uncertainty: Uncertainty = field(default_factory=Uncertainty)
    fitted_on: tuple[str, ...] = ()
    error: Mapping[str, float] = field(default_factory=dict)
    validity: Validity = field(default_factory=Validity)
    efficiency: Efficiency | None = None
    kv_precision: str = "bf16"
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    dp: int = 1
    expert_parallel: bool = False
    points: tuple[str, ...] = ()
    engine: str = ""
    date: str = ""
    notes: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {self.schema_version}, this simlab reads {SCHEMA_VERSION}")
        if self.tp < 1 or self.dp < 1:
            raise ValueError(f"tp is {self.tp} and dp is {self.dp}: must be 1 or more")
        if not self.name:
            raise ValueError("name is empty")

    def sampled(self, normals: Sequence[float]) -> StepTime:
        """One draw of the step-time from its uncertainty.

        Args:
            normals: independent standard normal numbers, one for each of ``uncertainty.terms``; zeros give the fit.
        """
        root = self.uncertainty.root()
        logs = [sum(row[j] * normals[j] for j in range(len(normals))) for row in root]
        return self.step_time.scaled(
            {term: math.exp(log) for term, log in zip(self.uncertainty.terms, logs, strict=True)}
        )

    def summary(self) -> str:
        """One line: name, kind, errors, engine and date, for results and lists."""
        said = (f"{self.name} ({self.kind})", self.error_in_words(), self.engine, self.date)
        return "; ".join(part for part in said if part)

    def error_in_words(self) -> str:
        """What the profile is known to miss by, of the runs that tell most; empty where nothing is known.

        Runs that the fit did not see come before those that it saw: ``error`` keeps all of them.
        """
        for suffix, where in _ERRORS:
            parts = []
            for alike in _QUANTITIES:
                prefix, name = next((one for one in alike if f"{one[0]}{suffix}" in self.error), ("", ""))
                if prefix:
                    key = f"{prefix}{suffix}"
                    tail = self.error.get(key.replace("median", "p90"))
                    parts.append(f"{name} {self.error[key]:.1%}" + (f" (p90 {tail:.0%})" if tail is not None else ""))
            if parts:
                return f"{', '.join(parts)}; {where}"
        return ", ".join(f"{key} {share:.1%}" for key, share in self.error.items())

    def save(self, path: Path) -> None:
        """Writes the profile as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        beside = path.with_name(path.name + ".part")
        try:
            beside.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            message = f"{path}: the profile could not be written: {error.strerror}; choose another place"
            raise OutputError(message) from error


@cache
def _adapter() -> TypeAdapter[Profile]:
    from pydantic import ConfigDict, TypeAdapter

    for part in (StepTime, Uncertainty, Validity, Efficiency, Profile):
        part.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[union-attr]
    return TypeAdapter(Profile)


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile file."""
    return _adapter().json_schema()


def parse(text: str, where: str) -> Profile:
    """A profile from its JSON text.

    Args:
        text: the JSON.
        where: the file it is from, for the error.

    Raises:
        InputError: it is not JSON or not a profile; all its problems with their field.
    """
    from pydantic import ValidationError

    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        raise InputError([_problem(where, entry) for entry in error.errors()]) from None


def _problem(where: str, entry: Mapping[str, Any]) -> Problem:
    path = ".".join(str(part) for part in entry["loc"])
    read = "" if entry["type"] in {"missing", "json_invalid"} else f" (read {str(entry['input'])[:60]})"
    return Problem(where, path, f"{entry['msg']}{read}; a profile is the JSON that `Profile.save` writes")


def load(path: Path) -> Profile:
    """A profile from a JSON file.

    Raises:
        InputError: the file is missing, not text, or not a profile; all its problems with their field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError([Problem(str(path), "", "no such profile file; give a path that exists")]) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"the profile cannot be read: {error}; expected UTF-8 JSON"
        raise InputError([Problem(str(path), "", message)]) from None
    return parse(text, str(path))
