"""Every broken scenario gets all its errors, with their places, in the words stored in tests/golden/errors.

To store the words again after changing them: ``SIMLAB_REGENERATE=1 pytest tests/scenario/test_bad.py``; then read the
diff (docs/development.md).
"""

import os
from pathlib import Path

import pytest
from bad_cases import CASES, GOOD, Case

from simlab.errors import ScenarioError
from simlab.scenario import load

GOLDEN = Path(__file__).parent.parent / "golden" / "errors"


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_error_text(case: Case):
    Path("bad.yaml").write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    for name, text in case.files.items():
        Path(name).write_text(text)
    with pytest.raises(ScenarioError) as raised:
        load("bad.yaml", variant=case.variant, sets=case.sets)
    text = f"{raised.value}\n"
    golden = GOLDEN / f"{case.name}.txt"
    if os.environ.get("SIMLAB_REGENERATE"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
    for problem in raised.value.problems:
        assert problem.where.startswith(("bad.yaml", "b.yaml", "c.yaml", "--set "))
        assert len(str(problem)) < 420


@pytest.mark.usefixtures("_here")
def test_the_scenario_they_are_made_of_is_good():
    Path("good.yaml").write_text(GOOD)
    assert load("good.yaml").backends == ("local", "gpt-4.1")
    assert load("good.yaml", variant="api").route_of("chat") == {"gpt-4.1": 1.0}


def test_each_case_has_a_name_of_its_own_and_each_golden_file_a_case():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(names)
    assert len(names) >= 60
