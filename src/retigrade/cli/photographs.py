"""The PATHs of a command to its inputs, DICOM among them where the extra `dicom` is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retigrade.inputs import Input, Inputs


def expand_all(paths: Sequence[Path], *, exclude: Path | None = None) -> Inputs:
    """List what `paths` stand for as `retigrade.inputs.expand` does, with the photographs in DICOM files."""
    from retigrade.inputs import expand

    if find_spec("pydicom") is None:
        return expand(paths, exclude=exclude)
    met_dicom = False

    def list_dicom(path: Path, name: str) -> Iterable[Input]:
        nonlocal met_dicom
        from retigrade.dicom import photograph  # its packages take a moment: only where there is DICOM to read

        met_dicom = True
        return photograph.list_dicom(path, name)

    inputs = expand(paths, exclude=exclude, list_dicom=list_dicom)
    if not met_dicom:
        return inputs
    from retigrade.dicom.photograph import check_studies

    return replace(inputs, items=check_studies(inputs.items))
