"""`simlab calibrate fit` and `validate`: what they print, write and refuse."""

import csv
import json

import pytest
from typer.testing import CliRunner

from simlab.calibrate.benchmark import simulate_run
from simlab.calibrate.limits import limits_of
from simlab.calibrate.run import Load, Run, Server
from simlab.cli.main import app
from simlab.errors import InputError, OutputError
from simlab.profiles import StepTime, load

TRUE = StepTime(
    base_s=8e-3, per_seq_s=6e-5, per_kv_token_s=4e-8, attn_s=6e-10, per_prefill_token_s=4e-5, overhead_s=12e-3
)
POINTS = [(1, 512, 64), (4, 512, 64), (16, 512, 64), (8, 2000, 32)]
UNSEEN = [(8, 512, 64), (2, 1000, 48)]
OWN = ("own", "card", 1)
METRICS = {"mean_ttft_ms": "ttft_s_mean", "mean_itl_ms": "itl_s_mean", "p99_ttft_ms": "ttft_s_p99"}


def table(path, points, setups=(OWN,), *, slower=1.0):
    """A table of runs as the true step time gives them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "gpu", "tp", "precision", "max_num_seqs", "max_num_batched_tokens", "concurrency",
                         "num_prompts",
                         "input_len", "output_len", *METRICS, "output_throughput"])  # fmt: skip
        for model, gpu, tp in setups:
            server = Server(model, gpu, tp, max_num_seqs=64, max_num_batched_tokens=2048)
            for users, prompt, output in points:
                run = Run("r", "", server, Load(users, requests=10 * users, prompt_tokens=prompt, output_tokens=output))
                found = simulate_run(run, TRUE, limits_of(server))
                times = [found[metric] * slower * 1e3 for metric in METRICS.values()]
                writer.writerow([model, gpu, tp, "bf16", 64, 2048, users, 10 * users, prompt, output, *times,
                                 found["output_tokens_per_s"] / slower])  # fmt: skip
    return path


def simlab(*arguments):
    """Runs the command line; an error of the input comes out as it would leave the command."""
    done = CliRunner().invoke(app, ["calibrate", *map(str, arguments)], prog_name="simlab", env={"COLUMNS": "110"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with tables and a profile that was fitted from the command line."""
    place = tmp_path_factory.mktemp("calibrate")
    table(place / "seen.csv", POINTS)
    table(place / "unseen.csv", UNSEEN)
    table(place / "slow.csv", UNSEEN, slower=1.5)
    done = simlab("fit", place / "seen.csv", "-o", place / "own.json", "-q", "--format", "json", "--workers", 1)
    assert done.exit_code == 0
    (place / "fit.json").write_text(done.stdout)
    return place


def test_a_fit_says_all_of_itself_in_json(folder):
    data = json.loads((folder / "fit.json").read_text())
    (one,) = data["profiles"]
    assert one["setup"] == "own.card.tp1.bf16"
    assert one["file"] == str(folder / "own.json")
    assert (one["runs"], one["requests"], one["steps"]) == (4, 10 * (1 + 4 + 16 + 8), 0)
    assert {row["term"] for row in one["coefficients"]} >= {"base_s", "overhead_s"}
    assert one["error"]["itl_left_out_median_ape"] < 0.15
    assert data["left_out"] == []
    assert load(folder / "own.json").max_num_seqs == 64


def test_a_fit_prints_coefficients_errors_and_what_to_do_next(folder, tmp_path):
    done = simlab("fit", folder / "seen.csv", "-o", tmp_path / "p.json", "-q", "--workers", 1)
    assert done.stdout.startswith("own.card.tp1.bf16: fitted on 4 runs, 290 requests")
    for text in ("Step time of own.card", "base_s", "left out, median", f"simlab calibrate validate {tmp_path}/p.json"):
        assert text in " ".join(done.stdout.split())


def test_rows_and_summary_are_as_promised(folder):
    done = simlab("validate", folder / "own.json", folder / "unseen.csv", "-q", "--format", "json")
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert len(data["rows"]) == len(UNSEEN) * 4
    for row in data["rows"]:
        assert {"run", "setup", "metric", "measured", "simulated", "ape", "kind"} <= set(row)
        assert row["ape"] == pytest.approx(abs(row["simulated"] / row["measured"] - 1))
        assert row["kind"] == "between"
        assert row["low"] < row["simulated"] < row["high"]
    summary = {(one["group"], one["metric"]): one for one in data["summary"]}
    assert summary["all", "itl_s_mean"]["n"] == len(UNSEEN)
    assert summary["all", "itl_s_mean"]["median_ape"] < 0.05
    assert set(summary["own.card.tp1.bf16", "ttft_s_p99"]) >= {"group", "metric", "n", "median_ape", "p90_ape"}


def test_points_of_the_fit_are_calibrated(folder):
    data = json.loads(simlab("validate", folder / "own.json", folder / "seen.csv", "-q", "--format", "json").stdout)
    assert {row["kind"] for row in data["rows"]} == {"calibrated"}


