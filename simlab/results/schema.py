"""The JSON Schema of a result, from the tables of metrics and keys, so that it cannot fall behind them."""

from __future__ import annotations

from typing import Any

from simlab.results.alerts import RULES
from simlab.results.counts import LIMIT_DTYPE
from simlab.results.facts import FIXED, NOTHING, SAMPLED
from simlab.results.held import HELD
from simlab.results.keys import KEYS
from simlab.results.ledger import WASTE
from simlab.results.measurements import COARSE_METRICS
from simlab.results.metrics import METRICS
from simlab.results.parts import AROUND, PARTS
from simlab.results.verdict import MET, MISSED, UNDECIDED

_NUMBER = {"type": ["number", "null"]}
_KNOWN = {"type": "number"}
_TEXT = {"type": "string"}


def _object(
    properties: dict[str, Any], *, required: tuple[str, ...] | None = None, open_: bool = False
) -> dict[str, Any]:
    """An object all of whose properties are required, unless said otherwise."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": open_,
    }


_ESTIMATE = {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "unit": _TEXT, "calibration_share": _NUMBER}


def result_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `Result.to_dict` satisfies."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "simlab result",
        **_object(
            {
                "schema_version": {"const": 1},
                "simlab_version": _TEXT,
                "scenario": {"type": "object", "description": "the scenario as it was run, all defaults filled in"},
                "variant": {"type": ["string", "null"]},
                "seed": {"type": "integer"},
                "replications": {"type": "integer", "minimum": 1},
                "horizon_s": {"type": "number", "exclusiveMinimum": 0},
                "warmup_s": {"type": "number", "minimum": 0},
                "headline": {"type": "string", "minLength": 1},
                "verdict": _object(
                    {
                        "holds": {"type": "boolean"},
                        "checks": {
                            "type": "array",
                            "items": _object(
                                {
                                    "name": _TEXT,
                                    "outcome": {"enum": [MET, MISSED, UNDECIDED]},
                                    "holds": {"type": "boolean"},
                                    "limit": {"type": "number"},
                                    **_ESTIMATE,
                                    "sentence": _TEXT,
                                }
                            ),
                        },
                    }
                ),
                "calibration": _object(
                    {
                        "mode": {"enum": [SAMPLED, FIXED, NOTHING]},
                        "draws": {"type": "integer", "minimum": 0},
                    }
                ),
                "metrics": _object(
                    {
                        name: {**_object({**_ESTIMATE, "unit": {"const": metric.unit}}), "description": metric.meaning}
                        for name, metric in METRICS.items()
                    }
                ),
                "by": _object(
                    {
                        key: {
                            "type": "array",
                            "items": _object(
                                {key: _TEXT, "attempts": {"type": "number"}, "cost_usd": _NUMBER}, open_=True
                            ),
                        }
                        for key in KEYS
                    }
                ),
                "waste": {
                    "type": "array",
                    "items": _object({"what": {"enum": list(WASTE)}, "usd": _NUMBER, "share": _NUMBER}),
                },
                "caches": {
                    "type": "array",
                    "items": _object(
                        {
                            "cache": _TEXT,
                            **dict.fromkeys(("lookups", "hits", "wrong", "hit_ratio"), _NUMBER),
                            **dict.fromkeys(("prompt_tokens", "output_tokens", "saved_usd"), _NUMBER),
                        }
                    ),
                },
                "limits": {
                    "type": "array",
                    "items": _object({"limit": _TEXT, **dict.fromkeys(LIMIT_DTYPE.names or (), _NUMBER)}),
                },
                "violations": {
                    "type": "array",
                    "items": _object(
                        {
                            "class": _TEXT,
                            "what": {"enum": list(HELD)},
                            "meaning": _TEXT,
                            "count": _NUMBER,
                            "per_task": _NUMBER,
                        }
                    ),
                },
                "waits": {
                    "type": "array",
                    "items": _object(
                        {
                            "class": _TEXT,
                            **dict.fromkeys(("waits", "wait_s_mean", "wait_s_p50", "wait_s_p95"), _NUMBER),
                        }
                    ),
                },
                "latency_parts": {
                    "type": "array",
                    "items": _object(
                        {
                            "class": _TEXT,
                            "metric": {"enum": list(COARSE_METRICS)},
                            "quantile": {"enum": list(AROUND)},
                            "part": {"enum": list(PARTS)},
                            **_ESTIMATE,
                        }
                    ),
                },
                "alerts": {
                    "type": "array",
                    "items": _object(
                        {
                            "rule": {"enum": list(RULES)},
                            "subject": _TEXT,
                            "replication": {"type": "integer", "minimum": 0},
                            **dict.fromkeys(("onset_s", "detected_s", "until_s", "value", "limit"), _KNOWN),
                            "unit": _TEXT,
                            "sentence": _TEXT,
                        }
                    ),
                },
                "warnings": {"type": "array", "items": _TEXT},
                "assumptions": {"type": "array", "items": _TEXT},
                "profiles": {
                    "type": "array",
                    "items": _object(
                        {
                            **dict.fromkeys(("backend", "model", "gpu", "name", "error", "source", "date"), _TEXT),
                            "kind": {"enum": ["measured", "estimated", "stated"]},
                            "outside": {
                                "type": "array",
                                "items": _object(
                                    {
                                        "limit": _TEXT,
                                        "measured": {"type": "integer"},
                                        "reached": {"type": "integer"},
                                        "share": {"type": "number"},
                                        "log_sd": {"type": "number"},
                                        "sentence": _TEXT,
                                    }
                                ),
                            },
                        }
                    ),
                },
                "prices": {
                    "type": "array",
                    "items": _object(dict.fromkeys(("backend", "source", "as_of"), _TEXT), open_=True),
                },
                "unpriced": {"type": "array", "items": _object({"backend": _TEXT, "what": _TEXT})},
            }
        ),
    }
