"""A visit as FHIR R4: a transaction bundle with a report and one observation for each eye, for any server.

Every resource has an identifier that follows from what it is about, and every entry is conditional on it: posted a
second time, a bundle makes no doubles. LOINC has no code for an algorithm that is not cleared: the severity codes by
ophthalmoscopy are the nearest, and each observation states its own method. LOINC 105914-6 is for cleared autonomous
systems and never used here.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retigrade import __version__
from retigrade.files import write_whole
from retigrade.grading import Eye
from retigrade.icdr import GRADES
from retigrade.output.patients import EyeResult, EyeStatus, Visit, visits_of
from retigrade.output.rows import Row

PATIENT_SYSTEM = "urn:retigrade:patient"
"""The system of patient identifiers where nobody names the hospital's own."""

RESEARCH_USE = "Research use only, not a medical device. An algorithm's result, not verified by a physician."
_NAMESPACE = uuid.UUID("f0f5b0c1-8c5f-5c0e-9f0f-3d2a2b7c6e21")
_LOINC, _SNOMED, _UCUM, _URI = (
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://unitsofmeasure.org",
    "urn:ietf:rfc:3986",
)
_SEPARATORS = re.compile(r"[\\,|$]")
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_SEVERITY = {
    Eye.LEFT: ("71490-7", "Left eye Diabetic retinopathy severity level by Ophthalmoscopy"),
    Eye.RIGHT: ("71491-5", "Right eye Diabetic retinopathy severity level by Ophthalmoscopy"),
}
# LOINC answer list LL2117-1, and the same stage in SNOMED CT where it has one.
_ANSWERS = (
    ("LA18643-9", "No apparent retinopathy", None),
    ("LA18644-7", "Mild non-proliferative retinopathy", "312903003"),
    ("LA18645-4", "Moderate non-proliferative retinopathy", "312904009"),
    ("LA18646-2", "Severe non-proliferative retinopathy", "312905005"),
    ("LA18648-8", "Proliferative retinopathy", "59276001"),
)
_METHOD = "Automated grading of a fundus photograph (ICDR scale), not ophthalmoscopy"


