"""Profiles as tables: which there are, what one says, and how several differ."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simlab.profiles import Profile, StepTime
from simlab.report.page import Page, Table
from simlab.results import words

SCHEMA_VERSION = 1
NORMAL_95 = 1.6449
"""95th percentile of the standard normal law: the end of a 90% interval."""


@dataclass(frozen=True)
class State:
    """What is in a step: sequences that decode, each with a context, beside one request's prompt tokens.

    Attributes:
        seqs: decoding sequences.
        context: tokens of context of each.
        prompt: prompt tokens of one request from its first token on.
    """

    seqs: int = 0
    context: int = 0
    prompt: int = 0

    @property
    def name(self) -> str:
        """In words: ``32 × 2,048`` decodes or ``prompt 4,096``."""
        return f"prompt {self.prompt:,}" if self.prompt else f"{self.seqs} × {self.context:,}"

    def seconds(self, law: StepTime) -> float:
        """Duration of the step, s."""
        pairs = self.prompt * (self.prompt + 1) / 2
        return law.step_s(self.prompt, self.seqs, self.seqs * self.context, self.prompt, pairs)


DECODES = tuple(State(seqs, context) for context in (1024, 8192, 32768) for seqs in (1, 8, 32, 128))
PROMPTS = tuple(State(prompt=tokens) for tokens in (128, 512, 2048, 8192))


def interval_s(profile: Profile, state: State) -> tuple[float, float, float]:
    """Duration of a step and its 90% interval under the profile's covariance: (low, middle, high), s.

    The logarithm of the duration moves with the logarithms of the terms by their shares of it; the interval is that of
    the normal law with the variance that follows.
    """
    middle = state.seconds(profile.step_time)
    terms = profile.uncertainty.terms
    if not terms or middle <= 0:
        return middle, middle, middle
    slope = np.array([state.seconds(profile.step_time.scaled({term: 2.0})) / middle - 1.0 for term in terms])
    sd = float(np.sqrt(max(0.0, slope @ np.array(profile.uncertainty.log_covariance) @ slope)))
    reach = float(np.exp(NORMAL_95 * sd))
    return middle / reach, middle, middle * reach


def covered(profile: Profile, state: State) -> bool:
    """Whether the profile's runs covered such a step, as far as it says."""
    seen = profile.validity
    limits = (
        (state.seqs, seen.max_decode_seqs),
        (state.seqs + state.prompt, seen.max_step_tokens),
        (max(state.context, state.prompt), seen.max_context_tokens),
    )
    return all(limit is None or value <= limit for value, limit in limits)


def list_page(found: Sequence[Profile]) -> Page:
    """Which profiles there are, with kind, engine and error."""
    rows = tuple((one.name, one.kind, f"{one.tp * one.dp}", _error(one), one.engine, one.date) for one in found)
    measured = sum(one.kind == "measured" for one in found)
    headline = (
        f"{len(found)} profile{'' if len(found) == 1 else 's'}: {measured} measured, {len(found) - measured} estimated."
    )
    table = Table("profiles", ("profile", "kind", "GPUs", "median error", "engine", "date"), rows, left=(1, 3, 4, 5))
    remarks = () if found else (("warning", "no profile is so; `simlab profiles list` shows all"),)
    assumptions = ("a set-up that is not listed is estimated when asked for: `simlab profiles estimate`",)
    return Page("profiles", headline, remarks, (table,) if rows else (), assumptions, "")


def _error(one: Profile) -> str:
    """The medians of the errors that tell most, without the words around them."""
    return re.sub(r" \(p90 [^)]*\)", "", one.error_in_words().split("; ")[0]) or words.UNKNOWN


