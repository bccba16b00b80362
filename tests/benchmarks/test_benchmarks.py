"""Every benchmark runs, at sizes where it measures nothing; the tables are right on made-up measurements."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chat, oracle_size, replicas, simpy_replica
from benchmarks.against import checkout, short_name
from benchmarks.case import Case, Report, Sample
from benchmarks.catalogue import BENCHMARKS, CASES
from benchmarks.process import CaseError, measure
from benchmarks.remarks import remarks
from benchmarks.table import ratios, results

ROOT = Path(__file__).resolve().parents[2]
TINY = 1e-4


def python(code: str, is_rate: bool = False) -> Case:
    """A case that runs a line of Python and reports 100 requests in the 2 s that it claims."""
    return Case("made", "up", lambda scale: ["-c", code], lambda printed: Report(100, 2.0, printed.strip()), is_rate)


def sample(seconds: float, peak_mib: float = 100.0, requests: float = 0.0, **facts: float) -> Sample:
    return Sample(seconds, seconds, peak_mib, Report(requests, seconds, "a note", facts))


@pytest.mark.parametrize("case", [case for case in CASES if not case.fresh_cache], ids=lambda case: case.name)
def test_each_case_runs(case: Case) -> None:
    taken = measure(case, ROOT, TINY)
    assert taken.seconds > 0.0
    assert taken.peak_mib > 5.0
    assert (taken.report.requests > 0.0) == (case.is_rate or case.benchmark == "month")


def test_first_compilation_starts_without_compiled_code(tmp_path: Path) -> None:
    kept = [case for case in CASES if case.fresh_cache]
    assert [case.benchmark for case in kept] == ["compilation"]
    shown = Case("made", "up", lambda scale: ["-c", "import os; print(os.environ['NUMBA_CACHE_DIR'])"],
                 lambda printed: Report(note=printed.strip()), fresh_cache=True)  # fmt: skip
    first, second = measure(shown, tmp_path, 1.0).report.note, measure(shown, tmp_path, 1.0).report.note
    assert first != second
    assert not Path(first).exists()


def test_a_child_is_measured_by_itself() -> None:
    small = measure(python("print('hello')"), ROOT, 1.0)
    assert small.report.note == "hello"
    assert small.rate_rps == 50.0


def test_memory_is_the_childs_own_as_python_m_benchmarks_asks_for_it() -> None:
    """From a small process, as that is: Linux counts the caller's size at the fork in the child's peak memory."""
    code = (
        "from pathlib import Path\n"
        "from benchmarks.case import Case, Report\n"
        "from benchmarks.process import measure\n"
        "for child in ('x = bytearray(200 << 20)', 'pass'):\n"
        "    case = Case('made', 'up', lambda scale: ['-c', child], lambda said: Report(1, 1.0, said, {}), False)\n"
        "    print(measure(case, Path('.'), 1.0).peak_mib)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    large, small = (float(line) for line in done.stdout.split())
    assert large > 200.0 > small


def test_a_failing_case_says_what_it_said() -> None:
    with pytest.raises(CaseError, match=r"made, up: exit code 3\n.*no luck"):
        measure(python("import sys; print('no luck', file=sys.stderr); sys.exit(3)"), ROOT, 1.0)


def test_a_worker_that_breaks_is_not_a_plan_that_misses_its_objectives() -> None:
    with pytest.raises(CaseError, match="exit code 1"):
        measure(python("raise RuntimeError"), ROOT, 1.0)


def test_seventy_percent_is_below_what_the_replicas_can_do() -> None:
    capacity = replicas.capacity_rps("no prefix caching", 4000)
    # With full batches of 256 a request of 690 + 180 tokens costs its prefill, its share of 180 steps, its context.
    step_share_s = 180 * (chat.BASE_S / 256 + chat.DECODE_SEQ_S) + 690 * chat.PREFILL_TOKEN_S
    assert 0.8 < capacity / (replicas.REPLICAS / step_share_s) < 1.1


def test_the_simpy_program_serves_as_simlab_does() -> None:
    ours, plain = (oracle_size.run(case, 300).facts for case in ("simlab", "simpy"))
    assert ours == pytest.approx(plain, rel=1e-9)


def test_the_simpy_program_steps_as_by_hand() -> None:
    # A prompt of two full budgets: two steps of prefill, then one decode step beside the second request's prefill.
    budget = chat.MAX_NUM_BATCHED_TOKENS
    first, second = sorted(simpy_replica.simulate([(0.0, 2 * budget, 2), (0.001, 100, 1)]))
    step = chat.BASE_S + chat.PREFILL_TOKEN_S * budget
    two = 2 * step + chat.CONTEXT_TOKEN_S * 3 * budget
    mixed = chat.BASE_S + chat.DECODE_SEQ_S + 100 * chat.PREFILL_TOKEN_S + chat.CONTEXT_TOKEN_S * (2 * budget + 101)
    assert first == pytest.approx((0.0, two, two + mixed))
    assert second == pytest.approx((0.001, two + mixed, two + mixed))


def test_results_show_best_median_and_targets() -> None:
    rates = Case("a", "quick", lambda scale: [], lambda printed: Report(), target_rps=1e6, target_mib=90)
    times = Case("b", "slow", lambda scale: [], lambda printed: Report(), is_rate=False, target_s=3)
    table = results([
        (rates, [sample(1.0, requests=2e6), sample(4.0, requests=2e6), sample(2.0, requests=2e6)]),
        (times, [sample(2.0), sample(5.0), sample(4.0)]),
    ])  # fmt: skip
    head, rule, first, second = table.splitlines()
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        "a", "quick", "2.00 M/s", "1.00 M/s", "3", "2 s", "100 MiB", "≥ 1.00 M/s ✓, ≤ 90 MiB ✗", "a note",
    ]  # fmt: skip
    assert [cell.strip() for cell in second.split("|")[3:9]] == ["2 s", "4 s", "3", "4 s", "100 MiB", "≤ 3 s ✗"]


def test_ratios_say_how_many_times_faster_this_tree_is() -> None:
    case = Case("a", "one", lambda scale: [], lambda printed: Report(), is_rate=False)
    table = ratios([(case, [sample(4.0), sample(6.0)], [sample(2.0, 50.0), sample(2.0, 50.0)])], "abc1234")
    assert [cell.strip() for cell in table.splitlines()[2].split("|")[3:-1]] == [
        "4 s", "2 s", "× 2.00", "× 2.50", "× 0.50",
    ]  # fmt: skip


def test_remarks_compare_across_lines() -> None:
    by_name = {case.name: case for case in CASES}
    told = remarks([
        (by_name["3 days"], [sample(1.0, 200.0)]),
        (by_name["30 days"], [sample(10.0, 210.0)]),
        (by_name["simlab.replay"], [sample(0.5, requests=100, ttft_s=1.0, e2e_s=2.0)]),
        (by_name["ordinary SimPy program"], [sample(50.0, requests=100, ttft_s=1.0, e2e_s=2.5)]),
    ])  # fmt: skip
    assert told[0] == "Ten times the horizon takes +10 MiB (+5.0%) at the peak."
    assert told[1].startswith("simlab.replay is 100 times as fast as the SimPy program; mean TTFT differs by 0.0e+00")
    assert "mean E2E by 2.0e-01" in told[1]
    assert "quoted and not measured here: BLIS 3,200" in told[1]
    assert remarks([]) == []


def test_unknown_names_are_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"no benchmark 'speed'; allowed: {', '.join(BENCHMARKS)}" in done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of this tree's code with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "repository"
    for name in ("simlab", "benchmarks", "scenarios"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    me = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for arguments in (("init", "-q"), ("add", "."), (*me, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def test_a_checkout_has_the_old_code_and_todays_benchmarks(repository: Path) -> None:
    (repository / "simlab" / "new.py").write_text("")
    (repository / "benchmarks" / "new.py").write_text("")
    with checkout(repository, "HEAD") as tree:
        assert (tree / "simlab" / "__init__.py").is_file()
        assert not (tree / "simlab" / "new.py").exists()
        assert (tree / "benchmarks" / "new.py").is_file()
    assert not tree.exists()
    assert len(short_name(repository, "HEAD")) >= 7
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_against_measures_both_sides(repository: Path) -> None:
    # Uncompiled, because a fresh checkout has no compiled code yet and nothing is timed here.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "oracle-size", "--scale", "0.005", "--runs", "1", "--against", "HEAD"],
        cwd=repository, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| oracle-size |") == 2
    assert done.stdout.count("×") == 6
    assert "not measured" not in done.stdout


def test_against_goes_on_when_the_old_code_cannot(repository: Path) -> None:
    library = repository / "simlab" / "workload"
    library.rename(library.with_name("traffic"))
    me = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *me, "commit", "-q", "-a", "-m", "broken"], cwd=repository, check=True)
    subprocess.run(["git", "tag", "broken"], cwd=repository, check=True)
    library.with_name("traffic").rename(library)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "arrivals", "--scale", "1e-5", "--runs", "1", "--against", "broken"],
        cwd=repository, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not measured: arrivals, ") == 3
    assert "No module named 'simlab.workload'" in done.stdout
