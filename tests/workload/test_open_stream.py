"""From a class of a scenario to its stream."""

import math
from datetime import datetime

import numpy as np
import pytest

from simlab.errors import TraceError
from simlab.scenario.workload import WorkloadClass
from simlab.workload import load_summary, open_stream

LENGTHS = {"prompt": 100, "output": 20}


def opened(base_dir=None, *, seed=1, index=0, horizon_s=1000.0, **fields):
    cls = WorkloadClass.model_validate({"lengths": LENGTHS, **fields})
    return open_stream(cls, index=index, seed=seed, start=datetime(2026, 1, 5), horizon_s=horizon_s, base_dir=base_dir)


def all_times(stream):
    parts = []
    while (chunk := stream.next_chunk()) is not None:
        assert 0 < len(chunk) <= 65536
        parts.append(chunk.arrival_s)
    return np.concatenate(parts)


def test_open_arrivals_leave_lengths_to_the_engine():
    stream = opened(arrivals={"kind": "poisson", "rate": 300}, horizon_s=600.0)
    assert (stream.closed_users, stream.think, stream.turns, stream.joint) == (0, None, None, None)
    assert stream.prompt.mean() == 100.0
    assert stream.output.mean() == 20.0
    first = stream.next_chunk()
    assert len(first) == 65536
    assert first.prompt_tokens is first.output_tokens is first.segment_ptr is None
    assert stream.next_chunk().arrival_s[0] >= first.arrival_s[-1]
    assert stream.load.mean_rate_rps == pytest.approx(300.0)
    assert stream.assumptions == []


def test_a_joint_table_replaces_both_lengths():
    stream = opened(arrivals={"kind": "poisson", "rate": 1}, lengths={"joint": "openorca"})
    facts = load_summary("openorca")
    assert stream.prompt is stream.output is None
    assert stream.load.mean_prompt_tokens == pytest.approx(facts.prompt_tokens.mean, rel=0.005)
    assert stream.load.mean_output_tokens == pytest.approx(facts.output_tokens.mean, rel=0.005)


def test_peak_and_mean_follow_profile_and_growth():
    arrivals = {"kind": "gamma", "rate": 2, "cv": 3, "profile": {"hour_of_day": [1] * 12 + [3] * 12}}
    stream = opened(arrivals=arrivals, horizon_s=86_400.0)
    assert stream.load.mean_rate_rps == pytest.approx(4.0)
    assert stream.load.peak_rate_rps == pytest.approx(6.0)
    growing = opened(arrivals={"kind": "poisson", "rate": 1, "growth_per_month": "10%"}, horizon_s=730 * 3600.0)
    assert growing.load.peak_rate_rps == pytest.approx(1.1)


def test_a_closed_loop_only_has_parameters():
    stream = opened(arrivals={"kind": "closed", "users": 8, "think_time": {"kind": "exponential", "mean": "4s"}})
    assert stream.closed_users == 8
    assert stream.think.mean() == 4.0
    assert stream.next_chunk() is None
    assert stream.load.mean_rate_rps == 2.0, "the most that 8 users can ask: one request every 4 s each"
    eager = opened(arrivals={"kind": "closed", "users": 8, "think_time": 0})
    assert eager.load.peak_rate_rps == math.inf


def test_sessions_count_every_turn_and_its_history():
    """Turns 1, 2, 3 of fixed sessions carry 0, 1, 2 earlier exchanges of 120 tokens: 120 more on average."""
    fields = {"sessions": {"turns": 3, "think_time": "10s"}, "prefix": {"system": 50, "template": 7}}
    stream = opened(arrivals={"kind": "poisson", "rate": 2}, **fields)
    assert stream.load.mean_rate_rps == pytest.approx(6.0)
    assert stream.load.mean_prompt_tokens == pytest.approx(57 + 120 + 100)
    assert stream.think.mean() == 10.0
    assert stream.turns.mean() == 3.0
    assert abs(len(all_times(stream)) - 2000) < 200, "arrivals are session starts"


def test_a_geometric_number_of_turns_brings_its_second_moment():
    """Geometric with mean m has E[N (N - 1) / 2] / E[N] = m - 1."""
    stream = opened(
        arrivals={"kind": "poisson", "rate": 1}, sessions={"turns": {"kind": "geometric", "mean": 4}, "think_time": 1}
    )
    assert stream.load.mean_rate_rps == pytest.approx(4.0, rel=0.01)
    assert stream.load.mean_prompt_tokens == pytest.approx(3 * 120 + 100, rel=0.03)
    capped = opened(
        arrivals={"kind": "poisson", "rate": 1},
        sessions={"turns": {"kind": "geometric", "mean": 4}, "think_time": 1, "max_context": 200},
    )
    assert capped.load.mean_prompt_tokens == 300.0