def show_page(one: Profile) -> Page:
    """What a profile says: where it is from, coefficients, error, validity, and steps with their 90% interval."""
    sd = one.uncertainty.relative_sd()
    law = one.step_time
    terms = []
    for name, value in asdict(law).items():
        if isinstance(value, tuple):
            if value:
                said = f"{len(value)} points: {words.number(value[0][1], 's')} at {value[0][0]:,.0f} to "
                said += f"{words.number(value[-1][1], 's')} at {value[-1][0]:,.0f} tokens"
                terms.append((name, said, _share(sd.get(name))))
        elif value:
            terms.append((name, _seconds(value), _share(sd.get(name))))
    tables = [
        Table("what it is of", ("", "is"), _facts(one), left=(1,)),
        Table("coefficients", ("term", "value", "relative sd"), tuple(terms)),
        _steps_table(one),
    ]
    if one.error:
        errors = tuple((name, words.percent(share)) for name, share in one.error.items())
        tables.append(Table("errors", ("of", "share"), errors))
    if one.points:
        tables.append(Table("operating points it was fitted on", ("points",), ((", ".join(one.points),),)))
    assumptions = [one.notes] if one.notes else []
    assumptions += ["the interval follows from the profile's covariance; ~ is beyond what its runs covered"]
    return Page(one.name, one.summary(), (), tuple(tables), tuple(assumptions), "")


def _facts(one: Profile) -> tuple[tuple[str, str], ...]:
    seen = one.validity
    limits = {
        "sequences": seen.max_decode_seqs,
        "tokens in a step": seen.max_step_tokens,
        "tokens of context": seen.max_context_tokens,
    }
    covers = ", ".join(f"{value:,} {name}" for name, value in limits.items() if value is not None)
    ranks = f" × {one.dp} ranks" if one.dp > 1 else ""
    server = {
        "max_num_seqs": one.max_num_seqs,
        "max_num_batched_tokens": one.max_num_batched_tokens,
        "kv_blocks": one.kv_blocks,
        "block_size": one.block_size,
    }
    rows = {
        "kind": one.kind,
        "model": f"{one.model}, weights {one.precision}, KV cache {one.kv_precision}",
        "server": f"{one.tp} × {one.gpu}{ranks}{', expert parallel' if one.expert_parallel else ''}",
        "limits": ", ".join(f"{name} {value:,}" for name, value in server.items() if value is not None),
        "engine": one.engine,
        "date": one.date,
        "fitted on": ", ".join(one.fitted_on[:6])
        + (f" and {len(one.fitted_on) - 6} more" if len(one.fitted_on) > 6 else ""),
        "covers up to": covers,
    }
    return tuple((name, text) for name, text in rows.items() if text)


def _steps_table(one: Profile) -> Table:
    rows = []
    for state in (*DECODES, *PROMPTS):
        low, middle, high = interval_s(one, state)
        mark = "" if covered(one, state) else " ~"
        rows.append(
            (state.name + mark, words.number(middle, "s"), f"{words.number(low, 's')} – {words.number(high, 's')}")
        )
    return Table(
        "steps (decoding sequences × context, or prompt tokens)", ("step", "takes", "90% interval"), tuple(rows)
    )


def compare_page(found: Sequence[Profile]) -> Page:
    """Steps of several profiles side by side, with their differences from the first."""
    first, *others = found
    columns = ("step", first.name, *(head for one in others for head in (one.name, "against the first")))
    tables = []
    for title, states in (("decode steps (sequences × context)", DECODES), ("prompts alone", PROMPTS)):
        rows = []
        for state in states:
            base = state.seconds(first.step_time)
            row = [state.name, _marked(first, state)]
            for one in others:
                row += [
                    _marked(one, state),
                    f"{state.seconds(one.step_time) / base - 1.0:+.1%}" if base > 0 else words.UNKNOWN,
                ]
            rows.append(tuple(row))
        tables.append(Table(title, columns, tuple(rows)))
    differences = [
        (
            one.name,
            float(np.median([s.seconds(one.step_time) / s.seconds(first.step_time) for s in (*DECODES, *PROMPTS)])),
        )
        for one in others
        if first.step_time != StepTime()
    ]
    said = "; ".join(f"{name}: {factor - 1.0:+.0%} in the median step" for name, factor in differences)
    remarks = tuple(("warning", f"{one.name} is an estimate") for one in found if one.kind == "estimated")
    assumptions = ("~ is beyond what the profile's runs covered",)
    return Page(first.name, f"Against {first.name}: {said}.", remarks, tuple(tables), assumptions, "")


