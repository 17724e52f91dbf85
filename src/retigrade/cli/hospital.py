"""What `--dicom` and `--fhir` write beside the listings of a run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from retigrade.errors import UsageError
from retigrade.text import listing

if TYPE_CHECKING:
    from retigrade.dicom.output import DicomFolder
    from retigrade.inputs import Input
    from retigrade.output.fhir import FhirFolder
    from retigrade.output.illustrate import Illustrated


class HospitalOutputs:
    """Takes each verdict of a run and writes it as DICOM, as FHIR, or both."""

    def __init__(self, out: Path, *, dicom: bool, fhir: bool, bundle: str) -> None:
        """Prepare both; `bundle` is the identity of the bundle that grades. UsageError where the extra is missing."""
        self._dicom: DicomFolder | None = None
        self._fhir: FhirFolder | None = None
        if dicom:
            if find_spec("highdicom") is None:
                raise UsageError(
                    "--dicom needs packages that are not installed: install Retigrade with its extra dicom"
                )
            from retigrade.dicom.output import DicomFolder

            self._dicom = DicomFolder(out)
        if fhir:
            from retigrade.output.fhir import FhirFolder

            self._fhir = FhirFolder(out, bundle=bundle)

    def write(self, item: Input, verdict: Illustrated) -> None:
        """Write one verdict; UsageError where a file cannot be written."""
        if self._dicom is not None:
            self._dicom.write(item, verdict)
        if self._fhir is not None:
            self._fhir.add(verdict.row, study=item.study)

    def finish(self) -> list[str]:
        """Write what waits for the end of the run; returns sentences on what is in none of the files."""
        sentences = []
        if self._dicom is not None and self._dicom.left_out:
            sentences.append(f"no DICOM for {len(self._dicom.left_out)}: {listing(self._dicom.left_out)}")
        if self._fhir is not None and (nobody := self._fhir.publish()):
            sentences.append(f"no FHIR for {nobody}: their patient is not known")
        return sentences
