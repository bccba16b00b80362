"""The schema and the reference page say what the models say."""

import json
import re

import jsonschema
import pytest
from bad_cases import GOOD
from conftest import ROOT
from ruamel.yaml import YAML

from simlab.scenario import bundled, json_schema
from simlab.scenario.bundled import locate
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


def test_definitions_have_names_people_can_read_and_references_lead_to_them():
    schema = json_schema()
    assert all(name.isalpha() for name in schema["$defs"])
    assert {"FixedSeconds", "LognormalTokenCount", "GeometricNumber", "Pool"} <= set(schema["$defs"])
    text = json.dumps(schema)
    assert set(re.findall(r"#/\$defs/([^\"]*)", text)) <= set(schema["$defs"])


@pytest.mark.parametrize("name", [*bundled(), "good"])
def test_what_loads_is_valid_by_the_schema(name):
    text = GOOD if name == "good" else locate(name).read_text(encoding="utf-8")
    jsonschema.validate(YAML(typ="safe").load(text), json_schema())