def _marked(one: Profile, state: State) -> str:
    return words.number(state.seconds(one.step_time), "s") + ("" if covered(one, state) else " ~")


def estimate_page(one: Profile, blocks: int | None) -> Page:
    """An estimate: its steps with their intervals, efficiencies, and KV blocks.

    Args:
        one: the estimate.
        blocks: KV blocks of 16 tokens that fit at 90% of the memory; None where the weights leave no room.
    """
    shown = show_page(one)
    share = one.efficiency.as_dict() if one.efficiency is not None else {}
    rows = tuple(
        (name, _seconds(value) if name.endswith("_s") else words.digits(value)) for name, value in share.items()
    )
    room = (
        f"{blocks:,} KV blocks of 16 tokens fit at 90% of the memory"
        if blocks
        else "the weights leave no room for a KV cache"
    )
    tables = tuple(table for table in shown.tables if table.title != "what it is of")
    table = Table("efficiencies (shares of the data sheet; times)", ("of", "is"), rows)
    return Page(one.name, f"{one.summary()}; {room}.", (), (*tables, table), shown.assumptions, "")


def list_json(found: Sequence[Profile]) -> str:
    """The list as JSON."""
    return _json({"profiles": [_entry(one) for one in found]})


def list_csv(found: Sequence[Profile]) -> str:
    """The list as CSV."""
    rows = [{key: value for key, value in _entry(one).items() if key != "error"} | dict(one.error) for one in found]
    return _csv(rows)


def _entry(one: Profile) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "model": one.model,
        "gpu": one.gpu,
        "tp": one.tp,
        "dp": one.dp,
        "expert_parallel": one.expert_parallel,
        "precision": one.precision,
        "kv_precision": one.kv_precision,
        "engine": one.engine,
        "date": one.date,
        "error": dict(one.error),
    }


def show_json(one: Profile, blocks: int | None = None) -> str:
    """A profile as JSON: the file's content, relative deviations and steps with their intervals."""
    steps = [_step(one, state) for state in (*DECODES, *PROMPTS)]
    more = {} if blocks is None else {"kv_blocks": blocks}
    return _json({"profile": asdict(one), "relative_sd": one.uncertainty.relative_sd(), "steps": steps, **more})


def show_csv(one: Profile) -> str:
    """Its steps as CSV."""
    return _csv([_step(one, state) for state in (*DECODES, *PROMPTS)])


def compare_json(found: Sequence[Profile]) -> str:
    """The comparison as JSON."""
    return _json({"profiles": [one.name for one in found], "steps": _compared(found)})


def compare_csv(found: Sequence[Profile]) -> str:
    """The comparison as CSV, one row a step and profile."""
    return _csv(_compared(found))


def _compared(found: Sequence[Profile]) -> list[dict[str, Any]]:
    rows = []
    for state in (*DECODES, *PROMPTS):
        base = state.seconds(found[0].step_time)
        for one in found:
            step = _step(one, state)
            rows.append({"profile": one.name, **step, "difference": step["step_s"] / base - 1.0 if base > 0 else None})
    return rows


def _step(one: Profile, state: State) -> dict[str, Any]:
    low, middle, high = interval_s(one, state)
    return {**asdict(state), "step_s": middle, "low_s": low, "high_s": high, "covered": covered(one, state)}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=2, ensure_ascii=False) + "\n"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _share(value: float | None) -> str:
    return words.UNKNOWN if value is None else f"{value:.0%}"


def _seconds(value: float) -> str:
    """Seconds down to picoseconds, as attention by pair of tokens takes."""
    if value >= 1e-6 or value == 0:
        return words.number(value, "s")
    factor, unit = (1e9, "ns") if value >= 1e-9 else (1e12, "ps")
    return f"{words.digits(value * factor)} {unit}"
