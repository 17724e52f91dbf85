"""A verdict as DICOM: a structured report, and a secondary capture of the thermal picture, in the patient's study."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from retigrade import __version__
from retigrade.dicom.content import Code, code, coded, container, content, image, number, text, uid
from retigrade.dicom.encoding import CHARACTER_SET, Value, elements, file, pixels
from retigrade.dicom.source import Source
from retigrade.dicom.uids import derived_uid
from retigrade.icdr import GRADES, Status
from retigrade.output.rows import Row

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
_MODALITIES = {
    "OP": "Ophthalmic Photography",
    "OT": "Other",
    "SC": "Secondary Capture",
    "XC": "External-camera Photography",
}


def structured_report(source: Source, row: Row) -> bytes:
    """Return the verdict as the file of a Comprehensive 3D SR by template TID 1500 (PS3.16).

    Its identifiers follow from the photograph, the bundle and the verdict: a second run makes the same report.
    """
    series = elements(
        {"SeriesInstanceUID": source.series, "ReferencedSOPSequence": [_reference(source, with_frame=False)]}
    )
    study = elements({"StudyInstanceUID": source.study, "ReferencedSeriesSequence": [series]})
    scheme = {
        "CodingSchemeDesignator": _SCHEME,
        "CodingSchemeName": "Retigrade's own codes",
        "CodingSchemeResponsibleOrganization": MAKER,
    }
    return _file(
        _common(source, row, kind="report", number=REPORT_NUMBER)
        | {
            "SOPClassUID": Comprehensive3DSRStorage,
            "Modality": "SR",
            "SeriesDescription": "Diabetic retinopathy grading (research use)",
            "CodingSchemeIdentificationSequence": [elements(scheme)],
            "ReferencedPerformedProcedureStepSequence": [],
            "PerformedProcedureCodeSequence": [],
            "CurrentRequestedProcedureEvidenceSequence": [study],
            "CompletionFlag": "COMPLETE",
            "VerificationFlag": "UNVERIFIED",
            "PreliminaryFlag": "PRELIMINARY",
            "ValueType": "CONTAINER",
            "ConceptNameCodeSequence": [coded(Code("126000", "DCM", "Imaging Measurement Report"))],
            "ContinuityOfContent": "CONTINUOUS",
            "ContentTemplateSequence": [elements({"MappingResource": "DCMR", "TemplateIdentifier": "1500"})],
        },
        content(_content(source, row)),
        syntax=ExplicitVRLittleEndian,
    )


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
    library = container(Code("126200", "DCM", "Image Library Group"), [_library_entry(source)], template="")
    yield container(Code("111028", "DCM", "Image Library"), [library], template="")
    group = container(Code("125007", "DCM", "Measurement Group"), _group(source, row), template="1501")
    yield container(Code("126010", "DCM", "Imaging Measurements"), [group], template="")


def _library_entry(source: Source) -> bytes:
    modality = Code(source.modality, "DCM", _MODALITIES.get(source.modality, source.modality))
    return image(
        Code("260753009", "SCT", "Source"),
        _reference(source, with_frame=False),
        [
            code("HAS ACQ CONTEXT", Code("121139", "DCM", "Modality"), modality),
            number("HAS ACQ CONTEXT", Code("110910", "DCM", "Pixel Data Rows"), source.rows, _PIXELS),
            number("HAS ACQ CONTEXT", Code("110911", "DCM", "Pixel Data Columns"), source.columns, _PIXELS),
        ],
    )


def _group(source: Source, row: Row) -> Iterator[bytes]:
    """The items of one measurement group by TID 1501: what is tracked, found, where, by what, and the verdict."""
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
    yield image(Code("121112", "DCM", "Source of Measurement"), _reference(source))
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
    jpeg, rows, columns = _as_jpeg(picture)
    return _file(
        _common(source, row, kind="capture", number=CAPTURE_NUMBER)
        | {
            "SOPClassUID": SecondaryCaptureImageStorage,
            "Modality": "OT",
            "ConversionType": "WSD",
            "SeriesDescription": "Thermal map of disease evidence (research use)",
            "ImageType": "DERIVED\\SECONDARY\\OTHER",
            "DerivationDescription": "Photograph beside its class-activation map",
            "ImageComments": RESEARCH_USE,
            "BurnedInAnnotation": "YES" if source.burned_in or row.path else "NO",  # a file's name may name a patient
            "RecognizableVisualFeatures": "NO",
            "Laterality": source.laterality or "",
            "PatientOrientation": "",
            "SourceImageSequence": [_reference(source)],
            "Rows": rows,
            "Columns": columns,
            "SamplesPerPixel": 3,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "PhotometricInterpretation": "YBR_FULL_422",
            "PlanarConfiguration": 0,
            "LossyImageCompression": "01",
            "LossyImageCompressionMethod": "ISO_10918_1",
            "LossyImageCompressionRatio": f"{3 * rows * columns / len(jpeg):.4g}",
        },
        pixels(jpeg),
        syntax=JPEGBaseline8Bit,
    )


def uncompressed(capture: FileDataset) -> FileDataset:
    """Return a secondary capture with its JPEG decoded, for an archive that takes no JPEG; it stays marked as lossy."""
    data = get_frame(capture.PixelData, 0, number_of_frames=1)
    decoded = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    capture.PixelData, capture.PhotometricInterpretation = pixels.tobytes(), "RGB"
    capture["PixelData"].is_undefined_length = False
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return capture


def _as_jpeg(picture: bytes) -> tuple[bytes, int, int]:
    """Return the picture as a JPEG, YCbCr with halved colour, and its rows and columns."""
    if picture[:2] == b"\xff\xd8":
        height, width, *_ = simplejpeg.decode_jpeg_header(picture)
        return picture, height, width
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("the picture is no image file")
    options = [
        cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]  # fmt: skip
    rows, columns = decoded.shape[:2]
    return cv2.imencode(".jpg", decoded, options)[1].tobytes(), rows, columns


def _common(source: Source, row: Row, *, kind: str, number: int) -> dict[str, Value]:
    """Return what both documents say of patient, study, series and equipment."""
    now = datetime.datetime.now()
    day, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")
    values: dict[str, Value] = {
        **source.subject,
        "SpecificCharacterSet": CHARACTER_SET,
        "SOPInstanceUID": _uid(source, row, kind),
        "SeriesInstanceUID": derived_uid(source.series, row.bundle, f"{kind} series"),
        "SeriesNumber": number,
        "InstanceNumber": source.frame,
        "Manufacturer": MAKER,
        "ManufacturerModelName": PRODUCT,
        "DeviceSerialNumber": row.bundle[:64],
        "SoftwareVersions": __version__,
        "InstanceCreationDate": day,
        "ContentDate": day,
        "InstanceCreationTime": time,
        "ContentTime": time,
    }
    if source.deidentified:
        values |= {
            "PatientIdentityRemoved": "YES",
            "DeidentificationMethodCodeSequence": [
                coded(Code("113100", "DCM", "Basic Application Confidentiality Profile"))
            ],
            "LongitudinalTemporalInformationModified": "REMOVED",
        }
    return values


def _reference(source: Source, *, with_frame: bool = True) -> bytes:
    values: dict[str, Value] = {
        "ReferencedSOPClassUID": source.sop_class,
        "ReferencedSOPInstanceUID": source.sop_instance,
    }
    if with_frame and source.frames > 1:
        values["ReferencedFrameNumber"] = source.frame
    return elements(values)


def _file(values: dict[str, Value], end: bytes, *, syntax: str) -> bytes:
    """Return a document as a file; end: its last element, encoded."""
    return file(
        elements(values) + end,
        sop_class=str(values["SOPClassUID"]),
        sop_instance=str(values["SOPInstanceUID"]),
        syntax=syntax,
    )


def _uid(source: Source, row: Row, kind: str) -> UID:
    verdict = row.status, row.grade, row.referable
    return derived_uid(source.study, source.sop_instance, source.frame, row.bundle, *verdict, kind)