def visit_bundle(
    visit: Visit,
    *,
    bundle: str,
    studies: Iterable[str] = (),
    patient_system: str = PATIENT_SYSTEM,
) -> dict[str, Any]:
    """Return a transaction bundle for one visit, as JSON values.

    bundle: the identity of the bundle that graded it. studies: the DICOM study UIDs that its photographs come from.
    patient_system: the URI of the system that the patient's identifier belongs to.
    """
    # The name of a file may have a byte that is no character, and a patient may be named by it.
    visit = replace(visit, patient=visit.patient.encode(errors="backslashreplace").decode())
    key = patient_system, visit.patient, visit.date, bundle
    patient, device = _uuid("patient", patient_system, visit.patient), _uuid("device", bundle)
    report = _uuid("report", *key)
    imaging = [_study(uid) for uid in studies]
    observations = {
        name: _observation(eye, side, visit, identity=_uuid(f"observation {name}", *key), imaging=imaging)
        for name, side, eye in (
            ("right", Eye.RIGHT, visit.right),
            ("left", Eye.LEFT, visit.left),
            ("unknown", None, visit.unknown),
        )
        if side is not None or eye.status is not EyeStatus.MISSING
    }
    for observation in observations.values():
        observation |= {"subject": {"reference": _entry(patient)}, "device": {"reference": _entry(device)}}
    entries = [
        _created(_entry(patient), _patient(visit.patient, patient_system), patient_system, visit.patient),
        _created(_entry(device), _device(bundle, device), _URI, device),
        *(_updated(_uuid(f"observation {name}", *key), observation) for name, observation in observations.items()),
        _updated(
            report,
            {
                **_report(visit, identity=report, imaging=imaging),
                "subject": {"reference": _entry(patient)},
                "result": [{"reference": _entry(_uuid(f"observation {name}", *key))} for name in observations],
            },
        ),
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


class FhirFolder:
    """The folder `fhir/` of a run: takes rows one by one, and writes a bundle for each patient and visit at the end."""

    def __init__(self, folder: Path, *, bundle: str, patient_system: str = PATIENT_SYSTEM) -> None:
        """Start with no rows; `bundle` is the identity of the bundle that grades."""
        self._folder, self._bundle, self._system = folder / "fhir", bundle, patient_system
        self._rows: list[Row] = []
        self._studies: dict[tuple[str | None, str | None], dict[str, None]] = defaultdict(dict)

    def add(self, row: Row, *, study: str | None = None) -> None:
        """Take one verdict; `study` is the DICOM study UID of its photograph."""
        self._rows.append(row)
        if study is not None:
            self._studies[row.patient, row.date][study] = None

    def publish(self) -> int:
        """Write the bundles; returns how many verdicts are in none, since their patient is not known.

        Raises UsageError where a file cannot be written.
        """
        for visit in visits_of(self._rows):
            studies = self._studies[visit.patient, visit.date]
            content = visit_bundle(visit, bundle=self._bundle, studies=studies, patient_system=self._system)
            # Patients' names for themselves may be no file names, so the file has the name of the report's identifier.
            name = content["entry"][-1]["resource"]["identifier"][0]["value"].removeprefix("urn:uuid:")
            write_whole(self._folder / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
        return sum(row.patient is None for row in self._rows)


def _uuid(*parts: object) -> str:
    return f"urn:uuid:{uuid.uuid5(_NAMESPACE, chr(0).join(map(str, parts)))}"


def _entry(identity: str) -> str:
    """Return what the resource with this identifier is called within the bundle.

    It is not the identifier itself: servers put their own identifier of a resource in place of this name, and some of
    them wherever it stands. The second post would then find nothing that it knows.
    """
    return _uuid("entry", identity)


def _created(full_url: str, resource: dict[str, Any], system: str, value: str) -> dict[str, Any]:
    """An entry that is made where the server has none with this identifier; what is there is left as it is."""
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": _condition(system, value)}
    return {"fullUrl": full_url, "resource": resource, "request": request}


def _updated(identity: str, resource: dict[str, Any]) -> dict[str, Any]:
    """An entry that takes the place of the one with the same identifier, or is made."""
    request = {"method": "PUT", "url": f"{resource['resourceType']}?{_condition(_URI, identity)}"}
    return {"fullUrl": _entry(identity), "resource": resource, "request": request}


def _condition(system: str, value: str) -> str:
    """Return the search for an identifier; what separates values is escaped (FHIR R4, 3.1.1.4.0)."""
    escaped = _SEPARATORS.sub(r"\\\g<0>", value)
    return f"identifier={quote(f'{system}|{escaped}', safe='')}"


def _patient(patient: str, system: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": system, "value": patient}]}


def _device(bundle: str, identity: str) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "identifier": [{"system": _URI, "value": identity}],
        "manufacturer": "The Retigrade developers",
        "deviceName": [{"name": "Retigrade", "type": "model-name"}],
        "version": [
            {"type": {"text": "software"}, "value": __version__},
            {"type": {"text": "bundle and its hash"}, "value": bundle},
        ],
        "note": [{"text": RESEARCH_USE}],
    }


def _observation(
    eye: EyeResult, side: Eye | None, visit: Visit, *, identity: str, imaging: list[dict[str, Any]]
) -> dict[str, Any]:
    code: dict[str, Any] = {"text": "Diabetic retinopathy severity, eye not stated"}
    if side is not None:
        number, display = _SEVERITY[side]
        code = {"coding": [{"system": _LOINC, "code": number, "display": display}]}
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "identifier": [{"system": _URI, "value": identity}],
        "status": "preliminary",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]}
        ],
        "code": code,
        "method": {"text": _METHOD},
        "note": [{"text": text} for text in (RESEARCH_USE, *eye.reasons)],
    }
    if visit.date is not None:
        observation["effectiveDateTime"] = visit.date
    if imaging:
        observation["derivedFrom"] = imaging
    if eye.best is None or eye.grade is None:
        reason = "not-performed" if eye.status is EyeStatus.MISSING else "error"
        text = "no photograph" if eye.status is EyeStatus.MISSING else "no photograph that can be graded"
        return observation | {"dataAbsentReason": {"coding": [{"system": _ABSENT, "code": reason}], "text": text}}
    answer, display, snomed = _ANSWERS[eye.grade]
    codings = [{"system": _LOINC, "code": answer, "display": display}]
    codings += [{"system": _SNOMED, "code": snomed}] if snomed else []
    return observation | {
        "valueCodeableConcept": {"coding": codings, "text": GRADES[eye.grade].stage},
        "component": _components(eye.best, eye),
    }


def _components(row: Row, eye: EyeResult) -> list[dict[str, Any]]:
    """The probabilities of the photograph that stands for the eye, its prediction set, and whether to refer."""
    numbers = [
        *(
            (f"Probability of stage {grade:d} ({grade.stage})", p)
            for grade, p in zip(GRADES, row.probabilities, strict=True)
        ),
        ("Probability of moderate or worse retinopathy", eye.p_referable),
    ]
    found: list[dict[str, Any]] = [
        {"code": {"text": text}, "valueQuantity": {"value": number, "system": _UCUM, "code": "1"}}
        for text, number in numbers
    ]
    found.append({"code": {"text": "Referable diabetic retinopathy"}, "valueBoolean": eye.referable})
    if row.prediction_set is not None:
        stages = ", ".join(GRADES[grade].stage for grade in row.prediction_set)
        found.append({"code": {"text": "Prediction set"}, "valueString": stages})
    return found


def _report(visit: Visit, *, identity: str, imaging: list[dict[str, Any]]) -> dict[str, Any]:
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": _URI, "value": identity}],
        "status": "preliminary",
        "code": {
            "coding": [{"system": _SNOMED, "code": "314971001", "display": "Camera fundoscopy"}],
            "text": "Automated diabetic retinopathy grading",
        },
        "conclusion": "; ".join((f"Advised: {visit.action.value}", *visit.reasons, RESEARCH_USE)),
    }
    if visit.date is not None:
        report["effectiveDateTime"] = visit.date
    if imaging:
        report["imagingStudy"] = imaging
    return report


def _study(uid: str) -> dict[str, Any]:
    """A reference to a DICOM study by its own identifier, whatever the server calls it."""
    return {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}
