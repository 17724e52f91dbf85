"""A verdict as DICOM: a structured report, and a secondary capture of the thermal picture, in the patient's study."""

from __future__ import annotations

import copy
import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
from highdicom.base import SOPClass
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from retigrade import __version__
from retigrade.dicom.dataset import hushed, integer_of, read_dataset, text_of, uid_of
from retigrade.dicom.uids import derived_uid
from retigrade.errors import UnreadablePhoto
from retigrade.icdr import GRADES, Status
from retigrade.output.rows import Row
from retigrade.subjects import pseudonym
from retigrade.text import shown

RESEARCH_USE = "Research use only, not a medical device. An algorithm's result, not verified by a physician."
MAKER, PRODUCT = "The Retigrade developers", "Retigrade"
REPORT_NUMBER, CAPTURE_NUMBER = 9901, 9902  # of their series

_SCHEME = "99RETIGRADE"
_RETINOPATHY = CodedConcept("4855003", "SCT", "Diabetic retinopathy")
# The stages of the ICDR scale in SNOMED CT: mild, moderate and severe nonproliferative, and proliferative.
STAGES = (
    CodedConcept("272519000", "SCT", "Absent"),
    CodedConcept("312903003", "SCT", "Mild nonproliferative diabetic retinopathy"),
    CodedConcept("312904009", "SCT", "Moderate nonproliferative diabetic retinopathy"),
    CodedConcept("312905005", "SCT", "Severe nonproliferative diabetic retinopathy"),
    CodedConcept("59276001", "SCT", "Proliferative diabetic retinopathy"),
)
_SEVERITY = CodedConcept("246112005", "SCT", "Severity")
_REFERABLE = CodedConcept("REFERABLE", _SCHEME, "Referable diabetic retinopathy")
_IN_SET = CodedConcept("PREDICTION-SET", _SCHEME, "Stage in the prediction set")
_STATUS = CodedConcept("STATUS", _SCHEME, "Verdict on the photograph")
_P_REFERABLE = CodedConcept("P-REFERABLE", _SCHEME, "Probability of moderate or worse diabetic retinopathy")
_PROBABILITIES = tuple(
    CodedConcept(f"P{grade:d}", _SCHEME, f"Probability of stage {grade:d} ({grade.stage})") for grade in GRADES
)
# What of the source's header goes into what is made from it; text as it stands, other values only where they are valid.
_TEXTS = (
    "PatientID", "PatientName", "IssuerOfPatientID", "PatientSex", "AccessionNumber", "StudyID",
    "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
_DATES, _TIMES = ("PatientBirthDate", "StudyDate"), ("StudyTime",)


@dataclass(frozen=True, slots=True)
class Source:
    """What the outputs take over from a photograph's file.

    evidence: patient, study and image, cleaned. frame: counted from 1. burned_in: whether the header admits text in the
    picture. laterality: "R", "L" or None.
    """

    evidence: Dataset
    frame: int
    frames: int
    laterality: str | None = None
    burned_in: bool = False
    deidentified: bool = False


def read_source(path: Path, *, frame: int = 1) -> Source:
    """Read what the outputs need of the file at `path`.

    Raises UnreadablePhoto where it names no study, series or instance, without which nothing can be filed.
    """
    try:
        with path.open("rb") as file:
            dataset = read_dataset(file, name=path.name, pixels=False)
    except OSError as problem:
        raise UnreadablePhoto(f"{shown(path.name)}: cannot be opened ({problem.strerror})") from None
    with hushed():
        return _source(dataset, path.name, frame)


def _source(dataset: Dataset, name: str, frame: int) -> Source:
    evidence = Dataset()
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uid = uid_of(dataset, keyword)
        if uid is None:
            raise UnreadablePhoto(f"{shown(name)}: its header has no valid {keyword}, nothing can be filed beside it")
        setattr(evidence, keyword, uid)
    evidence.SOPClassUID = UID(dataset.SOPClassUID)
    evidence.SpecificCharacterSet = "ISO_IR 192"
    evidence.Modality = text_of(dataset, "Modality") or "OP"
    evidence.Rows, evidence.Columns = integer_of(dataset, "Rows") or 1, integer_of(dataset, "Columns") or 1
    frames = integer_of(dataset, "NumberOfFrames") or 1
    if frames > 1:
        evidence.NumberOfFrames = frames
    for keyword in _TEXTS:
        setattr(evidence, keyword, (text_of(dataset, keyword) or "")[: 64 if keyword != "AccessionNumber" else 16])
    if evidence.PatientSex not in ("M", "F", "O"):
        evidence.PatientSex = ""
    if len(evidence.StudyID) > 16:
        evidence.StudyID = ""
    for keyword in _DATES:
        setattr(evidence, keyword, _valid(text_of(dataset, keyword), "%Y%m%d"))
    for keyword in _TIMES:
        setattr(evidence, keyword, _valid((text_of(dataset, keyword) or "")[:6], "%H%M%S"))
    sides = {(text_of(dataset, keyword) or "").upper() for keyword in ("ImageLaterality", "Laterality")} & {"R", "L"}
    return Source(
        evidence,
        frame,
        frames,
        laterality=sides.pop() if len(sides) == 1 else None,
        burned_in=(text_of(dataset, "BurnedInAnnotation") or "").upper() == "YES",
    )


def _valid(text: str | None, form: str) -> str:
    try:
        return datetime.datetime.strptime(text or "", form).strftime(form)
    except ValueError:
        return ""


def deidentified(source: Source, *, key: bytes) -> Source:
    """Return the source without what tells who the patient is (PS3.15, Basic Application Confidentiality Profile).

    The patient's identifier becomes a pseudonym, UIDs become others that follow from them and the key, and dates, names
    and numbers of study and patient are emptied; what is made of it says so.
    """
    evidence = copy.deepcopy(source.evidence)
    for keyword in (*_TEXTS, *_DATES, *_TIMES):
        setattr(evidence, keyword, "")
    evidence.PatientID = pseudonym(source.evidence.PatientID, key=key)
    evidence.PatientName = f"{evidence.PatientID}^"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(evidence, keyword, derived_uid("pseudonym", key.hex(), evidence[keyword].value))
    return replace(source, evidence=evidence, deidentified=True)


def structured_report(source: Source, row: Row) -> Dataset:
    """Return the verdict as a Comprehensive 3D SR by template TID 1500.

    Its identifiers follow from the photograph, the bundle and the verdict: a second run makes the same report.
    """
    with hushed():
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                uid=_uid(source, row, "tracking"), identifier=f"diabetic retinopathy, {row.bundle}"[:64]
            ),
            finding_type=_RETINOPATHY,
            algorithm_id=AlgorithmIdentification(
                name=PRODUCT,
                version=__version__,
                parameters=[f"bundle {row.bundle}"],
            ),
            finding_sites=[_site(source)],
            measurements=_measurements(row),
            qualitative_evaluations=_evaluations(row),
            source_images=[_image(source)],
        )
        # TID 1501 may be extended: what a reader must know stands with the finding, not in a header that nobody shows.
        for sentence in (RESEARCH_USE, *row.reasons):
            comment = TextContentItem(
                name=codes.DCM.Comment, value=sentence, relationship_type=RelationshipTypeValues.CONTAINS
            )
            group[0].ContentSequence.append(comment)
        report = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_observer(row)),
            procedure_reported=CodedConcept("314971001", "SCT", "Camera fundoscopy"),
            imaging_measurements=[group],
            title=codes.DCM.ImagingMeasurementReport,
            referenced_images=[source.evidence],
        )
        document = _Document(source, row, report[0])
        _complete(document, source)
    return document


