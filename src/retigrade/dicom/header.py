"""What a DICOM header says of a photograph: whether it is one at all, whose eye it shows, and how it was taken."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from retigrade.dicom.dataset import identifier_of, integer_of, items_of, number_of, text_of, uid_of
from retigrade.errors import NotAFundus, UnreadablePhoto
from retigrade.fundus.header import HeaderError, check_size
from retigrade.grading import Acquisition, Eye, Subject
from retigrade.text import shown

# SOP classes that a colour photograph of the fundus may come in (PS3.4, B.5).
PHOTOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "Ophthalmic Photography 8 Bit Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "Ophthalmic Photography 16 Bit Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture Image Storage",
}
# Devices and places of an Ophthalmic Photography image that is none of the retina (PS3.16, CID 4202, 4209).
_OTHER_DEVICES = {
    code.value: code.meaning.lower()
    for code in (
        codes.cid4202.ExternalCamera,
        codes.cid4202.SlitLampBiomicroscope,
        codes.cid4202.SpecularMicroscope,
        codes.cid4202.Keratoscope,
        codes.cid4202.Pupillograph,
        codes.cid4202.OperatingMicroscope,
    )
}
_OTHER_PLACES = {
    code.value: code.meaning.lower()
    for code in (
        codes.cid4209.AnteriorChamberOfEye,
        codes.cid4209.CiliaryBody,
        codes.cid4209.Conjunctiva,
        codes.cid4209.Cornea,
        codes.cid4209.Eyelid,
        codes.cid4209.LowerEyelid,
        codes.cid4209.UpperEyelid,
        codes.cid4209.Iris,
        codes.cid4209.LacrimalCaruncle,
        codes.cid4209.LacrimalGland,
        codes.cid4209.LacrimalSac,
        codes.cid4209.Lens,
        codes.cid4209.Sclera,
    )
}
_EYES = {"R": Eye.RIGHT, "L": Eye.LEFT}
_EYE_IN_NAME = {"od": Eye.RIGHT, "right": Eye.RIGHT, "os": Eye.LEFT, "left": Eye.LEFT}
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_FRAMES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """One DICOM photograph's own words; what it does not say is None.

    frames: pictures in it. warnings: what a reader of the grading should know of this header.
    """

    sop_class: UID
    sop_instance: UID | None
    series: UID | None
    study: UID | None
    frames: int
    subject: Subject
    acquisition: Acquisition
    warnings: tuple[str, ...] = ()


def read_header(dataset: FileDataset, *, path: Path) -> DicomHeader:
    """Read what the header says, and refuse by it, before a pixel is decoded, what is no colour photograph of a fundus.

    Raises NotAFundus: another SOP class, another device or place, angiography, or grey pixels. Raises
    UnreadablePhoto: a transfer syntax that is not read, no pixels, or a size outside the limits.
    """
    name = shown(path.name)
    sop_class = dataset.SOPClassUID
    if sop_class not in PHOTOGRAPHS:
        raise NotAFundus(f"{name}: {_class_name(sop_class)} is no class of fundus photographs")
    if reason := _other_subject(dataset):
        raise NotAFundus(f"{name}: {reason}")
    _check_image(dataset, name)
    eye, warnings = _eye(dataset, path)
    if (text_of(dataset, "BurnedInAnnotation") or "").upper() == "YES":
        warnings += ("the header says that text is burned into the picture",)
    try:
        patient = identifier_of(dataset, "PatientID")
    except ValueError:
        patient = None
        warnings += ("patient unknown: the header names several in its Patient ID",)
    frames = integer_of(dataset, "NumberOfFrames")
    return DicomHeader(
        sop_class=UID(sop_class),
        sop_instance=uid_of(dataset, "SOPInstanceUID"),
        series=uid_of(dataset, "SeriesInstanceUID"),
        study=uid_of(dataset, "StudyInstanceUID"),
        frames=1 if frames is None else frames,
        subject=Subject(patient=patient, eye=eye, date=_date(dataset)),
        acquisition=_acquisition(dataset),
        warnings=warnings,
    )


def _class_name(sop_class: str) -> str:
    name = UID(sop_class).name
    return shown(name) if name != sop_class else f"the private or unknown SOP class {shown(str(sop_class))}"


def _other_subject(dataset: Dataset) -> str | None:
    """Return why an image of a class that may show a fundus does not, by its own codes; None where nothing says so."""
    for item in items_of(dataset, "AcquisitionDeviceTypeCodeSequence"):
        if device := _OTHER_DEVICES.get(text_of(item, "CodeValue") or ""):
            return f"taken with a {device}, not of the retina"
    for item in items_of(dataset, "AnatomicRegionSequence"):
        if place := _OTHER_PLACES.get(text_of(item, "CodeValue") or ""):
            return f"it shows the {place}, not the retina"
    if items_of(dataset, "ContrastBolusAgentSequence") or text_of(dataset, "ContrastBolusAgent"):
        return "an angiography (a contrast agent was given), not a colour photograph"
    if (text_of(dataset, "PhotometricInterpretation") or "").startswith("MONOCHROME"):
        return "a grey picture, as of an angiography or through a filter; a colour photograph is needed"
    return None


def _check_image(dataset: Dataset, name: str) -> None:
    rows, columns = integer_of(dataset, "Rows"), integer_of(dataset, "Columns")
    if rows is None or columns is None:
        raise UnreadablePhoto(f"{name}: the DICOM file holds no picture, it declares no rows and columns")
    try:
        check_size(columns, rows)
    except HeaderError as problem:
        raise UnreadablePhoto(f"{name}: {problem}") from None
    frames = text_of(dataset, "NumberOfFrames")
    if frames is not None and not (frames.isdecimal() and len(frames) < 8 and 1 <= int(frames) <= _FRAMES):
        raise UnreadablePhoto(f"{name}: declares {shown(frames)} frames, from 1 to {_FRAMES} are read")


def _eye(dataset: Dataset, path: Path) -> tuple[Eye | None, tuple[str, ...]]:
    """Return the stated eye, and what contradicts it: Image Laterality, then Laterality; never guessed."""
    image, series = (_EYES.get((text_of(dataset, tag) or "").upper()) for tag in ("ImageLaterality", "Laterality"))
    if image and series and image is not series:
        return None, (f"eye unknown: the header says {image} for the image and {series} for its series",)
    eye = image or series
    named = {_EYE_IN_NAME[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in _EYE_IN_NAME}
    if eye and named and named != {eye}:
        return eye, (f"the file's name says {' and '.join(sorted(named))} eye, its header {eye}",)
    return eye, ()


def _date(dataset: Dataset) -> datetime.date | None:
    """Return the day of the visit: the study's, else the acquisition's, else the content's."""
    for keyword in ("StudyDate", "AcquisitionDateTime", "AcquisitionDate", "ContentDate"):
        if match := _DATE.match(text_of(dataset, keyword) or ""):
            try:
                return datetime.date(*map(int, match.groups()))
            except ValueError:
                continue
    return None


def _acquisition(dataset: Dataset) -> Acquisition:
    maker, model = text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName")
    device = " ".join(part for part in (maker, model, text_of(dataset, "DeviceSerialNumber")) if part)
    view = number_of(dataset, "HorizontalFieldOfView")
    try:
        spacing = tuple(float(value) for value in dataset.get("PixelSpacing") or ())
    except Exception:
        spacing = ()
    fits = len(spacing) == 2 and all(0 < value < 1 for value in spacing)
    return Acquisition(
        device=device or None,
        field_of_view=view if view and 0 < view <= 360 else None,
        pixel_spacing=(spacing[0], spacing[1]) if fits else None,
    )
