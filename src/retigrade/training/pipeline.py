"""From a data set to a bundle: split, prepare, train, export, and measure on photographs that trained nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.bundle import reseal
from retigrade.data.annotations import read_annotated
from retigrade.data.cache import prepared
from retigrade.data.duplicates import find_duplicates
from retigrade.data.groups import independent_groups
from retigrade.data.manifest import Manifest
from retigrade.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Splits,
    k_fold,
    read_splits,
    three_way,
    within,
    write_splits,
)
from retigrade.files import write_whole
from retigrade.metrics.fitting import fit_prior
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.describe import Evidence, make_metadata
from retigrade.training.distillation import Teach, cross_fitted_targets
from retigrade.training.export import answer, joined, receptive_field_offset, to_onnx
from retigrade.training.lesion_supervision import Lesions, not_of_an_eye_in, prepare_lesions, supervise_lesions
from retigrade.training.loop import Progress, fit, predict
from retigrade.training.network import Ensemble, Network
from retigrade.training.recipe import Recipe

VALIDATION_SHARE = TEST_SHARE = 0.1
BUNDLE, SPLITS, WEIGHTS = "bundle.onnx", "splits.json", "network.safetensors"
_CENTRE_PHOTOS = 16  # enough for the gradient's centre to settle


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to learn: folds 0 trains one network on one split; K trains K networks, each tested on its own fold.

    lesions: a folder of photographs with marked lesions, to teach the fine evidence where it is to be found.
    weights: a file to start from; start: without one, start from timm's ImageNet weights rather than at random.
    """

    recipe: Recipe
    backbone: str
    folds: int
    seed: int
    weights: Path | None
    start: bool
    lesions: Path | None
    mirror: bool
    pick: Literal["last", "best"]
    name: str


class Journal(Progress, Protocol):
    """Told how several trainings go."""

    def begin(self, folder: Path, *, epochs: int) -> None:
        """Hear of the next one, which keeps its checkpoints in `folder`."""


def learn(
    manifest: Manifest, plan: TrainConfig, *, folder: Path, fabric: Fabric, progress: Journal | None = None
) -> Path:
    """Train as planned and write `bundle.onnx`; returns its path.

    `folder` keeps the split, the prepared photographs and the checkpoints; what is there already is continued.
    """
    with fabric.rank_zero_first():  # of several processes one writes and the others read
        splits = _splits(manifest, plan, folder / SPLITS)
        photos = prepared(manifest, size=plan.recipe.size, folder=folder)
    judged = []
    for part in _parts(manifest, splits, plan):

        def train(name: str, lesson: TrainingData, recipe: Recipe, part: _Part = part) -> Network:
            if progress:
                progress.begin(folder / part.name / name, epochs=recipe.epochs)
            return fit(
                lesson,
                recipe,
                backbone=plan.backbone,
                weights=plan.weights,
                start=plan.start,
                seed=plan.seed,
                fabric=fabric,
                folder=folder / part.name / name,
                progress=progress,
                pick=plan.pick,
            ).network

        lesson = _lesson(manifest, splits, photos, plan.recipe, part=part)
        if plan.recipe.opinions:
            shares = {f"opinion{n}": 1 / plan.recipe.opinions for n in range(1, plan.recipe.opinions + 1)}
            parts = within(manifest, splits, part.train, shares=shares, seed=plan.seed)
            lesson = cross_fitted_targets(lesson, plan.recipe, parts=parts, teach=_teaching(train, photos, fabric))
        network = train("", lesson, plan.recipe)
        if fabric.is_global_zero:
            annotated = _marked(manifest, plan, part)
            if annotated is not None:
                supervise_lesions(network, lesson, annotated, seed=plan.seed, device=fabric.device)
            how = f"recipe {plan.recipe.name}, {plan.recipe.epochs} epochs"
            network.save(folder / part.name / WEIGHTS, trained=how)
            _correct_prior(network, lesson, fabric=fabric)
            judged.append(_judge(network, photos, plan, part, annotated=() if annotated is None else annotated.digests))
    if fabric.is_global_zero:
        whole = judged[0] if len(judged) == 1 else _together(judged, photos, plan)
        write_bundle(whole, manifest, splits, photos, plan, folder=folder)
    fabric.barrier()
    return folder / BUNDLE


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """An exported network, what it answers where it did not train, and its features of the calibration photographs."""

    network: Network | Ensemble
    model: bytes
    evidence: Evidence
    calibration_features: Floats