class _Document(SOPClass):
    """The document around a report's content.

    highdicom's own class copies the content several times over to search it for references, which takes three quarters
    of the time of a report; here the one reference is known.
    """

    def __init__(self, source: Source, row: Row, content: Dataset) -> None:
        evidence = source.evidence
        super().__init__(
            study_instance_uid=evidence.StudyInstanceUID,
            series_instance_uid=derived_uid(evidence.SeriesInstanceUID, row.bundle, "report series"),
            series_number=REPORT_NUMBER,
            sop_instance_uid=_uid(source, row, "report"),
            sop_class_uid=Comprehensive3DSRStorage,
            instance_number=source.frame,
            modality="SR",
            manufacturer=MAKER,
            manufacturer_model_name=PRODUCT,
            software_versions=__version__,
            device_serial_number=row.bundle[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description="Diabetic retinopathy grading (research use)",
            **_patient(evidence),
        )
        self.CompletionFlag, self.VerificationFlag, self.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
        self.ReferencedPerformedProcedureStepSequence: list[Dataset] = []
        self.PerformedProcedureCodeSequence: list[Dataset] = []
        for item in content:
            self[item.tag] = item
        image, series, study = Dataset(), Dataset(), Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = evidence.SOPClassUID, evidence.SOPInstanceUID
        series.SeriesInstanceUID, series.ReferencedSOPSequence = evidence.SeriesInstanceUID, [image]
        study.StudyInstanceUID, study.ReferencedSeriesSequence = evidence.StudyInstanceUID, [series]
        self.CurrentRequestedProcedureEvidenceSequence = [study]


def _patient(evidence: Dataset) -> dict[str, Any]:
    """The attributes of patient and study, as highdicom takes them."""
    return {
        "patient_id": evidence.PatientID,
        "patient_name": evidence.PatientName,
        "patient_birth_date": evidence.PatientBirthDate or None,
        "patient_sex": evidence.PatientSex or None,
        "accession_number": evidence.AccessionNumber,
        "study_id": evidence.StudyID,
        "study_date": evidence.StudyDate or None,
        "study_time": evidence.StudyTime or None,
        "referring_physician_name": evidence.ReferringPhysicianName,
    }


def secondary_capture(source: Source, row: Row, picture: bytes) -> hd.sc.SCImage:
    """Return the thermal picture, an encoded image file, as a Secondary Capture; identifiers as in the report's."""
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("the picture is no image file")
    with hushed():
        evidence = source.evidence
        capture = hd.sc.SCImage(
            pixel_array=cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # needed here; taken out again below, as a composite has none
            study_instance_uid=evidence.StudyInstanceUID,
            series_instance_uid=derived_uid(evidence.SeriesInstanceUID, row.bundle, "capture series"),
            series_number=CAPTURE_NUMBER,
            sop_instance_uid=_uid(source, row, "capture"),
            instance_number=source.frame,
            manufacturer=MAKER,
            manufacturer_model_name=PRODUCT,
            software_versions=__version__,
            device_serial_number=row.bundle[:64],
            **_patient(evidence),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description="Thermal map of disease evidence (research use)",
        )
        _complete(capture, source)
        capture.Laterality = source.laterality or ""
        capture.PatientOrientation = []
        capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        capture.BurnedInAnnotation = "YES" if source.burned_in else "NO"
        capture.RecognizableVisualFeatures = "NO"
        capture.DerivationDescription = "Photograph beside its class-activation map"
        capture.ImageComments = RESEARCH_USE
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
            evidence.SOPClassUID,
            evidence.SOPInstanceUID,
        )
        if source.frames > 1:
            reference.ReferencedFrameNumber = source.frame
        capture.SourceImageSequence = [reference]
    return capture


