"""Sessions against the stand-in for vLLM: what is kept, going on, what goes wrong; no server is left behind."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess

import pytest
from faking import FIRST, SECOND, TWO, VLLM, alive, end_at_once, free_port, session, wait_until

from simlab.calibrate.bench.plan import Plan, Point
from simlab.calibrate.bench.session import Session, foreseen, run
from simlab.calibrate.run import Load
from simlab.errors import InputError


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """What the stand-in notes: the pids of servers and the benchmarks run; its servers are ended in any case."""
    monkeypatch.setenv("FAKE_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("FAKE_RAN", str(tmp_path / "ran"))
    monkeypatch.setattr("simlab.calibrate.bench.child.GRACE_S", 2.0)

    class Fake:
        @property
        def pids(self) -> list[int]:
            return json.loads((tmp_path / "pids").read_text())

        @property
        def ran(self) -> list[str]:
            return (tmp_path / "ran").read_text().split()

    fake = Fake()
    yield fake
    if (tmp_path / "pids").exists():
        left = [pid for pid in fake.pids if alive(pid)]
        for pid in left:
            end_at_once(pid)
        assert not left, "a server was left behind"


def measure(asked: Session, notes: list[str] | None = None):
    return run(asked, lambda done, total, note: notes.append(note) if notes is not None else None)


def test_a_session_keeps_results_and_what_goes_with_them(tmp_path, fake):
    out, notes = tmp_path / "out", []
    answer = measure(session(out, flags=("--max-num-seqs", "64", "--api-key", "secret")), notes)
    assert fake.ran == ["warm-up", FIRST, SECOND]
    assert sorted(path.name for path in (out / "results").iterdir()) == sorted(f"{name}.json" for name in fake.ran[1:])
    result = json.loads((out / "results" / f"{SECOND}.json").read_text())
    assert (result["completed"], result["max_concurrency"]) == (16, 4)

    side = json.loads((out / "server_side" / f"{SECOND}.metrics.json").read_text())
    assert side["metrics_delta"] == {"vllm:generation_tokens_total": 256.0, "vllm:prompt_tokens_total": 1024.0}
    assert "--max-concurrency 4 --seed 2" in side["command"]
    assert (side["server"]["kv_blocks"], side["server"]["gpu"]) == (4096, "h100-sxm")

    server = json.loads((out / "server.json").read_text())
    assert server["vllm"] == "0.32.0"
    assert server["cache_config"]["num_gpu_blocks"] == "4096"
    (start,) = server["starts"]
    assert start["ready_s"] > 0.1  # it is unhealthy for so long
    assert start["phases"] == {"weights_loaded_s": 1.5, "engine_ready_s": 2.25}
    assert start["command"][-4:] == ["--max-num-seqs", "64", "--api-key", "***"]
    assert not any("secret" in path.read_text() for path in out.glob("*.json"))

    assert sorted(path.name for path in out.iterdir()) == [
        "plan.json", "results", "server-1.log", "server.json", "server_side",
    ]  # fmt: skip
    assert answer.outcomes[FIRST].requests == 8
    assert f"calibrate fit {out}/results --gpu h100-sxm --model tiny" in answer.fit_command
    assert notes[0] == "the server starts"
    assert f"1/2 {FIRST}: base" in notes
    assert f"2/2 {SECOND}: ladder" in notes


def test_step_logs_are_kept_where_the_server_writes_them(tmp_path, fake):
    out = tmp_path / "out"
    answer = measure(session(out, flags=("--enable-logging-iteration-details",)))
    for name, tokens in ((FIRST, "512"), (SECOND, "1024")):
        with gzip.open(out / "server_side" / f"{name}.iterations.csv.gz", "rt") as file:
            (row,) = csv.DictReader(file)
        assert row["context_tokens"] == tokens  # the other benchmark's step is not in it
    assert str(out / "server_side") in answer.fit_command


def test_rates_come_from_the_capacity_measured_before(tmp_path, fake):
    lengths = {"prompt_tokens": 64, "output_tokens": 16}
    half = Point("mixed", Load(**lengths), seconds=30, share=0.5, seed=3)
    answer = measure(session(tmp_path / "out", half, TWO[1]))
    assert fake.ran[1:] == [SECOND, half.name]
    capacity = answer.outcomes[SECOND].throughput_rps
    assert answer.outcomes[half.name].rate_rps == pytest.approx(capacity / 2, rel=0.005)
    assert answer.outcomes[half.name].capacity.endswith(f"measured at {SECOND}")


def test_points_too_long_for_the_server_are_left_out_with_the_reason(tmp_path, fake):
    long = Point("long", Load(concurrency=1, requests=8, prompt_tokens=8192, output_tokens=4))
    answer = measure(session(tmp_path / "out", TWO[0], long))
    assert fake.ran == ["warm-up", FIRST]
    assert answer.outcomes[long.name].reason == "8196 tokens are above max_model_len 4096"


def test_finished_points_are_not_run_again(tmp_path, fake, monkeypatch):
    out, port = tmp_path / "out", free_port()
    monkeypatch.setenv("FAKE_FAILS", SECOND)
    with pytest.raises(InputError, match="Initial test run failed"):
        measure(session(out, port=port))
    before = (out / "results" / f"{FIRST}.json").read_bytes()
    monkeypatch.delenv("FAKE_FAILS")
    answer = measure(session(out, port=port))
    assert fake.ran == ["warm-up", FIRST, SECOND, "warm-up", SECOND]
    assert (out / "results" / f"{FIRST}.json").read_bytes() == before
    assert [start["log"] for start in json.loads((out / "server.json").read_text())["starts"]] == [
        "server-1.log", "server-2.log",
    ]  # fmt: skip
    # With everything done there is nothing to start, and the same is told.
    again = measure(session(out, vllm="no-such-program"))
    assert again.outcomes == answer.outcomes
    assert again.fit_command == answer.fit_command
    assert len(fake.ran) == 5


def test_a_result_that_was_deleted_is_measured_again(tmp_path, fake):
    out = tmp_path / "out"
    measure(session(out))
    (out / "results" / f"{FIRST}.json").unlink()
    measure(session(out))
    assert fake.ran[3:] == ["warm-up", FIRST]


def test_a_result_may_be_compressed_meanwhile(tmp_path, fake):
    out = tmp_path / "out"
    measure(session(out))
    result = out / "results" / f"{FIRST}.json"
    result.with_suffix(".json.gz").write_bytes(gzip.compress(result.read_bytes()))
    result.unlink()
    measure(session(out))
    assert fake.ran == ["warm-up", FIRST, SECOND]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flags": ("--max-num-seqs", "8")}, "flags: this folder measures none, now asked for is --max-num-seqs 8"),
        ({"model": "other"}, "model: this folder measures tiny, now asked for is other"),
        ({"seed": 5}, "seed: this folder measures 0, now asked for is 5"),
        ({"url": "http://127.0.0.1:1"}, "url: this folder measures none, now asked for is http"),
    ],
)
def test_another_session_in_the_same_folder_is_refused(tmp_path, fake, changes, message):
    measure(session(tmp_path / "out", TWO[0]))
    with pytest.raises(InputError) as caught:
        measure(session(tmp_path / "out", TWO[0], **changes))
    assert message in str(caught.value)
    assert "give another --out" in str(caught.value)


def test_another_plan_in_the_same_folder_is_refused(tmp_path, fake):
    measure(session(tmp_path / "out", TWO[0]))
    with pytest.raises(InputError, match=f"point {SECOND} differs or is new"):
        measure(session(tmp_path / "out", *TWO))


def test_results_of_different_servers_do_not_mix(tmp_path, fake, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setenv("FAKE_FAILS", SECOND)
    with pytest.raises(InputError):
        measure(session(out))
    monkeypatch.delenv("FAKE_FAILS")
    monkeypatch.setenv("FAKE_VERSION", "0.33.0")
    with pytest.raises(InputError, match=r"vllm was 0\.32\.0, is now 0\.33\.0"):
        measure(session(out))
    assert fake.ran[3:] == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.json", '{"schema_version"', "cannot be read"),
        ("plan.json", '{"schema_version": 1}', "is not what this version of simlab writes"),
        ("plan.json", "[]", "is not a session's file"),
        ("server.json", "{}", "is not what this version of simlab writes"),
    ],
)
def test_a_broken_file_of_the_folder_says_so(tmp_path, fake, name, text, message):
    out = tmp_path / "out"
    measure(session(out, TWO[0]))
    (out / name).write_text(text)
    with pytest.raises(InputError) as caught:
        measure(session(out, TWO[0]))
    assert f"{out / name}: " in str(caught.value)
    assert message in str(caught.value)


def test_a_running_server_is_measured_and_left_running(tmp_path, fake):
    port = free_port()
    with subprocess.Popen([*VLLM.split(), "serve", "tiny", "--host", "127.0.0.1", "--port", str(port)]) as server:
        try:
            wait_until(lambda: (tmp_path / "pids").exists())
            asked = session(tmp_path / "out", url=f"http://127.0.0.1:{port}/v1/", flags=("--max-num-seqs", "32"))
            wait_until(lambda: healthy(asked))
            answer = measure(asked)
            assert server.poll() is None
        finally:
            server.kill()
    assert answer.facts.starts == ()
    assert "--max-num-seqs 32" in answer.fit_command
    assert not list((tmp_path / "out").glob("*.log"))


def healthy(asked: Session) -> bool:
    from simlab.calibrate.bench.server import running

    try:
        running(asked.url or "")
    except InputError:
        return False
    return True


def test_nothing_answers_at_the_address(tmp_path):
    with pytest.raises(InputError, match="no healthy vLLM server answers at /health"):
        measure(session(tmp_path / "out", url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(InputError, match="read 'localhost:8000'; write an address such as http://"):
        measure(session(tmp_path / "out2", url="localhost:8000"))


def test_a_server_that_does_not_start_shows_its_log(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", "start")
    with pytest.raises(InputError) as caught:
        measure(session(tmp_path / "out"))
    assert re.search(r"ended with exit code 1 after \d+ s, before it was ready", str(caught.value))
    assert "ValueError: no such model" in str(caught.value)
    assert "server-1.log" in str(caught.value)


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_SLOW", "600")
    with pytest.raises(InputError, match=r"not ready after \d+ s; give it longer with --start-timeout"):
        measure(session(tmp_path / "out", start_limit_s=1.0))


def test_a_server_that_dies_under_load_is_noticed(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", SECOND)
    monkeypatch.setenv("FAKE_HANGS", SECOND)
    with pytest.raises(InputError) as caught:
        measure(session(tmp_path / "out"))
    assert "ended with exit code 3 while it was measured" in str(caught.value)
    assert "illegal memory access" in str(caught.value)
    assert sorted(path.stem for path in (tmp_path / "out" / "results").iterdir()) == [FIRST]


def test_a_benchmark_that_hangs_is_stopped(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_HANGS", FIRST)
    monkeypatch.setattr("simlab.calibrate.bench.measurement.LIMIT_S", -1e9)
    with pytest.raises(InputError, match="is the server stuck"):
        measure(session(tmp_path / "out"))


def test_no_request_succeeds(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_ERRORS", FIRST)
    with pytest.raises(InputError, match="none of the 8 requests succeeded; the first error: Bad Request"):
        measure(session(tmp_path / "out"))
    assert not list((tmp_path / "out" / "results").iterdir())


def test_failed_requests_are_counted(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_ERRORS", f"half:{FIRST}")
    assert measure(session(tmp_path / "out")).outcomes[FIRST].failed == 4


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: the address is in use; give another --port"):
            measure(session(tmp_path / "out", port=port))


def test_no_vllm_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError) as caught:
        measure(session(tmp_path / "out", vllm="no-such-vllm"))
    assert "pip install 'simlab[vllm]'" in str(caught.value)
    assert "--vllm PATH" in str(caught.value)


def test_what_is_foreseen_needs_neither_vllm_nor_a_folder(tmp_path):
    asked = session(tmp_path / "out", vllm="no-such-vllm")
    assert [step.point.name for step in foreseen(asked).outlook.left()] == [FIRST, SECOND]
    assert not (tmp_path / "out").exists()


def test_everything_that_ignores_sigterm_is_ended_too(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_STUBBORN", "1")
    measure(session(tmp_path / "out", TWO[0]))
    assert len(fake.pids) == 2
    assert not any(alive(pid) for pid in fake.pids)


def test_a_plan_of_the_users_own_keeps_its_name(tmp_path):
    assert foreseen(session(tmp_path)).session.plan == Plan("test", TWO, designed=False)
