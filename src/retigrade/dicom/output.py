"""The folder `dicom/` of a run: a structured report and a secondary capture for each DICOM photograph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from retigrade.dicom.documents import secondary_capture, structured_report
from retigrade.dicom.photograph import dataset_of, header_of
from retigrade.dicom.source import deidentified, source_of
from retigrade.errors import UnreadablePhoto
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.output.illustrate import Illustrated
from retigrade.subjects import pseudonym


@dataclass(slots=True)
class DicomWriter:
    """Makes `dicom/<name>.sr.dcm` and `.sc.dcm` of each verdict.

    key: of the pseudonyms that stand for patients and UIDs, None to leave both as they are. left_out: sentences on
    inputs that have neither file.
    """

    key: bytes | None = None
    left_out: list[str] = field(default_factory=list)

    def __call__(self, item: Input, verdict: Illustrated) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of each file of one verdict; none for an input that is no DICOM photograph."""
        try:
            made = documents_of(item, verdict, key=self.key)
        except UnreadablePhoto as problem:
            self.left_out.append(str(problem))
            return
        for kind, data in made.items():
            yield f"dicom/{item.name}.{kind}.dcm", data


def documents_of(item: Input, verdict: Illustrated, *, key: bytes | None = None) -> dict[str, bytes]:
    """Return the files of one verdict by kind: "sr", and "sc" where there is a thermal picture.

    key: see `DicomWriter`. Empty for an input that is no DICOM photograph or could not be read. Raises UnreadablePhoto
    where its study is not known: it names none, or names another patient elsewhere.
    """
    header = header_of(item)
    if header is None or verdict.row.status == Status.ERROR:
        return {}
    expected = header.subject.patient
    if expected is not None and key is not None:
        expected = pseudonym(expected, key=key)
    if item.subject.patient != expected:
        raise UnreadablePhoto(f"{item.name}: no DICOM is written, whose study it belongs to is not known")
    source = source_of(dataset_of(item), name=item.path.name, frame=item.frame or 1)
    if key is not None:
        source = deidentified(source, key=key)
    made = {"sr": structured_report(source, verdict.row)}
    if verdict.picture is not None:
        made["sc"] = secondary_capture(source, verdict.row, verdict.picture)
    return made
