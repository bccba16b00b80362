"""Summaries: true to the trace, small, the same every time, and traffic drawn from them is like the trace."""

import math
from datetime import datetime

import bundle_summaries
import numpy as np
import pytest
from scipy import stats

from simlab.errors import TraceError
from simlab.scenario.workload import WorkloadClass
from simlab.workload import bundled_summaries, load_summary, open_stream, summarize
from simlab.workload.reader import TraceReader
from simlab.workload.windows import read_windows

SERVEGEN_MEANS = [
    ("servegen-m-large", 869.72, 154.24),
    ("servegen-m-small", 119.56, 14.885),
    ("servegen-deepseek-r1", 1285.20, 1534.66),
]
"""The clients' mean lengths, weighted by their requests in each period, worked out apart with csv and plain loops."""


def written(tmp_path, times, prompts=None, outputs=None):
    prompts = [100] * len(times) if prompts is None else prompts
    outputs = [10] * len(times) if outputs is None else outputs
    path = tmp_path / "My_Trace.csv"
    rows = zip(times, prompts, outputs, strict=True)
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{t},{p},{o}\n" for t, p, o in rows))
    return path


def drawn(name, seed, horizon_s, **arrivals):
    cls = WorkloadClass.model_validate({"arrivals": {"kind": "summary", "file": name, **arrivals}})
    stream = open_stream(cls, index=0, seed=seed, start=datetime(2026, 1, 5), horizon_s=horizon_s, base_dir=None)
    parts = []
    while (chunk := stream.next_chunk()) is not None:
        assert chunk.prompt_tokens is None
        parts.append(chunk.arrival_s)
    return stream, np.concatenate(parts) if parts else np.empty(0)


def test_the_facts_of_a_small_trace(tmp_path):
    times = [0.0, 1.0, 2.0, 3.0, 10.0]
    summary = summarize(written(tmp_path, times, [1, 2, 3, 4, 100], [5, 0, 5, 5, 5]))
    assert summary.name == "my-trace"
    assert summary.requests == 5
    assert summary.failed == 1
    assert summary.duration_s == 12.5
    assert summary.mean_rps == pytest.approx(0.4)
    gaps = np.diff(times)
    assert summary.gap_cv == pytest.approx(gaps.std() / gaps.mean(), abs=1e-4)
    assert summary.prompt_tokens.mean == 22.0
    assert summary.prompt_tokens.maximum == 100
    assert summary.prompt_tokens.quantiles["0.5"] == 3.0
    assert summary.rate is not None
    assert sum(summary.rate.rps) * summary.duration_s == pytest.approx(5.0), "few requests: one step for all"
    assert sorted(summary.pairs.prompt) == [1, 2, 3, 4, 100]
    assert summary.start is None
    assert summary.source.title == ""


def test_a_single_moment_has_no_rate(tmp_path):
    for times in ([5.0], [0.0, 0.0, 0.0]):
        summary = summarize(written(tmp_path, times))
        assert summary.rate is None
        assert "all requests come at one moment" in summary.notes[0]


def test_the_rate_steps_hold_every_request(tmp_path):
    generator = np.random.default_rng(1)
    times = np.sort(generator.uniform(0.0, 5000.0, 30_000)).round(4)
    summary = summarize(written(tmp_path, times))
    steps = summary.rate
    assert steps is not None
    widths = np.minimum(steps.bin_s, summary.duration_s - steps.bin_s * np.arange(len(steps.rps)))
    assert (np.array(steps.rps) * widths).sum() == pytest.approx(30_000, rel=1e-6)
    assert summary.residual_cv == pytest.approx(1.0, abs=0.05)
    rate = summary.rate_function()
    assert rate.integral(summary.duration_s) == pytest.approx(30_000, rel=1e-6)
    assert rate.integral(2.5 * summary.duration_s) > 2.4 * 30_000
    assert summary.rate_function(repeat=False).integral(1e6) == pytest.approx(30_000, rel=1e-6)


def test_a_long_trace_is_counted_in_bounded_memory(tmp_path):
    """Three years in seconds is more bins than are kept: they widen, and no request is lost."""
    times = np.linspace(0.0, 3 * 365 * 86_400.0, 5000).round(1)
    summary = summarize(written(tmp_path, times))
    assert summary.requests == 5000
    assert len(summary.rate.rps) <= 400
    assert np.array(summary.rate.rps).mean() == pytest.approx(summary.mean_rps, rel=0.02)


def test_what_is_written_reads_back_the_same(tmp_path):
    summary = summarize(written(tmp_path, np.arange(500) * 0.5, range(1, 501), range(2, 502)))
    (tmp_path / "s.json").write_text(summary.to_json())
    assert load_summary("s.json", tmp_path) == summary


def test_bundled_summaries_are_small_and_say_where_they_come_from():
    names = bundled_summaries()
    assert {"azure-2023-conv", "mooncake-conversation", "servegen-m-large", "sharegpt", "openorca"} <= set(names)
    total = 0
    for name in names:
        summary = load_summary(name)
        assert summary.name == name
        assert summary.source.url.startswith("https://github.com/")
        assert summary.source.licence
        assert summary.source.title
        assert summary.source.cite
        total += len(summary.to_json())
        assert len(summary.to_json()) < 60_000
    assert total < 600_000


