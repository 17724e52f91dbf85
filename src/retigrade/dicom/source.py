"""What a photograph's header gives to the documents that are made of it: patient, study and image, cleaned."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from retigrade.dicom.dataset import hushed, identifier_of, integer_of, text_of, uid_of
from retigrade.dicom.uids import derived_uid
from retigrade.errors import UnreadablePhoto
from retigrade.subjects import pseudonym
from retigrade.text import shown

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Texts with the number of characters that DICOM allows them (PS3.5, 6.2); a longer one would name something else.
_TEXTS = {
    "IssuerOfPatientID": 64, "PatientSex": 16, "AccessionNumber": 16, "StudyID": 16, "StudyDescription": 64,
}  # fmt: skip
_PATIENT_ID = 64  # characters
_NAMES = ("PatientName", "ReferringPhysicianName")
_NAME_GROUPS, _NAME_GROUP = 3, 64  # alphabetic, ideographic, phonetic; characters of each
_DATES, _TIMES = ("PatientBirthDate", "StudyDate"), ("StudyTime",)
_OPTIONAL = frozenset({"IssuerOfPatientID", "StudyDescription"})  # left out rather than empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What documents take over from a photograph's file.

    subject: attributes of patient and study by keyword, as they stand in a document. frame: counted from 1. laterality:
    "R", "L" or None. burned_in: whether the header admits text in the picture.
    """

    subject: Mapping[str, str]
    sop_class: str
    sop_instance: str
    series: str
    modality: str
    rows: int
    columns: int
    frame: int
    frames: int
    laterality: str | None = None
    burned_in: bool = False
    deidentified: bool = False

    @property
    def study(self) -> str:
        """The study's UID."""
        return self.subject["StudyInstanceUID"]


def source_of(dataset: Dataset, *, name: str, frame: int = 1) -> Source:
    """Return what documents need of a photograph's header; `name` stands in the error.

    Raises UnreadablePhoto where it names no study, series or instance, or a patient whose identifier is too long or
    several: nothing can be filed beside it.
    """
    with hushed():
        uids = {keyword: uid_of(dataset, keyword) for keyword in _UIDS}
        for keyword, uid in uids.items():
            if uid is None:
                raise UnreadablePhoto(
                    f"{shown(name)}: its header has no valid {keyword}, nothing can be filed beside it"
                )
        patient = _patient(dataset, name)
        subject = {"StudyInstanceUID": str(uids["StudyInstanceUID"]), "PatientID": patient, **_texts(dataset)}
        sides = {(text_of(dataset, keyword) or "").upper() for keyword in ("ImageLaterality", "Laterality")}
        sides &= {"R", "L"}
        return Source(
            subject=subject,
            sop_class=str(dataset.SOPClassUID),
            sop_instance=str(uids["SOPInstanceUID"]),
            series=str(uids["SeriesInstanceUID"]),
            modality=text_of(dataset, "Modality") or "OP",
            rows=integer_of(dataset, "Rows") or 1,
            columns=integer_of(dataset, "Columns") or 1,
            frame=frame,
            frames=integer_of(dataset, "NumberOfFrames") or 1,
            laterality=sides.pop() if len(sides) == 1 else None,
            burned_in=(text_of(dataset, "BurnedInAnnotation") or "").upper() == "YES",
        )


def deidentified(source: Source, *, key: bytes) -> Source:
    """Return the source without what tells who the patient is (PS3.15, Basic Application Confidentiality Profile).

    The patient's identifier becomes a pseudonym, UIDs become others that follow from them and the key, and dates, names
    and numbers of study and patient are emptied; what is made of it says so.
    """

    def hidden(uid: str) -> str:
        return str(derived_uid("pseudonym", key.hex(), uid))

    patient = pseudonym(source.subject["PatientID"], key=key)
    subject = {keyword: "" for keyword in source.subject if keyword not in _OPTIONAL}
    subject |= {"StudyInstanceUID": hidden(source.study), "PatientID": patient, "PatientName": f"{patient}^"}
    return replace(
        source,
        subject=subject,
        sop_instance=hidden(source.sop_instance),
        series=hidden(source.series),
        deidentified=True,
    )


def _patient(dataset: Dataset, name: str) -> str:
    """The patient's identifier to the letter: one that was changed would name another patient."""
    try:
        patient = identifier_of(dataset, "PatientID") or ""
    except ValueError:
        raise UnreadablePhoto(f"{shown(name)}: its Patient ID names several patients, nothing can be filed") from None
    if len(patient) > _PATIENT_ID:
        raise UnreadablePhoto(f"{shown(name)}: its Patient ID is longer than DICOM allows, nothing can be filed")
    return patient


def _texts(dataset: Dataset) -> dict[str, str]:
    """Patient and study: texts as they stand, dates and times only where they are valid."""
    found = {keyword: _text(dataset, keyword) for keyword in _TEXTS}
    found = {keyword: text if len(text) <= _TEXTS[keyword] else "" for keyword, text in found.items()}
    if found["PatientSex"] not in ("M", "F", "O"):
        found["PatientSex"] = ""
    for keyword in _NAMES:
        groups = _text(dataset, keyword).split("=")[:_NAME_GROUPS]
        found[keyword] = "=".join(group[:_NAME_GROUP] for group in groups)
    for keyword in _DATES:
        found[keyword] = _valid(text_of(dataset, keyword) or "", "%Y%m%d")
    for keyword in _TIMES:
        time = (text_of(dataset, keyword) or "")[: len("HHMMSS")]
        found[keyword] = _valid(time, "%H%M%S"[: len(time)])  # minutes and seconds may be left out (PS3.5, 6.2)
    return {keyword: text for keyword, text in found.items() if text or keyword not in _OPTIONAL}


def _text(dataset: Dataset, keyword: str) -> str:
    return (text_of(dataset, keyword) or "").replace("\\", " ")  # which would make two values of it


def _valid(text: str, form: str) -> str:
    """The text, or nothing where it is no moment of this form: strptime also takes fewer digits, and guesses."""
    try:
        return text if datetime.datetime.strptime(text, form).strftime(form) == text else ""
    except ValueError:
        return ""
