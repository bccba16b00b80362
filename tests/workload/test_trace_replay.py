"""Replaying traces: every request once, and what scaling, cutting and repeating do."""

import gzip
import json
import math

import numpy as np
import pytest

from simlab.errors import TraceError
from simlab.workload import replay
from simlab.workload.reader import TraceReader
from simlab.workload.replay import Cut, TraceReplay

ROWS = [(0.0, 100, 10), (1.0, 200, 20), (1.0, 300, 30), (4.0, 400, 40), (9.0, 500, 0)]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("t_s,input_tokens,output_tokens\n" + "".join(f"{t},{p},{o}\n" for t, p, o in ROWS))
    return path


@pytest.fixture
def long_trace(tmp_path):
    generator = np.random.default_rng(3)
    times = np.cumsum(generator.exponential(0.5, 20_000)).round(3)
    lengths = generator.integers(1, 1000, (20_000, 2))
    path = tmp_path / "long.csv"
    rows = "".join(f"{t},{p},{o}\n" for t, (p, o) in zip(times, lengths.tolist(), strict=True))
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
    return path


def played(path, cut=None, *, seed=1, index=0, horizon_s=math.inf, written="auto"):
    source = TraceReplay(TraceReader(path, written), cut or Cut(), seed=seed, index=index, horizon_s=horizon_s)
    chunks = []
    while (chunk := source.next_chunk()) is not None:
        assert 0 < len(chunk) <= 65536
        chunks.append(chunk)
    return chunks


def joined(chunks):
    t = np.concatenate([c.arrival_s for c in chunks])
    assert np.all(np.diff(t) >= 0.0)
    return t, np.concatenate([c.prompt_tokens for c in chunks]), np.concatenate([c.output_tokens for c in chunks])


def test_a_plain_replay_is_the_trace(trace):
    t, prompt, output = joined(played(trace))
    assert t.tolist() == [row[0] for row in ROWS]
    assert prompt.tolist() == [row[1] for row in ROWS]
    assert output.tolist() == [10, 20, 30, 40, 1], "a request without output gets one token"


def test_cut_stretch_and_repeat(trace):
    t, prompt, _ = joined(played(trace, Cut(from_s=1.0, to_s=5.0, time_scale=2.0, repeat=2)))
    assert t.tolist() == [0.0, 0.0, 6.0, 8.0, 8.0, 14.0]
    assert prompt.tolist() == [200, 300, 400, 200, 300, 400]


def test_without_an_end_a_repetition_lasts_one_mean_gap_longer_than_the_trace(trace):
    t, _, _ = joined(played(trace, Cut(repeat=2)))
    assert t[5] == pytest.approx(9.0 + 9.0 / 4)


def test_forever_ends_at_the_horizon(trace):
    t, _, _ = joined(played(trace, Cut(to_s=10.0, repeat=math.inf), horizon_s=1000.0))
    assert len(t) == 500
    assert t[-1] == 999.0
    assert played(trace, Cut(to_s=10.0, repeat=math.inf), horizon_s=4.0)[0].arrival_s.tolist() == [0.0, 1.0, 1.0]


def test_thinning_keeps_rows_by_chance_but_always_the_same_ones(long_trace):
    all_t, _, _ = joined(played(long_trace))
    t, prompt, _ = joined(played(long_trace, Cut(rate_scale=0.3)))
    assert np.isin(t, all_t).all()
    assert abs(len(t) - 6000) < 4 * math.sqrt(20_000 * 0.3 * 0.7)
    again, same, _ = joined(played(long_trace, Cut(rate_scale=0.3)))
    np.testing.assert_array_equal(t, again)
    np.testing.assert_array_equal(prompt, same)
    other, _, _ = joined(played(long_trace, Cut(rate_scale=0.3), seed=2))
    assert len(np.intersect1d(t, other)) < 0.4 * len(t)
    more, _, _ = joined(played(long_trace, Cut(rate_scale=0.6)))
    assert np.isin(t, more).all(), "a higher scale keeps every request of a lower one"


