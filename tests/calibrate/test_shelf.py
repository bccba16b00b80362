"""Which profile a run is judged by, and what that prediction rests on."""

from dataclasses import replace

import numpy as np
import pytest

from simlab.calibrate.judged import BETWEEN, CALIBRATED, ESTIMATED
from simlab.calibrate.run import Load, Run, Server, Steps
from simlab.calibrate.shelf import Shelf, kind_of, outside, point_of, setup_of
from simlab.errors import InputError
from simlab.profiles import Profile, StepTime, Validity, estimate

ONE = Profile("own", "tiny", "card", 1, "bf16", "measured", StepTime(base_s=1e-3), points=("i128-o16-c4",))
RUN = Run("r", "r.json", Server("tiny", "card"), Load(concurrency=4, prompt_tokens=128, output_tokens=16))


def save(folder, *profiles):
    for i, one in enumerate(profiles):
        one.save(folder / f"{i}.json")


def test_a_profile_is_found_by_its_set_up_and_not_by_its_name(tmp_path):
    other = replace(ONE, name="other", dp=4, expert_parallel=True)
    save(tmp_path, ONE, other)
    shelf = Shelf.open(str(tmp_path))
    assert shelf.of(Server("tiny", "card")).name == "own"
    assert shelf.of(Server("tiny", "card", dp=4, expert_parallel=True)).name == "other"
    assert shelf.of(Server("tiny", "card", dp=2)) is None
    assert shelf.of(Server("tiny", "card", precision="fp8")) is None


def test_a_model_of_the_same_architecture_counts(tmp_path):
    save(tmp_path, replace(ONE, model="llama-3.1-70b", gpu="h100-sxm"))
    assert Shelf.open(str(tmp_path)).of(Server("llama-3.3-70b", "h100-sxm")).model == "llama-3.1-70b"
    assert Shelf.open(str(tmp_path)).of(Server("llama-3.1-8b", "h100-sxm")) is None


def test_without_a_profile_there_is_an_estimate_that_has_not_seen_the_set_up(tmp_path):
    save(tmp_path, ONE)
    found = Shelf.open(str(tmp_path)).find(Server("qwen3-32b", "h100-sxm", 2))
    assert found.kind == "estimated"
    assert not any(source.endswith("qwen3-32b.h100-sxm.tp2.bf16") for source in found.fitted_on)


def test_nothing_can_be_estimated_of_names_that_no_table_knows(tmp_path):
    save(tmp_path, ONE)
    with pytest.raises(InputError, match="unknown model 'secret'"):
        Shelf.open(str(tmp_path)).find(Server("secret", "h100-sxm"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no profile"),
        ({"a.json": "{"}, "a.json"),
        ({"a.json": None, "b.json": None}, "is of the same set-up as a.json"),
    ],
)
def test_a_folder_that_cannot_be_a_shelf(tmp_path, files, message):
    for name, text in files.items():
        if text is None:
            ONE.save(tmp_path / name)
        else:
            (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        Shelf.open(str(tmp_path))


def test_kinds():
    assert kind_of(RUN, ONE) == CALIBRATED
    assert kind_of(replace(RUN, load=replace(RUN.load, concurrency=8)), ONE) == BETWEEN
    assert kind_of(RUN, estimate("qwen3-32b", "h100-sxm", 2)) == ESTIMATED


def test_a_step_log_is_calibrated_only_when_it_is_the_very_same():
    ones = np.ones(10)
    steps = Steps(ones, ones, ones, ones, ones, ones, ones, np.ones(10, bool))
    run = Run("log", "steps.csv", Server("tiny", "card"), steps=steps)
    fitted = replace(ONE, points=(point_of(run),))
    assert kind_of(run, fitted) == CALIBRATED
    assert kind_of(replace(run, steps=replace(steps, seconds=ones * 1.01)), fitted) == BETWEEN


def test_what_lies_outside_a_profile_is_said_and_what_lies_inside_is_not():
    limited = replace(ONE, validity=Validity(max_decode_seqs=4, max_context_tokens=144))
    assert outside(RUN, limited) == ()
    more = replace(RUN, load=replace(RUN.load, concurrency=6, prompt_tokens=131))
    far = [(one.limit, one.measured, one.reached) for one in outside(more, limited)]
    assert far == [("max_decode_seqs", 4, 6), ("max_context_tokens", 144, 147)]
    # Six users of two ranks are three sequences on each.
    assert outside(replace(more, server=Server("tiny", "card", dp=2)), replace(limited, validity=Validity(4))) == ()


def test_the_set_up_of_a_profile_is_that_of_its_server():
    assert setup_of(replace(ONE, dp=2)) == Server("tiny", "card", dp=2).setup
