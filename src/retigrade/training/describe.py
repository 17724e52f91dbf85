"""A bundle's metadata, filled in from what its network answers where it did not train, and from its evaluation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from retigrade.arrays import Integers
from retigrade.data.groups import Groups, independent_groups
from retigrade.data.manifest import Manifest
from retigrade.fundus.field import FIELD_VERSION
from retigrade.fundus.quality import QualityLimits
from retigrade.metadata import SCHEMA_VERSION, Metadata, OutOfDistributionDetector, Training
from retigrade.metrics.conformal import Conformal, conformal_quantile
from retigrade.metrics.decision import softmax
from retigrade.metrics.fitting import calibration_caveat
from retigrade.training import calibrate
from retigrade.training.export import ModelOutputs, concatenated
from retigrade.training.recipe import Recipe

UNSTATED = "unstated"
COVERAGE = 0.9
LIMITS = (
    "Sees no macular oedema and no other disease. One field per eye, macula-centred. Learned from the cameras and "
    "populations of its sources alone; expect less elsewhere. Mild stages are the least certain. "
    "The map shows evidence for the decision; it is not a lesion segmentation."
)
_ONE_NETWORK = (
    "one network; calibrated and decided on validation photographs, figures on test photographs never chosen on"
)
_ENSEMBLE = (
    "an ensemble of {folds} networks; calibrated, decided and measured out of fold, each photograph by the one "
    "network that never saw it"
)
_REFIT = (
    "one network, learned from every photograph; calibrated, decided and measured out of fold, each photograph by one "
    "of {folds} networks made the same way that never saw it"
)
_SOURCES = (
    "an ensemble of {folds} networks, each trained without one data set; calibrated, decided and measured on the data "
    "set that the network never saw"
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """What a network answers where it did not train.

    train, calibrate, test: indices in the manifest; calibration: the outputs for the photographs of `calibrate`.
    annotated: SHA-256 of the files of the annotated photographs that lesion supervision took.
    """

    train: Integers
    annotated: tuple[str, ...]
    calibrate: Integers
    calibration: ModelOutputs
    test: Integers

    @classmethod
    def together(cls, evidence: Sequence[Evidence]) -> Evidence:
        """What several networks answer, each on its own fold."""
        return cls(
            train=np.unique(np.concatenate([each.train for each in evidence])),
            annotated=tuple(sorted({digest for each in evidence for digest in each.annotated})),
            calibrate=np.concatenate([each.calibrate for each in evidence]),
            calibration=concatenated([each.calibration for each in evidence]),
            test=np.concatenate([each.test for each in evidence]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a bundle's metadata says of where it comes from and what it may be used for."""

    name: str
    backbone: str
    starting_weights: str
    licence: str
    intended_use: str
    recipe: Recipe
    folds: int
    leave_source_out: bool = False
    refit: bool = False


def make_metadata(
    evidence: Evidence,
    origin: Origin,
    *,
    detector: OutOfDistributionDetector,
    receptive_field_offset: tuple[float, float],
    manifest: Manifest,
    duplicates: Groups,
    split_file: bytes,
) -> Metadata:
    """Calibrate and fill in the metadata, still without figures.

    detector: of what is unlike the photographs that the network learned from. duplicates: those that are known in the
    manifest.
    """
    return Metadata(
        schema_version=SCHEMA_VERSION,
        name=origin.name,
        created=datetime.now(UTC).date(),
        backbone=origin.backbone,
        input_size=origin.recipe.size,
        field_version=FIELD_VERSION,
        out_of_distribution=detector,
        retest_noise=None,  # measured on the finished bundle
        quality=QualityLimits.stated(),
        receptive_field_offset=receptive_field_offset,
        training=make_training(manifest, evidence, origin, split_file=split_file),
        figures=(),
        licence=origin.licence,
        intended_use=origin.intended_use,
        starting_weights=origin.starting_weights,
        **calibration(evidence.calibration, manifest, evidence.calibrate, duplicates=duplicates),
    )


def calibration(outputs: ModelOutputs, manifest: Manifest, indices: Integers, *, duplicates: Groups) -> dict[str, Any]:
    """The fields of a bundle's metadata that are fitted on photographs that it did not learn from.

    outputs: the network's for those of the manifest at `indices`, int64 (n,). duplicates: those that are known in it.
    """
    grades, groups = manifest.grades[indices], independent_groups(manifest, duplicates)[indices]
    sources = manifest.sources[indices]
    weights = calibrate.equal_sources(sources)
    temperature, decision = calibrate.calibrate(outputs, grades, weights=weights)
    probabilities = softmax(outputs.logits, temperature=temperature)
    points = calibrate.operating_points(
        probabilities, decision, grades, weights=weights, groups=groups, sources=sources
    )
    threshold = points["balanced"].threshold if points else 0.5
    return {
        "temperature": temperature,
        "decision": decision,
        "referable_threshold": min(threshold, 1.0),
        "operating_points": points,
        "conformal": Conformal(
            coverage=COVERAGE, quantile=conformal_quantile(probabilities, grades, COVERAGE, weights=weights)
        ),
        "second_reader_spread": calibrate.second_reader_spread(probabilities),
        "cam_maximum": calibrate.cam_maximum(outputs, probabilities),
        "limits": f"{LIMITS} {calibration_caveat(grades)}".rstrip(),
    }


def make_training(manifest: Manifest, evidence: Evidence, origin: Origin, *, split_file: bytes) -> Training:
    """What a bundle says of the photographs that it learned from."""
    none, mild, moderate, severe, proliferative = np.bincount(manifest.grades[evidence.train], minlength=5).tolist()
    sources = Counter(str(source) for source in manifest.sources[evidence.train])
    several = _REFIT if origin.refit else _SOURCES if origin.leave_source_out else _ENSEMBLE
    protocol = several.format(folds=origin.folds) if origin.folds else _ONE_NETWORK
    return Training(
        photos=len(evidence.train),
        grades=(none, mild, moderate, severe, proliferative),
        sources=dict(sorted(sources.items())),
        fingerprint=manifest.fingerprint,
        splits=hashlib.sha256(split_file).hexdigest(),
        annotated=evidence.annotated,
        photo_hashes=Training.pack_hashes(manifest.entries[index].sha256 for index in evidence.train),
        epochs=origin.recipe.epochs,
        protocol=f"recipe {origin.recipe.name}; {protocol}; {len(evidence.calibrate)} calibration and "
        f"{len(evidence.test)} test photographs; calibrated with every source weighing the same",
    )
