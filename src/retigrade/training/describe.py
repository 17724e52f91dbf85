"""Fill in a bundle's card from what was measured of its network."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from retigrade.arrays import Flags, Floats, Integers
from retigrade.data.manifest import Manifest
from retigrade.fundus.field import FIELD_VERSION
from retigrade.fundus.quality import QualityLimits
from retigrade.metadata import SCHEMA_VERSION, Metadata, Training
from retigrade.metrics.conformal import Conformal, conformal_quantile
from retigrade.metrics.decision import softmax
from retigrade.training import calibrate as measured
from retigrade.training.export import ModelOutputs
from retigrade.training.recipe import Recipe

COVERAGE = 0.9
LICENCE = (
    "Apache-2.0 for the weights as trained here; the photographs that they learned from have terms of their own, "
    "which may restrict commercial use"
)
INTENDED_USE = (
    "Research and teaching: to grade diabetic retinopathy (ICDR 0-4) in colour photographs of the posterior pole. "
    "Not a medical device; not for decisions about patients."
)
LIMITS = (
    "Sees no macular oedema and no other disease. One field per eye, macula-centred. Learned from the cameras and "
    "populations of its sources alone; expect less elsewhere. Mild stages are the least certain. "
    "The map shows evidence for the decision; it is not a lesion segmentation."
)
_WORDS = {
    0: "one network; calibrated and decided on validation photographs, figures on test photographs never chosen on",
    1: "an ensemble of {folds} networks; calibrated, decided and measured out of fold, each photograph by the one "
    "network that never saw it",
}


_T = TypeVar("_T", int, float)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """What a network answers where it did not train.

    train, calibrate, test: indices in the manifest; calibration, tested: the answers to the latter two. marked: SHA-256
    of the files of the photographs whose marked lesions it learned from.
    """

    train: Integers
    annotated: tuple[str, ...]
    calibrate: Integers
    calibration: ModelOutputs
    test: Integers
    tested: ModelOutputs


def make_metadata(
    evidence: Evidence,
    *,
    features: Floats,
    calibration_features: Floats,
    receptive_field_offset: tuple[float, float],
    manifest: Manifest,
    groups: Integers,
    split_file: bytes,
    backbone: str,
    recipe: Recipe,
    folds: int,
    start: str,
    name: str,
) -> Metadata:
    """Measure and fill in a card.

    features: of the training photographs, (n, C), calibration_features those of the calibration ones, both of the
    network as shipped. groups: int64 (N,), equal for photographs of one patient or duplicate group.
    """
    grades = manifest.grades
    temperature, decision = measured.calibrated(evidence.calibration, grades[evidence.calibrate])
    known = softmax(evidence.calibration.logits, temperature=temperature)
    home, at_home = _home(manifest, evidence.calibrate)
    points = measured.operating_points(known[at_home], grades[evidence.calibrate][at_home])
    threshold = points["balanced"].threshold if points else 0.5
    sources = manifest.sources[evidence.test]
    sets = {"all test photographs": np.arange(len(evidence.test))}
    for source in sorted(set(sources)):
        sets[f"{source} test photographs"] = np.flatnonzero(sources == source)
    figures = measured.figures(
        softmax(evidence.tested.logits, temperature=temperature),
        decision,
        grades[evidence.test],
        sets=sets,
        groups=groups[evidence.test],
        threshold=threshold,
    )
    return Metadata(
        schema_version=SCHEMA_VERSION,
        name=name,
        created=datetime.now(UTC).date(),
        backbone=backbone,
        input_size=recipe.size,
        field_version=FIELD_VERSION,
        temperature=temperature,
        decision=decision,
        referable_threshold=min(threshold, 1.0),
        operating_points=points,
        conformal=Conformal(
            coverage=COVERAGE,
            quantile=conformal_quantile(known[at_home], grades[evidence.calibrate][at_home], COVERAGE),
        ),
        second_reader_spread=measured.second_reader_spread(known),
        out_of_distribution=measured.fit_out_of_distribution(features, calibration_features),
        quality=QualityLimits(**QualityLimits().model_dump()),
        cam_maximum=measured.cam_maximum(evidence.calibration, known),
        receptive_field_offset=receptive_field_offset,
        training=_training(manifest, evidence, recipe, split_file=split_file, folds=folds, home=home),
        figures=tuple(figures),
        licence=LICENCE,
        intended_use=INTENDED_USE,
        limits=LIMITS,
        starting_weights=start,
    )


def _five(values: list[_T]) -> tuple[_T, _T, _T, _T, _T]:
    """One value for each grade."""
    none, mild, moderate, severe, proliferative = values
    return none, mild, moderate, severe, proliferative


def _home(manifest: Manifest, calibrate: Integers) -> tuple[str, Flags]:
    """The data set with the most calibration photographs, and which of them are its own.

    A threshold keeps its promise among people like those that chose it. On a mixture of populations it would keep it
    for none of them: too many referred where the network is good, too few found where it is not.
    """
    sources = manifest.sources[calibrate]
    home = Counter(sources.tolist()).most_common(1)[0][0]
    return home, sources == home


def _training(
    manifest: Manifest, evidence: Evidence, recipe: Recipe, *, split_file: bytes, folds: int, home: str
) -> Training:
    learned = manifest.grades[evidence.train]
    counts = np.bincount(learned, minlength=5)
    sources = Counter(str(source) for source in manifest.sources[evidence.train])
    return Training(
        photos=len(learned),
        grades=_five(counts.tolist()),
        sources=dict(sorted(sources.items())),
        fingerprint=manifest.fingerprint,
        splits=hashlib.sha256(split_file).hexdigest(),
        annotated=evidence.annotated,
        photo_hashes=Training.pack_hashes(manifest.entries[index].sha256 for index in evidence.train),
        epochs=recipe.epochs,
        protocol=f"recipe {recipe.name}; {_WORDS[min(folds, 1)].format(folds=folds)}; "
        f"{len(evidence.calibrate)} calibration and {len(evidence.test)} test photographs; operating points and "
        f"possible grades chosen on those of {home} alone",
    )