@pytest.mark.parametrize(
    ("limit", "code", "named"),
    [
        ("60%", 0, "every metric is within its limit"),
        ("5%", 1, "ITL mean is off by"),
        ("ttft_s_mean=60%", 0, "every metric"),
        ("itl_s_mean=5%,ttft_s_mean=60%", 1, "ITL mean is off by"),
    ],
)
def test_errors_over_the_limit_are_named_and_exit_with_1(folder, limit, code, named):
    done = simlab("validate", folder / "own.json", folder / "slow.csv", "-q", "--max-error", limit)
    assert done.exit_code == code
    assert named in done.stdout
    assert ("TTFT mean is off by" in done.stdout) == (limit == "5%")


def test_each_row_finds_the_profile_of_its_set_up(folder, tmp_path):
    setups = [("own", "card", 1), ("own", "card", 2)]
    many = table(tmp_path / "many.csv", POINTS, setups)
    done = simlab("fit", many, "-o", tmp_path / "profiles", "-q", "--workers", 1)
    assert done.stdout.startswith("2 profiles fitted on 8 runs")
    names = {"own.card.tp1.bf16.json", "own.card.tp2.bf16.json"}
    assert {path.name for path in (tmp_path / "profiles").iterdir()} == names
    new = table(tmp_path / "new.csv", UNSEEN[:1], [*setups, ("other", "card", 1), ("qwen3-8b", "h100", 1)])
    data = json.loads(simlab("validate", tmp_path / "profiles", new, "-q", "--format", "json").stdout)
    kinds = {row["setup"]: (row["profile"], row["kind"]) for row in data["rows"]}
    assert kinds == {
        "own.card.tp1.bf16": ("own.card.tp1.bf16", "between"),
        "own.card.tp2.bf16": ("own.card.tp2.bf16", "between"),
        "qwen3-8b.h100-sxm.tp1.bf16": ("qwen3-8b.h100-sxm.tp1.bf16", "estimated"),
    }
    assert "unknown model 'other'" in data["left_out"][0]["reason"]


def test_set_ups_with_too_few_rows_are_named(folder, tmp_path):
    text = table(tmp_path / "many.csv", POINTS).read_text()
    few = table(tmp_path / "few.csv", POINTS[:2], [("own", "card", 4)]).read_text().split("\n", 1)[1]
    (tmp_path / "many.csv").write_text(text + few)
    done = simlab("fit", tmp_path / "many.csv", "-o", tmp_path / "p", "-q", "--workers", 1)
    assert done.exit_code == 0
    assert "own.card.tp4.bf16: no profile: 2 operating points (i512-o64-c1, i512-o64-c4)" in done.stdout


def test_files_and_figure(folder, tmp_path):
    done = simlab(
        "validate", folder / "own.json", folder / "unseen.csv", "-q", "--format", "csv",
        "--figure", tmp_path / "f.png", "--out", tmp_path / "out",
    )  # fmt: skip
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == len(UNSEEN) * 4
    assert float(rows[0]["ape"]) < 0.2
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"validation.json", "rows.csv", "validation.md", "validation.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "f.jpg"], "its name must end in .png, .svg, .pdf"),
        (["--max-error", "much"], "write a share above 0 such as 5%"),
        (["--max-error", "-5%"], "write a share above 0 such as 5%"),
        (["--max-error", "itl=5%"], "metrics: ttft_s_mean, ttft_s_p50"),
    ],
)
def test_bad_options(folder, arguments, message):
    done = simlab("validate", folder / "own.json", folder / "unseen.csv", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


def test_many_set_ups_do_not_fit_into_one_file(folder, tmp_path):
    many = table(tmp_path / "many.csv", POINTS[:1], [OWN, ("own", "card", 2)])
    with pytest.raises(InputError, match=r"-o: read runs of 2 set-ups .*give a folder"):
        simlab("fit", many, "-o", tmp_path / "one.json", "-q")
    assert not (tmp_path / "one.json").exists()


def test_a_profile_of_another_set_up_is_not_stretched(folder, tmp_path):
    other = table(tmp_path / "other.csv", POINTS[:1], [("own", "card", 8), ("own", "card", 4)])
    with pytest.raises(InputError, match=r"is of own.card.tp1.bf16; the runs are of own.card.tp4.bf16, own.card.tp8"):
        simlab("validate", folder / "own.json", other, "-q")


def test_what_is_no_profile_and_what_is_no_measurement(folder, tmp_path):
    with pytest.raises(InputError, match=r"seen\.json: no such profile file"):
        simlab("validate", folder / "seen.json", folder / "seen.csv")
    with pytest.raises(InputError, match="holds no profile"):
        simlab("validate", tmp_path, folder / "seen.csv")
    (tmp_path / "note.txt").write_text("nothing measured here\n")
    with pytest.raises(InputError, match=r"note\.txt"):
        simlab("fit", tmp_path / "note.txt", "-o", tmp_path / "p.json")


def test_a_place_that_cannot_be_written_to(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another place"):
        simlab("fit", folder / "seen.csv", "-o", tmp_path / "file" / "p.json", "-q", "--workers", 1)
