"""The folder `dicom/` of a run: a structured report and a secondary capture for each DICOM photograph."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from retigrade.dicom.documents import read_source, secondary_capture, structured_report
from retigrade.dicom.photograph import header_of
from retigrade.errors import UnreadablePhoto
from retigrade.files import write_whole
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.output.illustrate import Illustrated


@dataclass(slots=True)
class DicomFolder:
    """Writes `dicom/<name>.sr.dcm` and `.sc.dcm` below `folder`; left_out: sentences on inputs that got neither."""

    folder: Path
    left_out: list[str] = field(default_factory=list)

    def write(self, item: Input, verdict: Illustrated) -> None:
        """Write the files of one verdict; an input that is no DICOM photograph has none.

        Raises UsageError where a file cannot be written.
        """
        try:
            made = documents_of(item, verdict)
        except UnreadablePhoto as problem:
            self.left_out.append(str(problem))
            return
        for kind, dataset in made.items():
            write_whole(self.folder / "dicom" / f"{item.name}.{kind}.dcm", as_file(dataset))


def documents_of(item: Input, verdict: Illustrated) -> dict[str, Dataset]:
    """Return the documents of one verdict by kind: "sr", and "sc" where there is a thermal picture.

    Empty for an input that is no DICOM photograph or could not be read. Raises UnreadablePhoto where its study
    cannot be told: it names none, or names another patient elsewhere.
    """
    header = header_of(item)
    if header is None or verdict.row.status == Status.ERROR:
        return {}
    if item.subject.patient != header.subject.patient:
        raise UnreadablePhoto(f"{item.name}: no DICOM is written, whose study it belongs to is not known")
    source = read_source(item.path, frame=item.frame or 1)
    made: dict[str, Dataset] = {"sr": structured_report(source, verdict.row)}
    if verdict.picture is not None:
        made["sc"] = secondary_capture(source, verdict.row, verdict.picture)
    return made


def as_file(dataset: Dataset) -> bytes:
    """Return a document as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