@pytest.mark.parametrize("name", [*bundle_summaries.TRACES, *bundle_summaries.LENGTHS])
def test_bundled_summaries_are_what_the_data_say(name, shared_data):
    made = bundle_summaries.made(name, shared_data)
    kept = load_summary(name)
    assert made.model_dump(exclude={"pairs"}) == kept.model_dump(exclude={"pairs"})
    assert made.pairs == kept.pairs


@pytest.mark.parametrize("name", bundled_summaries())
def test_the_pairs_have_the_means_and_quantiles_of_the_trace(name):
    summary = load_summary(name)
    for values, facts in ((summary.pairs.prompt, summary.prompt_tokens), (summary.pairs.output, summary.output_tokens)):
        assert np.mean(values) == pytest.approx(facts.mean, rel=0.005)
        for p, value in facts.quantiles.items():
            near = np.quantile(values, [max(0.0, float(p) - 0.004), min(1.0, float(p) + 0.004)])
            assert near[0] - 1.0 <= value <= near[1] + 1.0


@pytest.mark.parametrize("cv", [1.0, 2.0])
def test_drawn_traffic_is_like_the_real_hour(cv, shared_data):
    """Twenty drawn hours against the one real hour: total, rate over time, and both lengths."""
    path = shared_data / "trace_azure_llm_2023" / "azure_llm_2023_conv.csv.gz"
    blocks = list(TraceReader(path).blocks())
    real_t = np.concatenate([block.arrival_s for block in blocks])
    real = [np.concatenate([getattr(block, f"{side}_tokens") for block in blocks]) for side in ("prompt", "output")]
    summary = load_summary("azure-2023-conv")
    runs = [drawn("azure-2023-conv", seed, summary.duration_s, cv=cv)[1] for seed in range(20)]
    counts = np.array([len(t) for t in runs])
    half_width = stats.t.ppf(0.999, 19) * counts.std(ddof=1) / math.sqrt(20)
    assert abs(counts.mean() - len(real_t)) < half_width
    assert half_width < 0.02 * len(real_t)
    bins = np.arange(0.0, 3600.0, 300.0)
    of_real = np.histogram(real_t, bins)[0]
    of_drawn = np.mean([np.histogram(t, bins)[0] for t in runs], axis=0)
    np.testing.assert_allclose(of_drawn, of_real, rtol=0.05 * cv)
    stream, _ = drawn("azure-2023-conv", 0, 1.0)
    u = (np.random.default_rng(1).random(200_000) * len(stream.joint.prompt)).astype(int)
    for values, truth in ((stream.joint.prompt[u], real[0]), (stream.joint.output[u], real[1])):
        assert values.mean() == pytest.approx(truth.mean(), rel=0.01)
        for p in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
            assert np.quantile(values, p) == pytest.approx(np.quantile(truth, p), rel=0.03, abs=2.0)
    real_rank = stats.spearmanr(*real).statistic
    assert stats.spearmanr(stream.joint.prompt, stream.joint.output).statistic == pytest.approx(real_rank, abs=0.05)


@pytest.mark.parametrize(("name", "prompt", "output"), SERVEGEN_MEANS)
def test_lengths_of_clients_are_weighted_by_their_requests(name, prompt, output):
    summary = load_summary(name)
    assert summary.prompt_tokens.mean == pytest.approx(prompt, rel=0.002)
    assert summary.output_tokens.mean == pytest.approx(output, rel=0.01)


def test_windows_of_clients_add_up(shared_data):
    reader = TraceReader(shared_data / "trace_servegen" / "deepseek_r1_client_windows.csv.gz")
    windows = read_windows(reader)
    summary = load_summary("servegen-deepseek-r1")
    assert windows.total_rps().mean() == pytest.approx(16.0, rel=0.01)
    assert windows.rate_rps.sum() * 600.0 == pytest.approx(summary.requests, abs=1.0)
    assert summary.residual_cv == pytest.approx(windows.pooled_cv(), abs=1e-4)


def test_the_prefix_hits_of_an_unlimited_cache(shared_data):
    assert load_summary("mooncake-conversation").prefix.ideal_hit_ratio == pytest.approx(0.3736, abs=1e-4)


def test_scale_and_end_of_a_summary():
    summary = load_summary("azure-2023-conv")
    once, t = drawn("azure-2023-conv", 1, 3 * summary.duration_s, repeat=False, rate_scale=0.1)
    assert t[-1] < summary.duration_s
    assert once.load.mean_rate_rps == pytest.approx(summary.mean_rps * 0.1 / 3.0, rel=1e-3)
    again, t = drawn("azure-2023-conv", 1, 3 * summary.duration_s, rate_scale=0.1)
    assert t[-1] > 2.5 * summary.duration_s
    assert again.load.mean_rate_rps == pytest.approx(summary.mean_rps * 0.1, rel=1e-3)
    assert again.load.peak_rate_rps == pytest.approx(summary.peak_rps * 0.1, rel=1e-3)


def test_lengths_alone_say_nothing_about_arrivals():
    with pytest.raises(TraceError, match="holds lengths without times"):
        drawn("openorca", 0, 10.0)
