"""A verdict as DICOM: a structured report, and a secondary capture of the thermal picture, in the patient's study."""

from __future__ import annotations

import copy
import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from retigrade import __version__
from retigrade.dicom.content import Code, code, container, content, image, number, text, uid
from retigrade.dicom.dataset import hushed, integer_of, text_of, uid_of
from retigrade.dicom.uids import derived_uid
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.formats import read_header
from retigrade.icdr import GRADES, Status
from retigrade.output.rows import Row
from retigrade.subjects import pseudonym
from retigrade.text import shown

RESEARCH_USE = "Research use only, not a medical device. An algorithm's result, not verified by a physician."
MAKER, PRODUCT = "The Retigrade developers", "Retigrade"
REPORT_NUMBER, CAPTURE_NUMBER = 9901, 9902  # of their series

_SCHEME = "99RETIGRADE"
# The stages of the ICDR scale in SNOMED CT: mild, moderate and severe nonproliferative, and proliferative.
STAGES = (
    Code("272519000", "SCT", "Absent"),
    Code("312903003", "SCT", "Mild nonproliferative diabetic retinopathy"),
    Code("312904009", "SCT", "Moderate nonproliferative diabetic retinopathy"),
    Code("312905005", "SCT", "Severe nonproliferative diabetic retinopathy"),
    Code("59276001", "SCT", "Proliferative diabetic retinopathy"),
)
_YES, _NO = Code("373066001", "SCT", "Yes"), Code("373067005", "SCT", "No")
_SIDES = {"R": Code("24028007", "SCT", "Right"), "L": Code("7771000", "SCT", "Left")}
_NO_UNITS, _PIXELS = Code("1", "UCUM", "no units"), Code("{pixels}", "UCUM", "Pixels")
_PROBABILITIES = tuple(
    Code(f"P{grade:d}", _SCHEME, f"Probability of stage {grade:d} ({grade.stage})") for grade in GRADES
)
_JPEG_QUALITY = 90
# What of the source's header goes into what is made from it; text as it stands, other values only where they are valid.
_TEXTS = (
    "PatientID", "PatientName", "IssuerOfPatientID", "PatientSex", "AccessionNumber", "StudyID",
    "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
_DATES, _TIMES = ("PatientBirthDate", "StudyDate"), ("StudyTime",)
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")  # left out rather than empty
_MODALITIES = {
    "OP": "Ophthalmic Photography",
    "OT": "Other",
    "SC": "Secondary Capture",
    "XC": "External-camera Photography",
}


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


def source_of(dataset: Dataset, *, name: str, frame: int = 1) -> Source:
    """Return what the outputs need of a photograph's header; `name` stands in the error.

    Raises UnreadablePhoto where it names no study, series or instance, without which nothing can be filed.
    """
    with hushed():
        return _source(dataset, name, frame)


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


def structured_report(source: Source, row: Row) -> bytes:
    """Return the verdict as the file of a Comprehensive 3D SR by template TID 1500 (PS3.16).

    Its identifiers follow from the photograph, the bundle and the verdict: a second run makes the same report.
    """
    evidence = source.evidence
    with hushed():
        document = _document(source, row, kind="report", sop_class=Comprehensive3DSRStorage, number=REPORT_NUMBER)
        document.Modality = "SR"
        document.SeriesDescription = "Diabetic retinopathy grading (research use)"
        document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag = (
            "COMPLETE",
            "UNVERIFIED",
            "PRELIMINARY",
        )
        document.ReferencedPerformedProcedureStepSequence = []
        document.PerformedProcedureCodeSequence = []
        scheme = Dataset()
        scheme.CodingSchemeDesignator, scheme.CodingSchemeName = _SCHEME, "Retigrade's own codes"
        scheme.CodingSchemeResponsibleOrganization = MAKER
        document.CodingSchemeIdentificationSequence = [scheme]
        series, study = Dataset(), Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = evidence.SeriesInstanceUID, [_reference(source)]
        study.StudyInstanceUID, study.ReferencedSeriesSequence = evidence.StudyInstanceUID, [series]
        document.CurrentRequestedProcedureEvidenceSequence = [study]
        document.ValueType, document.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
        title, template = Dataset(), Dataset()
        title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "126000", "DCM", "Imaging Measurement Report"
        template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
        document.ConceptNameCodeSequence, document.ContentTemplateSequence = [title], [template]
        return _file(document, ExplicitVRLittleEndian) + content(_content(source, row))  # which is the last element


def _content(source: Source, row: Row) -> Iterator[bytes]:
    """The report's items by TID 1500: its language, who observed, what was done, on which image, and what was found."""
    yield code(
        "HAS CONCEPT MOD",
        Code("121049", "DCM", "Language of Content Item and Descendants"),
        Code("en-US", "RFC5646", "English (United States)"),
    )
    yield code("HAS OBS CONTEXT", Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device"))
    yield uid("HAS OBS CONTEXT", Code("121012", "DCM", "Device Observer UID"), derived_uid(row.bundle, "device"))
    for value, meaning, words in (
        ("121013", "Device Observer Name", PRODUCT),
        ("121014", "Device Observer Manufacturer", MAKER),
        ("121015", "Device Observer Model Name", f"{PRODUCT} {__version__}"),
        ("121016", "Device Observer Serial Number", row.bundle),
    ):
        yield text("HAS OBS CONTEXT", Code(value, "DCM", meaning), words)
    yield code(
        "HAS CONCEPT MOD",
        Code("121058", "DCM", "Procedure reported"),
        Code("314971001", "SCT", "Camera fundoscopy"),
    )
    library = container(Code("126200", "DCM", "Image Library Group"), [_library_entry(source)])
    yield container(Code("111028", "DCM", "Image Library"), [library])
    group = container(Code("125007", "DCM", "Measurement Group"), _group(source, row), template="1501")
    yield container(Code("126010", "DCM", "Imaging Measurements"), [group])


def _library_entry(source: Source) -> bytes:
    evidence = source.evidence
    modality = Code(evidence.Modality, "DCM", _MODALITIES.get(evidence.Modality, evidence.Modality))
    return image(
        Code("260753009", "SCT", "Source"),
        sop_class=evidence.SOPClassUID,
        sop_instance=evidence.SOPInstanceUID,
        items=[
            code("HAS ACQ CONTEXT", Code("121139", "DCM", "Modality"), modality),
            number("HAS ACQ CONTEXT", Code("110910", "DCM", "Pixel Data Rows"), evidence.Rows, _PIXELS),
            number("HAS ACQ CONTEXT", Code("110911", "DCM", "Pixel Data Columns"), evidence.Columns, _PIXELS),
        ],
    )


def _group(source: Source, row: Row) -> Iterator[bytes]:
    """The items of one measurement group by TID 1501: what is tracked, found, where, by what, and the verdict."""
    evidence = source.evidence
    tracked = f"diabetic retinopathy, {row.bundle}"[:64]
    yield text("HAS OBS CONTEXT", Code("112039", "DCM", "Tracking Identifier"), tracked)
    yield uid("HAS OBS CONTEXT", Code("112040", "DCM", "Tracking Unique Identifier"), _uid(source, row, "tracking"))
    yield code("CONTAINS", Code("121071", "DCM", "Finding"), Code("4855003", "SCT", "Diabetic retinopathy"))
    side = _SIDES.get(source.laterality or "")
    yield code(
        "HAS CONCEPT MOD",
        Code("363698007", "SCT", "Finding Site"),
        Code("5665001", "SCT", "Retina"),
        () if side is None else (code("HAS CONCEPT MOD", Code("272741003", "SCT", "Laterality"), side),),
    )
    for value, meaning, words in (
        ("111001", "Algorithm Name", PRODUCT),
        ("111003", "Algorithm Version", __version__),
        ("111002", "Algorithm Parameters", f"bundle {row.bundle}"),
    ):
        yield text("HAS CONCEPT MOD", Code(value, "DCM", meaning), words)
    yield from _measurements(row)
    yield from _evaluations(row)
    yield image(
        Code("121112", "DCM", "Source of Measurement"),
        sop_class=evidence.SOPClassUID,
        sop_instance=evidence.SOPInstanceUID,
        frame=source.frame if source.frames > 1 else None,
    )
    # TID 1501 may be extended: what a reader must know stands with the finding, not in a header that nobody shows.
    for sentence in (RESEARCH_USE, *row.reasons):
        yield text("CONTAINS", Code("121106", "DCM", "Comment"), sentence)


def _measurements(row: Row) -> Iterator[bytes]:
    for name, value in zip(_PROBABILITIES, row.probabilities, strict=False):
        yield number("CONTAINS", name, value, _NO_UNITS)
    if row.p_referable is not None:
        referable = Code("P-REFERABLE", _SCHEME, "Probability of moderate or worse diabetic retinopathy")
        yield number("CONTAINS", referable, row.p_referable, _NO_UNITS)
    if row.quality is not None:
        yield number("CONTAINS", Code("111029", "DCM", "Image Quality Rating"), row.quality, _NO_UNITS)


def _evaluations(row: Row) -> Iterator[bytes]:
    status = Code(row.status.upper().replace("_", "-"), _SCHEME, row.status.replace("_", " "))
    yield code("CONTAINS", Code("STATUS", _SCHEME, "Verdict on the photograph"), status)
    if row.status != Status.GRADED or row.grade is None:
        return
    yield code("CONTAINS", Code("246112005", "SCT", "Severity"), STAGES[row.grade])
    referable = Code("REFERABLE", _SCHEME, "Referable diabetic retinopathy")
    yield code("CONTAINS", referable, _YES if row.referable else _NO)
    for grade in row.prediction_set or ():
        yield code("CONTAINS", Code("PREDICTION-SET", _SCHEME, "Stage in the prediction set"), STAGES[grade])


def secondary_capture(source: Source, row: Row, picture: bytes) -> bytes:
    """Return the thermal picture, an image file, as the file of a Secondary Capture in JPEG baseline.

    A JPEG is taken over as it is, another format encoded once. Identifiers as in the report's. Raises ValueError where
    the picture is no image file.
    """
    jpeg, (height, width) = _as_jpeg(picture)
    with hushed():
        capture = _document(source, row, kind="capture", sop_class=SecondaryCaptureImageStorage, number=CAPTURE_NUMBER)
        capture.Modality, capture.ConversionType = "OT", "WSD"
        capture.SeriesDescription = "Thermal map of disease evidence (research use)"
        capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        capture.DerivationDescription = "Photograph beside its class-activation map"
        capture.ImageComments = RESEARCH_USE
        capture.BurnedInAnnotation = "YES" if source.burned_in else "NO"
        capture.RecognizableVisualFeatures = "NO"
        capture.Laterality, capture.PatientOrientation = source.laterality or "", []
        reference = _reference(source)
        if source.frames > 1:
            reference.ReferencedFrameNumber = source.frame
        capture.SourceImageSequence = [reference]
        capture.Rows, capture.Columns, capture.SamplesPerPixel = height, width, 3
        capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
        capture.PhotometricInterpretation, capture.PlanarConfiguration = "YBR_FULL_422", 0
        capture.LossyImageCompression, capture.LossyImageCompressionMethod = "01", "ISO_10918_1"
        capture.LossyImageCompressionRatio = f"{3 * height * width / len(jpeg):.4g}"
        capture.PixelData = encapsulate([jpeg], has_bot=False)
        capture["PixelData"].VR, capture["PixelData"].is_undefined_length = "OB", True
        return _file(capture, JPEGBaseline8Bit)


def uncompressed(capture: FileDataset) -> FileDataset:
    """Return a secondary capture with its JPEG decoded, for an archive that takes no JPEG; it stays marked as lossy."""
    data = get_frame(capture.PixelData, 0, number_of_frames=1)
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    capture.PixelData, capture.PhotometricInterpretation = pixels.tobytes(), "RGB"
    capture["PixelData"].is_undefined_length = False
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return capture


def _as_jpeg(picture: bytes) -> tuple[bytes, tuple[int, int]]:
    """Return the picture as a JPEG, YCbCr with halved colour, and its rows and columns."""
    if picture[:2] == b"\xff\xd8":
        header = read_header(picture)
        return picture, (header.height, header.width)
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("the picture is no image file")
    options = [
        cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]  # fmt: skip
    return cv2.imencode(".jpg", pixels, options)[1].tobytes(), pixels.shape[:2]


def _document(source: Source, row: Row, *, kind: str, sop_class: UID, number: int) -> Dataset:
    """Return what both documents say of patient, study, series and equipment."""
    evidence, now = source.evidence, datetime.datetime.now()
    document = Dataset()
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID, document.SOPInstanceUID = sop_class, _uid(source, row, kind)
    for keyword in ("StudyInstanceUID", *_TEXTS, *_DATES, *_TIMES):
        if keyword not in _OPTIONAL or evidence.get(keyword):
            document[keyword] = evidence[keyword]
    document.SeriesInstanceUID = derived_uid(evidence.SeriesInstanceUID, row.bundle, f"{kind} series")
    document.SeriesNumber, document.InstanceNumber = number, source.frame
    document.Manufacturer, document.ManufacturerModelName = MAKER, PRODUCT
    document.DeviceSerialNumber, document.SoftwareVersions = row.bundle[:64], __version__
    document.InstanceCreationDate = document.ContentDate = now.strftime("%Y%m%d")
    document.InstanceCreationTime = document.ContentTime = now.strftime("%H%M%S.%f")
    if source.deidentified:
        method = Dataset()
        method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
        method.CodeMeaning = "Basic Application Confidentiality Profile"
        document.PatientIdentityRemoved = "YES"
        document.DeidentificationMethodCodeSequence = [method]
        document.LongitudinalTemporalInformationModified = "REMOVED"
    return document


def _reference(source: Source) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.evidence.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.evidence.SOPInstanceUID
    return reference


def _file(document: Dataset, syntax: UID) -> bytes:
    """Return a document as the bytes of a DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.ImplementationClassUID = syntax, derived_uid("implementation")
    meta.ImplementationVersionName = f"RETIGRADE_{__version__}"[:16]
    document.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, document, enforce_file_format=True)
    return buffer.getvalue()


def _uid(source: Source, row: Row, kind: str) -> UID:
    evidence = source.evidence
    verdict = row.status, row.grade, row.referable
    return derived_uid(evidence.StudyInstanceUID, evidence.SOPInstanceUID, source.frame, row.bundle, *verdict, kind)