def test_multiplying_keeps_the_rows_and_the_distribution_of_lengths(long_trace):
    all_t, all_p, all_o = joined(played(long_trace))
    t, prompt, output = joined(played(long_trace, Cut(rate_scale=2.25)))
    assert abs(len(t) - 45_000) < 4 * math.sqrt(20_000 * 0.25 * 0.75)
    assert np.isin(all_t, t).all()
    assert prompt.mean() == pytest.approx(all_p.mean(), rel=0.02)
    pairs = set(zip(all_p.tolist(), all_o.tolist(), strict=True))
    assert set(zip(prompt.tolist(), output.tolist(), strict=True)) <= pairs, "prompt and output stay together"
    assert t[-1] < all_t[-1] + 1.0


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_blocks_do_not_change_the_stream(long_trace, scale, monkeypatch):
    whole = joined(played(long_trace, Cut(rate_scale=scale, repeat=2)))
    blocks = TraceReader.blocks
    monkeypatch.setattr(TraceReader, "blocks", lambda self: blocks(self, 777))
    for a, b in zip(whole, joined(played(long_trace, Cut(rate_scale=scale, repeat=2))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_blocks_are_handed_out_in_chunks(long_trace, monkeypatch):
    whole = joined(played(long_trace, Cut(rate_scale=3.0)))
    monkeypatch.setattr(replay, "CHUNK", 1000)
    chunks = played(long_trace, Cut(rate_scale=3.0))
    assert max(map(len, chunks)) == 1000
    for a, b in zip(whole, joined(chunks), strict=True):
        np.testing.assert_array_equal(a, b)


def chains(chunks):
    out = []
    for c in chunks:
        for i in range(len(c)):
            span = slice(c.segment_ptr[i], c.segment_ptr[i + 1])
            out.append(list(zip(c.segment_id[span].tolist(), c.segment_tokens[span].tolist(), strict=True)))
    return out


@pytest.fixture
def hashed(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    rows = [
        {"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]},
        {"timestamp": 500, "input_length": 1024, "output_length": 6, "hash_ids": [0, 2]},
        {"timestamp": 2000, "input_length": 100, "output_length": 7, "hash_ids": []},
        {"timestamp": 2500, "input_length": 1600, "output_length": 7, "hash_ids": [0, 2, 3]},
    ]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_blocks_of_a_prompt_become_a_chain_of_segments(hashed):
    chunks = played(hashed)
    assert chains(chunks) == [
        [(0, 512), (1, 188)],
        [(0, 512), (2, 512)],
        [],
        [(0, 512), (2, 512), (3, 512)],  # 64 tokens of this prompt have no block: they are its own
    ]
    assert joined(chunks)[0].tolist() == [0.0, 0.5, 2.0, 2.5]


def test_copies_and_repetitions_share_among_themselves_only(hashed):
    found = chains(played(hashed, Cut(rate_scale=2.0, repeat=2)))
    assert len(found) == 16
    first_ids = {chain[0][0] for chain in found if chain}
    assert len(first_ids) == 4, "two copies in each of two repetitions, each a population of its own"
    assert 0 in first_ids
    for start in first_ids:
        mine = [chain for chain in found if chain and chain[0][0] == start]
        assert len(mine) == 3
        assert mine[1][1] == mine[2][1], "the shared second block stays shared"
        assert mine[0][1][0] != mine[1][1][0]
    assert all(block >= 0 for chain in found for block, _ in chain)


def test_cutting_keeps_chains_with_their_requests(hashed):
    assert chains(played(hashed, Cut(from_s=0.5, to_s=2.5))) == [[(0, 512), (2, 512)], []]


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Cut(from_s=100.0), "has no request from 100 s to inf s"),
        (Cut(from_s=4.0, to_s=5.0, repeat=2), None),
        (Cut(from_s=9.0, repeat=2), "cannot be repeated"),
    ],
)
def test_cuts_that_make_no_sense_are_refused(trace, cut, message):
    if message is None:
        assert joined(played(trace, cut))[0].tolist() == [0.0, 1.0]
    else:
        with pytest.raises(TraceError, match=message):
            played(trace, cut)


def test_all_files_say_the_same(trace, tmp_path):
    pandas = pytest.importorskip("pandas")
    expected = joined(played(trace))
    frame = pandas.DataFrame(ROWS, columns=["arrival_s", "prompt_tokens", "output_tokens"])
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    for name in ("t.parquet", "t.jsonl", "t.tsv", "t.csv.gz"):
        for a, b in zip(expected, joined(played(tmp_path / name)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_dates_are_read_with_and_without_offsets(tmp_path):
    path = tmp_path / "AzureLLMInferenceTrace_conv_1week.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10T02:00:00.5+02:00,2399,6\n\n2024-05-10 00:00:01.0099300,76,15\n"
    )
    reader = TraceReader(path)
    t = np.concatenate([block.arrival_s for block in reader.blocks()])
    np.testing.assert_allclose(t, [0.0, 0.49007, 1.0], atol=1e-9)
    assert reader.format == "azure-2024"
    assert str(reader.start) == "2024-05-10 00:00:00.009930+00:00"


def test_burstgpt_and_the_original_azure_columns_are_known(tmp_path):
    burst = tmp_path / "b.csv"
    burst.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,a\n")
    azure = tmp_path / "a.csv"
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    assert TraceReader(burst).format == "burstgpt"
    assert TraceReader(azure).format == "azure-2023"
    assert joined(played(burst))[1].tolist() == [472]
