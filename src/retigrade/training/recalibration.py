"""Fit a bundle's temperature, decision and operating points anew on photographs that it did not learn from.

    python -m retigrade.training.recalibration --bundle FILE --splits FILE --data DATA... [--output FILE]

It takes the part `validation` of the split, as training does, and leaves the network as it is. Figures that the bundle
keeps are those of the old calibration: measure it again afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.bundle import Bundle, reseal, strip
from retigrade.data.cache import canonical
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import VALIDATION, check_unseen, narrow, read_splits
from retigrade.files import write_whole
from retigrade.training.describe import calibration
from retigrade.training.export import run_model

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The bundle, the split with a part `validation`, and its labelled photographs; the command's arguments."""

    bundle: Path
    splits: Path
    data: tuple[Path, ...]
    output: Path | None = None
    """Where the bundle goes; without it, in its own place."""


def main(arguments: Recalibration) -> None:
    """Fit, report, and write the bundle."""
    file = arguments.bundle.read_bytes()
    metadata = Bundle.from_bytes(file).metadata
    manifest = narrow(read_manifest(list(arguments.data), skip_unreadable=True), arguments.splits)
    splits = read_splits(arguments.splits, manifest)
    validation = splits.part(VALIDATION)
    check_unseen(manifest, splits, [VALIDATION], metadata.training)
    photos = np.stack([canonical(manifest.entries[index], size=metadata.input_size) for index in validation])
    outputs = run_model(strip(file), photos, np.arange(len(photos)))
    fitted = calibration(outputs, manifest, validation, duplicates=splits.groups)
    _log.info("temperature %.3f (was %.3f)", fitted["temperature"], metadata.temperature)
    for name, point in fitted["operating_points"].items():
        former = metadata.operating_points.get(name)
        _log.info(
            "%s: from probability %.3f (was %s), sensitivity %s, specificity %s",
            name,
            point.threshold,
            "none" if former is None else f"{former.threshold:.3f}",
            point.sensitivity,
            point.specificity,
        )
    write_whole(arguments.output or arguments.bundle, reseal(file, metadata.model_copy(update=fitted)))


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Recalibration)