def _complete(dataset: Dataset, source: Source) -> None:
    """Add what highdicom leaves out of the patient's and the study's attributes."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    if source.deidentified:
        method = Dataset()
        method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
        method.CodeMeaning = "Basic Application Confidentiality Profile"
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethodCodeSequence = [method]
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
    for keyword in ("IssuerOfPatientID", "StudyDescription"):
        if value := source.evidence.get(keyword):
            setattr(dataset, keyword, value)


def _uid(source: Source, row: Row, kind: str) -> UID:
    evidence = source.evidence
    verdict = row.status, row.grade, row.referable
    return derived_uid(evidence.StudyInstanceUID, evidence.SOPInstanceUID, source.frame, row.bundle, *verdict, kind)


def _site(source: Source) -> FindingSite:
    sides = {"R": codes.SCT.Right, "L": codes.SCT.Left}
    return FindingSite(codes.SCT.Retina, laterality=sides.get(source.laterality or ""))


def _image(source: Source) -> SourceImageForMeasurementGroup:
    evidence = source.evidence
    return SourceImageForMeasurementGroup(
        evidence.SOPClassUID, evidence.SOPInstanceUID, [source.frame] if source.frames > 1 else None
    )


def _observer(row: Row) -> ObserverContext:
    identity = DeviceObserverIdentifyingAttributes(
        uid=derived_uid(row.bundle, "device"),
        name=PRODUCT,
        manufacturer_name=MAKER,
        model_name=f"{PRODUCT} {__version__}",
        serial_number=row.bundle,
    )
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=identity)


def _measurements(row: Row) -> list[Measurement] | None:
    numbers = [
        *zip(_PROBABILITIES, row.probabilities, strict=False),
        *([(_P_REFERABLE, row.p_referable)] if row.p_referable is not None else []),
        *([(codes.DCM.ImageQualityRating, row.quality)] if row.quality is not None else []),
    ]
    return [Measurement(name, float(value), codes.UCUM.NoUnits) for name, value in numbers] or None


def _evaluations(row: Row) -> list[QualitativeEvaluation]:
    status = CodedConcept(row.status.upper().replace("_", "-"), _SCHEME, row.status.replace("_", " "))
    found = [QualitativeEvaluation(_STATUS, status)]
    if row.status == Status.GRADED and row.grade is not None:
        found += [
            QualitativeEvaluation(_SEVERITY, STAGES[row.grade]),
            QualitativeEvaluation(_REFERABLE, codes.SCT.Yes if row.referable else codes.SCT.No),
            *(QualitativeEvaluation(_IN_SET, STAGES[grade]) for grade in row.prediction_set or ()),
        ]
    return found
