"""A visit as a FHIR R4 transaction: codes, conditions, what is absent, and the nearest validator."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import jsonschema
import pytest

from gradings import graded, refused
from retigrade.grading import Eye, Subject
from retigrade.icdr import Grade, Status
from retigrade.output.fhir import FhirFolder, visit_bundle
from retigrade.output.patients import visit_of
from retigrade.output.rows import Row, as_row

BUNDLE = "tiny@0123456789ab"


def row(eye: Eye | None, **changes: Any) -> Row:
    subject = Subject("P|1", eye, None)
    return as_row(graded(f"{eye}.jpg", subject=subject, prediction_set=(Grade.MODERATE, Grade.SEVERE), **changes))


def ungradable(eye: Eye) -> Row:
    plain = as_row(refused(f"{eye}.jpg", Status.UNGRADABLE, "too dark"))
    return replace(plain, patient="P|1", eye=eye.value)


def content(*rows: Row, date: str | None = "2024-05-02") -> dict[str, Any]:
    visit = visit_of(rows, patient="P|1", date=date)
    return visit_bundle(visit, bundle=BUNDLE, studies=["1.2.3"])


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_each_eye_has_its_code_and_answer() -> None:
    right, left = resources(content(row(Eye.RIGHT), row(Eye.LEFT)), "Observation")
    assert right["code"]["coding"][0]["code"] == "71491-5"
    assert left["code"]["coding"][0]["code"] == "71490-7"
    assert [coding["code"] for coding in right["valueCodeableConcept"]["coding"]] == ["LA18645-4", "312904009"]
    assert "not ophthalmoscopy" in right["method"]["text"]
    assert right["note"][0]["text"].startswith("Research use only")
    assert "105914-6" not in json.dumps(content(row(Eye.RIGHT)))
    values = {part["code"]["text"]: part for part in right["component"]}
    assert values["Probability of stage 2 (moderate)"]["valueQuantity"]["value"] == 0.6
    assert values["Prediction set"]["valueString"] == "moderate, severe"
    assert values["Referable diabetic retinopathy"]["valueBoolean"] is True


def test_what_is_absent_says_why() -> None:
    right, left = resources(content(ungradable(Eye.RIGHT)), "Observation")
    assert right["dataAbsentReason"]["coding"][0]["code"] == "error"
    assert left["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "valueCodeableConcept" not in right
    assert "too dark" in right["note"][1]["text"]


def test_eye_that_nobody_states_is_neither() -> None:
    observations = resources(content(row(None)), "Observation")
    assert len(observations) == 3
    assert "coding" not in observations[2]["code"]


def test_references_hold_within_the_bundle() -> None:
    bundle = content(row(Eye.RIGHT), row(Eye.LEFT))
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    (report,) = resources(bundle, "DiagnosticReport")
    assert {report["subject"]["reference"], *(result["reference"] for result in report["result"])} <= urls
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.3"
    assert report["conclusion"].startswith("Advised: refer")
    for observation in resources(bundle, "Observation"):
        assert {observation["subject"]["reference"], observation["device"]["reference"]} <= urls


class Server:
    """Keeps resources by the rules for conditional create and update (FHIR R4, 3.1.0.8.1 and 3.1.0.4.3)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}

    def post(self, bundle: dict[str, Any]) -> None:
        for entry in bundle["entry"]:
            request, resource = entry["request"], entry["resource"]
            query = request.get("ifNoneExist") or urlparse(request["url"]).query
            ((system, _, escaped),) = [text.partition("|") for text in parse_qs(query)["identifier"]]
            value = re.sub(r"\\([\\,|$])", r"\1", escaped)
            assert not re.search(r"(?<!\\)[,|$]", escaped)
            assert {"system": system, "value": value} in resource["identifier"]
            key = resource["resourceType"], f"{system}|{value}"
            if request["method"] == "PUT" or key not in self.kept:
                self.kept[key] = resource


def test_a_second_post_makes_no_double() -> None:
    server = Server()
    server.post(content(row(Eye.RIGHT), row(Eye.LEFT)))
    once = dict(server.kept)
    assert len(once) == 5
    server.post(content(row(Eye.RIGHT), row(Eye.LEFT)))
    assert server.kept == once
    server.post(content(row(Eye.RIGHT), row(Eye.LEFT), date="2025-05-02"))
    assert len(server.kept) == 8  # the patient and the device are the same


def test_names_within_a_bundle_are_no_identifiers() -> None:
    """A server gives each entry a name of its own, and some put it wherever the entry's stands in the bundle."""
    bundle = content(row(Eye.RIGHT), row(Eye.LEFT))
    names = {entry["fullUrl"] for entry in bundle["entry"]}
    identifiers = {entry["resource"]["identifier"][0]["value"] for entry in bundle["entry"]}
    assert not names & identifiers


def test_folder(tmp_path: Path) -> None:
    folder = FhirFolder(tmp_path, bundle=BUNDLE)
    folder.add(row(Eye.RIGHT), study="1.2.3")
    folder.add(row(Eye.LEFT), study="1.2.3")
    folder.add(as_row(graded("nobody.jpg")))
    assert folder.publish() == 1
    (path,) = (tmp_path / "fhir").iterdir()
    assert json.loads(path.read_text())["type"] == "transaction"
    before = path.read_bytes()
    assert folder.publish() == 1
    assert [file.read_bytes() for file in (tmp_path / "fhir").iterdir()] == [before]


@pytest.mark.parametrize("rows", [(row(Eye.RIGHT), row(Eye.LEFT)), (ungradable(Eye.RIGHT),), (row(None),)])
def test_valid_by_the_official_schema(rows: tuple[Row, ...]) -> None:
    """HL7's JSON Schema of R4 (4.0.1, CC0), cut down to the resources that may stand in our bundles."""
    schema = json.loads((Path(__file__).parent / "fhir_r4.schema.json").read_text())
    validator = jsonschema.Draft6Validator(schema)
    assert list(validator.iter_errors(content(*rows))) == []
    for damage in ({"status": 7}, {"resourceType": "Report"}, {"unknown": "element"}, {"identifier": "text"}):
        broken = content(*rows)
        broken["entry"][-1]["resource"] |= damage
        assert list(validator.iter_errors(broken)), damage


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rows", [(row(Eye.RIGHT), row(Eye.LEFT)), (ungradable(Eye.RIGHT),), (row(None),)])
def test_valid_by_r4b(rows: tuple[Row, ...]) -> None:
    """R4B is R4 but for resources that are not used here (FHIR R4B, 1.5: changes since R4)."""
    bundle_module = pytest.importorskip("fhir.resources.R4B.bundle")
    found = bundle_module.Bundle.model_validate(content(*rows))
    assert len(found.entry) == len(content(*rows)["entry"])
    broken = content(*rows)
    broken["entry"][-1]["resource"]["status"] = 7
    with pytest.raises(ValueError, match="status"):
        bundle_module.Bundle.model_validate(broken)


def test_a_patient_named_by_an_odd_byte() -> None:
    visit = visit_of([row(Eye.RIGHT)], patient="P\udcf1", date=None)
    sent = json.dumps(visit_bundle(visit, bundle=BUNDLE), ensure_ascii=False).encode()
    assert b"P\\\\udcf1" in sent