def test_documents_lengthen_prompts():
    stream = opened(
        arrivals={"kind": "poisson", "rate": 1}, prefix={"documents": {"count": 10, "tokens": 2000, "zipf": 1.1}}
    )
    assert stream.load.mean_prompt_tokens == 2100.0


@pytest.fixture
def trace_dir(tmp_path):
    rows = "".join(f"{i * 10.0},{100 + i},{i}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n" + rows)
    return tmp_path


def test_a_trace_brings_its_own_lengths(trace_dir):
    stream = opened(trace_dir, arrivals={"kind": "trace", "file": "t.csv"}, lengths=None, horizon_s=600.0)
    chunk = stream.next_chunk()
    assert len(chunk) == 60
    assert chunk.prompt_tokens[3] == 103
    assert stream.next_chunk() is None
    assert stream.load.mean_rate_rps == pytest.approx(0.1)
    assert stream.load.mean_prompt_tokens == pytest.approx(129.5)
    assert stream.load.mean_output_tokens == pytest.approx(29.5)
    assert "azure-2023" in stream.assumptions[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"time_scale": 0.5, "repeat": "forever"},
        {"rate_scale": 2.5, "repeat": 3},
        {"from": 100, "to": 300, "repeat": "forever", "rate_scale": 0.5},
        {"to": 250},
    ],
)
def test_the_stated_mean_rate_is_what_comes(trace_dir, fields):
    horizon_s = 60_000.0 if fields.get("repeat") else 600.0
    stream = opened(trace_dir, arrivals={"kind": "trace", "file": "t.csv", **fields}, lengths=None, horizon_s=horizon_s)
    count = len(all_times(stream))
    assert count == pytest.approx(stream.load.mean_rate_rps * horizon_s, rel=0.06)
    assert stream.load.peak_rate_rps >= stream.load.mean_rate_rps


def test_a_missing_trace_is_reported_when_the_stream_is_opened(trace_dir):
    with pytest.raises(TraceError, match=r"github\.com/HPMLL/BurstGPT"):
        opened(trace_dir, arrivals={"kind": "trace", "file": "BurstGPT_1.csv"}, lengths=None)


@pytest.fixture
def windows_dir(tmp_path):
    (tmp_path / "x_client_windows.csv").write_text(
        "client,window_start_s,rate_req_s,cv\n0,0,4,1\n1,0,2,2\n0,600,10,1\n"
    )
    facts = ["mean", "p10", "p25", "p50", "p75", "p90", "p99"]
    head = "client,window_start_s," + ",".join(f"{side}_{fact}" for side in ("in", "out") for fact in facts)
    rows = ["0,0,120,50,80,100,150,200,400,12,5,8,10,15,20,40", "1,0,,,,,,,,,,,,,,"]
    (tmp_path / "x_client_lengths_top40.csv").write_text("\n".join([head, *rows]) + "\n")
    return tmp_path


def test_windows_of_clients_become_rates_with_pooled_burstiness(windows_dir):
    file = {"kind": "trace", "file": "x_client_windows.csv"}
    stream = opened(windows_dir, arrivals=file, lengths=None, horizon_s=5000.0)
    t = all_times(stream)
    assert t[-1] < 1200.0, "played once"
    assert np.sum(t < 600.0) == pytest.approx(6 * 600, rel=0.1)
    assert np.sum(t >= 600.0) == pytest.approx(10 * 600, rel=0.1)
    assert stream.joint.mean_prompt_tokens == pytest.approx(120.0, rel=0.005)
    assert stream.joint.mean_output_tokens == pytest.approx(12.0, rel=0.02)
    assert stream.load.mean_rate_rps == pytest.approx(16 * 600 / 5000.0)
    assert stream.load.peak_rate_rps == pytest.approx(10.0)
    with pytest.raises(TraceError, match="neither cut nor stretched"):
        opened(windows_dir, arrivals={**file, "to": 600}, lengths=None)


def test_windows_and_lengths_must_share_clients(windows_dir):
    path = windows_dir / "x_client_windows.csv"
    path.write_text(path.read_text().replace("\n0,", "\n7,"))
    with pytest.raises(TraceError, match="shares no client and period"):
        opened(windows_dir, arrivals={"kind": "trace", "file": path.name}, lengths=None)
