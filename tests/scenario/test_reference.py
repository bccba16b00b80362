"""The schema and the reference page say what the models say."""

import json

from conftest import ROOT

from simlab.scenario import json_schema
from simlab.scenario.reference import reference


def test_reference_page_is_up_to_date():
    page = (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")
    assert page == reference(json_schema()), "run: simlab schema --format md > docs/scenario.md"


def test_every_field_is_described_and_its_unit_is_said():
    schema = json_schema()
    for name, definition in {"Scenario": schema, **schema["$defs"]}.items():
        for field, info in definition["properties"].items():
            assert info.get("description"), f"{name}.{field}"
    assert schema["$defs"]["Slo"]["properties"]["ttft"]["anyOf"][0]["x-unit"] == "s"
    assert schema["$defs"]["Poisson"]["properties"]["rate"]["x-unit"] == "1/s"
    assert schema["additionalProperties"] is False


def test_every_definition_has_its_section():
    schema = json_schema()
    page = reference(schema)
    assert {line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")} == {
        "Scenario",
        *schema["$defs"],
    }


def test_schema_is_plain_json():
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert "extends" in schema["properties"]