def write_bundle(
    judged: _Judged,
    manifest: Manifest,
    splits: Splits,
    photos: Pixels,
    plan: TrainConfig,
    *,
    folder: Path,
) -> None:
    """Write a network with all that was measured of it, as `bundle.onnx`."""
    evidence = judged.evidence
    across, down = receptive_field_offset(judged.network, photos[evidence.calibrate[:_CENTRE_PHOTOS]])
    metadata = make_metadata(
        evidence,
        features=answer(judged.model, photos, evidence.train).features,
        calibration_features=judged.calibration_features,
        receptive_field_offset=(0.5 if plan.mirror else across, down),
        manifest=manifest,
        groups=independent_groups(manifest, splits.groups),
        split_file=(folder / SPLITS).read_bytes(),
        backbone=plan.backbone,
        recipe=plan.recipe,
        folds=plan.folds,
        start=judged.network.origin,
        name=plan.name,
    )
    write_whole(folder / BUNDLE, reseal(judged.model, metadata))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one network trains, validates and is tested on; int64 indices."""

    name: str
    train: Integers
    validation: Integers
    test: Integers


def _parts(manifest: Manifest, splits: Splits, plan: TrainConfig) -> Iterator[_Part]:
    if plan.folds == 0:
        yield _Part("", splits.part(TRAIN), splits.part(VALIDATION), splits.part(TEST))
    for fold in splits.names if plan.folds else ():
        # Each fold is tested on by a network that neither trained nor stopped by it.
        shares = {TRAIN: 1 - VALIDATION_SHARE, VALIDATION: VALIDATION_SHARE}
        inner = within(manifest, splits, splits.rest(fold), shares=shares, seed=plan.seed)
        yield _Part(fold, inner[TRAIN], inner[VALIDATION], splits.part(fold))


def _splits(manifest: Manifest, plan: TrainConfig, path: Path) -> Splits:
    if path.exists():
        return read_splits(path, manifest)
    groups = find_duplicates(manifest.paths)
    if plan.folds:
        splits = k_fold(manifest, groups, folds=plan.folds, seed=plan.seed)
    else:
        splits = three_way(manifest, groups, validation=VALIDATION_SHARE, test=TEST_SHARE, seed=plan.seed)
    write_splits(splits, path, manifest)
    return splits


def _lesson(manifest: Manifest, splits: Splits, photos: Pixels, recipe: Recipe, *, part: _Part) -> TrainingData:
    names = sorted(set(manifest.sources))
    return TrainingData(
        photos=photos,
        grades=manifest.grades,
        targets=soft_targets(manifest.grades, splits.groups, neighbours=recipe.neighbours),
        sources=np.array([names.index(source) for source in manifest.sources]),
        train=part.train,
        validation=part.validation,
        fingerprint=manifest.fingerprint,
    )


def _marked(manifest: Manifest, plan: TrainConfig, part: _Part) -> Lesions | None:
    """The photographs with marked lesions that show no eye which this part's network must not see."""
    if plan.lesions is None:
        return None
    unseen = np.setdiff1d(np.arange(len(manifest)), part.train)
    annotated = not_of_an_eye_in([manifest.entries[index].path for index in unseen], list(read_annotated(plan.lesions)))
    return prepare_lesions(annotated, size=plan.recipe.size) if annotated else None


def _teaching(train: Callable[[str, TrainingData, Recipe], Network], photos: Pixels, fabric: Fabric) -> Teach:
    """Training as `tempered` asks for it."""

    def teach(name: str, lesson: TrainingData, recipe: Recipe) -> Callable[[Integers], Floats]:
        network = train(name, lesson, recipe)
        return lambda indices: predict(network, photos, indices, fabric=fabric)

    return teach


def _correct_prior(network: nn.Module, lesson: TrainingData, *, fabric: Fabric) -> None:
    """Undo, in the head's bias, what drawing rare grades more often did to the logits."""
    logits = predict(network, lesson.photos, lesson.validation, fabric=fabric)
    shift = fit_prior(logits, lesson.grades[lesson.validation])
    with torch.no_grad():
        network.get_parameter("classify.bias").add_(torch.from_numpy(shift))


def _judge(network: Network, photos: Pixels, plan: TrainConfig, part: _Part, *, annotated: tuple[str, ...]) -> _Judged:
    """Answers of one network where it trained on nothing; with folds, its fold calibrates too."""
    model = to_onnx(network, size=plan.recipe.size, mirror=plan.mirror)
    test = answer(model, photos, part.test)
    calibrate, known = (part.test, test) if plan.folds else (part.validation, answer(model, photos, part.validation))
    evidence = Evidence(
        train=part.train, annotated=annotated, calibrate=calibrate, calibration=known, test=part.test, tested=test
    )
    return _Judged(network, model, evidence, known.features)


def _together(judged: Sequence[_Judged], photos: Pixels, plan: TrainConfig) -> _Judged:
    """The networks of all folds as one, with what each answered on its own fold."""
    network = Ensemble([one.network for one in judged], origin=judged[0].network.origin)
    model = to_onnx(network, size=plan.recipe.size, mirror=plan.mirror)
    each = [one.evidence for one in judged]
    evidence = Evidence(
        train=np.unique(np.concatenate([one.train for one in each])),
        annotated=tuple(sorted({digest for one in each for digest in one.annotated})),
        calibrate=np.concatenate([one.calibrate for one in each]),
        calibration=joined([one.calibration for one in each]),
        test=np.concatenate([one.test for one in each]),
        tested=joined([one.tested for one in each]),
    )
    return _Judged(network, model, evidence, answer(model, photos, evidence.calibrate).features)
