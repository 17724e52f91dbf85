"""What `--dicom` and `--fhir` write beside the listings of a run."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from retigrade.errors import UsageError
from retigrade.text import listing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retigrade.dicom.output import DicomWriter
    from retigrade.fundus.decode import Photo
    from retigrade.inputs import Inputs
    from retigrade.output.fhir import FhirFolder
    from retigrade.output.rows import Row
    from retigrade.output.run import Writer


BURNED_IN = "text seems to be burned in beside the retina, and the pictures show it: it may name the patient"


def without_traces(inputs: Inputs) -> Inputs:
    """Return pseudonymous inputs without their studies' identifiers, and looked at for text that is burned in."""
    from retigrade.fundus.burned_in import has_text

    def inspect(photo: Photo) -> tuple[str, ...]:
        return (BURNED_IN,) if has_text(photo) else ()

    return replace(inputs, items=tuple(replace(item, study=None, inspect=inspect) for item in inputs.items))


class HospitalOutputs:
    """Writes the verdicts of a run as DICOM, as FHIR, or both."""

    def __init__(
        self, inputs: Inputs, out: Path, *, dicom: bool, fhir: bool, bundle: str, key: bytes | None = None
    ) -> None:
        """Prepare both; bundle: the identity of the one that grades; key: of the pseudonyms, None for none.

        Raises UsageError where the extra is missing.
        """
        self._dicom: DicomWriter | None = None
        self._fhir: FhirFolder | None = None
        self._studies = {str(item): item.study for item in inputs.items}
        if dicom:
            if find_spec("pydicom") is None:
                raise UsageError(
                    "--dicom needs packages that are not installed: install Retigrade with its extra dicom"
                )
            from retigrade.dicom.output import DicomWriter

            self._dicom = DicomWriter(key=key)
        if fhir:
            from retigrade.output.fhir import FhirFolder

            self._fhir = FhirFolder(out, bundle=bundle)

    @property
    def writers(self) -> Mapping[str, Writer]:
        """What makes further files of each verdict, for `retigrade.output.run.run`."""
        return {} if self._dicom is None else {"dicom": self._dicom}

    def add(self, row: Row) -> None:
        """Take one verdict for the patients' bundles."""
        if self._fhir is not None:
            self._fhir.add(row, study=self._studies.get(row.path))

    def finish(self, *, interrupted: bool) -> list[str]:
        """Write what waits for the end of the run; returns sentences on what is in none of the files.

        interrupted: the run was stopped before, so that no FHIR is written: half a visit would say that an eye was not
        photographed, and replace what an earlier run said of it.
        """
        sentences = []
        if self._dicom is not None and self._dicom.left_out:
            sentences.append(f"no DICOM for {len(self._dicom.left_out)}: {listing(self._dicom.left_out)}")
        if self._fhir is not None and interrupted:
            sentences.append("FHIR waits for the end of the run, when every visit is whole")
        elif self._fhir is not None and (nobody := self._fhir.publish()):
            sentences.append(f"no FHIR for {nobody}: their patient is not known")
        return sentences
