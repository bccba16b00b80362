"""Joint tables of lengths and how they are condensed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simlab.workload import JointTable
from simlab.workload.library import joint_table


def correlated(count, seed=0):
    generator = np.random.default_rng(seed)
    z = generator.multivariate_normal([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]], size=count)
    return JointTable.from_pairs(np.exp(6.0 + 1.2 * z[:, 0]), np.exp(5.0 + 0.8 * z[:, 1]))


@pytest.mark.parametrize("rows", [100, 1000])
def test_condensing_keeps_means_quantiles_and_dependence(rows):
    table = correlated(50_000)
    small = table.condensed(rows)
    assert len(small.prompt) == rows
    assert small.mean_prompt_tokens == pytest.approx(table.mean_prompt_tokens, rel=1e-3)
    assert small.mean_output_tokens == pytest.approx(table.mean_output_tokens, rel=1e-3)
    for p in (0.1, 0.5, 0.9, 0.95):
        assert np.quantile(small.prompt, p) == pytest.approx(np.quantile(table.prompt, p), rel=0.05)
        assert np.quantile(small.output, p) == pytest.approx(np.quantile(table.output, p), rel=0.05)
    before = stats.spearmanr(table.prompt, table.output).statistic
    assert stats.spearmanr(small.prompt, small.output).statistic == pytest.approx(before, abs=0.06)
    product = float((table.prompt * table.output).mean())
    assert float((small.prompt * small.output).mean()) == pytest.approx(product, rel=0.12)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 900)), min_size=1, max_size=400),
    st.integers(1, 60),
)
def test_condensing_any_table_stays_within_its_range_and_keeps_the_mean(pairs, rows):
    table = JointTable.from_pairs(*np.array(pairs).T)
    small = table.condensed(rows)
    assert len(small.prompt) == min(rows, len(pairs))
    for before, after in ((table.prompt, small.prompt), (table.output, small.output)):
        assert before.min() - 1 <= after.min()
        assert after.max() <= before.max() + 1
        assert abs(after.mean() - before.mean()) <= 1.0


def test_a_small_table_is_kept_as_it_is():
    table = correlated(50)
    assert table.condensed(50) is table


def test_pairs_must_match_and_lengths_are_at_least_one_token():
    table = JointTable.from_pairs([0, 5], [7, 0])
    assert table.prompt.tolist() == [1, 5]
    assert table.output.tolist() == [7, 1]
    for bad in (([], []), ([1], [1, 2])):
        with pytest.raises(ValueError, match="as many prompts as outputs"):
            JointTable.from_pairs(*bad)


def test_a_table_can_be_a_file_with_two_columns(tmp_path):
    (tmp_path / "mine.csv").write_text("input_length,output_length\n10,1\n20,0\n")
    table = joint_table("mine.csv", tmp_path)
    assert table.prompt.tolist() == [10, 20]
    assert table.output.tolist() == [1, 1]
    assert joint_table("openorca").mean_prompt_tokens > 1.0
