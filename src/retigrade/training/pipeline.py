"""From a labelled folder to a bundle: split, prepare, train, calibrate, export, evaluate."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.bundle import Bundle, reseal
from retigrade.data.annotations import find_annotated, read_annotated
from retigrade.data.cache import prepared
from retigrade.data.duplicates import find_duplicates
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import TEST, TRAIN, VALIDATION, Splits, k_fold, read_splits, three_way, within, write_splits
from retigrade.errors import UsageError
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import LabelledSet, Predictions, predict_labelled
from retigrade.files import write_whole
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.metadata import Metadata
from retigrade.metrics.fitting import fit_prior
from retigrade.training.backbone import suited
from retigrade.training.calibrate import equal_sources
from retigrade.training.checkpoint import CHECKPOINT
from retigrade.training.dataset import Fold, TrainingData, soft_targets
from retigrade.training.describe import UNSTATED, Evidence, Origin, make_metadata
from retigrade.training.device import open_fabric
from retigrade.training.distillation import cross_fitted_targets, teacher_shares
from retigrade.training.export import concatenated, receptive_field_offset, run_model, to_onnx
from retigrade.training.lesion_supervision import prepare_lesions, supervise_lesions, without_eyes_of
from retigrade.training.loop import Pick, Start, fit, predict
from retigrade.training.network import Ensemble, Network
from retigrade.training.out_of_distribution import fit_out_of_distribution
from retigrade.training.progress import Progress
from retigrade.training.recipe import RECIPES, Recipe

VALIDATION_SHARE = TEST_SHARE = 0.1
BUNDLE, SPLITS, WEIGHTS, EVALUATION = "bundle.onnx", "splits.json", "network.safetensors", "evaluation.json"
_OFFSET_PHOTOS = 16  # enough for the gradient's centre to settle


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train; raises UsageError where options do not go together.

    folds: 0 trains one network on one split; K trains K networks, each tested on its own fold. lesions: a folder of
    annotated photographs for lesion supervision. mirror: the bundle looks at the mirror image too.
    """

    recipe: Recipe
    start: Start
    folds: int = 0
    lesions: Path | None = None
    mirror: bool = False
    name: str
    license: str = UNSTATED
    intended_use: str = UNSTATED

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"--folds must be 0 or at least 2, got {self.folds}")
        if self.lesions is not None:
            find_annotated(self.lesions)  # a wrong folder must not wait for the training
            if not self.recipe.high_resolution:
                raise UsageError("--lesions needs a high-resolution head, which this recipe or backbone has not")


def train(
    data: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    recipe: str | Recipe = "best",
    backbone: str = "mobilenetv2_100",
    weights: Path | None = None,
    random_start: bool = False,
    folds: int = 0,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    lesions: Path | None = None,
    mirror: bool = False,
    name: str | None = None,
    license: str = UNSTATED,
    intended_use: str = UNSTATED,
    seed: int = 1,
    resume: bool = False,
    skip_unreadable: bool = False,
    accelerator: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train on labelled photographs and write a bundle; returns its path, `out/bundle.onnx`.

    data: labelled folders or CSV files. out: keeps the bundle, its evaluation, the split, the prepared photographs, the
    log and the checkpoints. recipe: `best`, `robust`, `brief`, `paper`, or one of your own; epochs, batch, lr: in place
    of the recipe's. backbone: a network of timm. weights: a safetensors file to start from, in place of timm's ImageNet
    weights; random_start: start from random weights. folds, lesions, mirror: see `TrainConfig`. name, license,
    intended_use: what the bundle says of itself. resume: go on with the run in `out`. skip_unreadable: leave unusable
    photographs out. accelerator: `auto`, `cpu` or `gpu`. progress: is told how it goes.

    Raises UsageError for wrong options, a folder that cannot be written, or a training whose loss is not a number;
    DataError where the photographs cannot be used.
    """
    progress, folder = progress or Progress(), Path(out)
    if folder.exists() and any(folder.glob(f"**/{CHECKPOINT}")) and not resume:
        raise UsageError(f"{folder} holds a training already: go on with --resume, or name another --out")
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise UsageError(f"there is no recipe {recipe!r}; there are {', '.join(RECIPES)}")
    chosen = RECIPES[recipe] if isinstance(recipe, str) else recipe
    chosen = replace(
        chosen,
        epochs=chosen.epochs if epochs is None else epochs,
        batch=chosen.batch if batch is None else batch,
        lr=chosen.lr if lr is None else lr,
    )
    chosen, sentences = suited(chosen, backbone)
    config = TrainConfig(
        recipe=chosen,
        start=Start(backbone=backbone, weights=weights, pretrained=not random_start, seed=seed),
        folds=folds,
        lesions=lesions,
        mirror=mirror,
        name=name or f"retigrade-{backbone}".lower(),
        license=license,
        intended_use=intended_use,
    )
    folders = [Path(data)] if isinstance(data, Path | str) else [Path(each) for each in data]
    manifest = read_manifest(folders, size=chosen.size, skip_unreadable=skip_unreadable)
    fabric = open_fabric(accelerator=accelerator)
    if not fabric.is_global_zero:  # of several processes one tells
        progress = Progress()
    for sentence in (*sentences, *manifest.notes, *(f"left out {photograph}" for photograph in manifest.left_out)):
        progress.note(sentence)
    bundle = train_manifest(manifest, config, folder=folder, fabric=fabric, progress=progress)
    progress.note(f"bundle: {bundle}; retigrade info {bundle} says what it reached")
    return bundle


def train_manifest(
    manifest: Manifest, config: TrainConfig, *, folder: Path, fabric: Fabric, progress: Progress
) -> Path:
    """Train as configured on the photographs of a manifest; what `folder` holds already is continued."""
    with fabric.rank_zero_first():  # of several processes one writes and the others read
        splits = _splits(manifest, config, folder / SPLITS)
        photos = prepared(manifest, size=config.recipe.size, folder=folder)
    run = _Run(manifest, splits, photos, config, folder=folder, fabric=fabric, progress=progress)
    exported = [run.fold(fold) for fold in _folds(manifest, splits, config)]
    if fabric.is_global_zero:
        run.write_bundle([each for each in exported if each is not None])
    fabric.barrier()
    return folder / BUNDLE


@dataclass(frozen=True, slots=True, eq=False)
class _Exported:
    """A trained network as ONNX, what it answers where it did not train, and its calibration photographs' features."""

    network: Network | Ensemble
    model: bytes
    evidence: Evidence
    calibration_features: Floats


class _Run:
    """One call of `train_manifest`: the photographs, how to train on them, and where to."""

    def __init__(
        self,
        manifest: Manifest,
        splits: Splits,
        photos: Pixels,
        config: TrainConfig,
        *,
        folder: Path,
        fabric: Fabric,
        progress: Progress,
    ) -> None:
        self.manifest, self.splits, self.photos, self.config = manifest, splits, photos, config
        self.folder, self.fabric, self.progress = folder, fabric, progress

    def fold(self, fold: Fold) -> _Exported | None:
        """Train the network of one fold and export it; None in all processes but the first."""
        config, recipe, folder = self.config, self.config.recipe, self.folder / fold.name
        data = self._training_data(fold)
        if recipe.teachers:
            shares = teacher_shares(
                self.manifest, self.splits, fold.train, teachers=recipe.teachers, seed=config.start.seed
            )

            def teach(name: str, apart: TrainingData, shorter: Recipe, unseen: Integers) -> Floats:
                network = self._fit(apart, shorter, folder / name)
                return predict(network, self.photos, unseen, fabric=self.fabric)

            data = cross_fitted_targets(data, recipe, shares=shares, teach=teach)
        network = self._fit(data, recipe, folder)
        if not self.fabric.is_global_zero:
            return None
        annotated = self._supervise_lesions(network, data, fold)
        network.save(folder / WEIGHTS, trained=f"recipe {recipe.name}, {recipe.epochs} epochs")
        self._correct_prior(network, data)
        model = to_onnx(network, size=recipe.size, mirror=config.mirror)
        # With folds, the fold that tests calibrates too: the ensemble's own answers to it are those of this network.
        calibrate = fold.test if config.folds else fold.validation
        calibration = run_model(model, self.photos, calibrate)
        evidence = Evidence(
            train=fold.train, annotated=annotated, calibrate=calibrate, calibration=calibration, test=fold.test
        )
        return _Exported(network, model, evidence, calibration.features)

    def write_bundle(self, exported: Sequence[_Exported]) -> None:
        """Write the network, or the networks of all folds as one, with its calibration and its evaluation."""
        whole = exported[0] if len(exported) == 1 else self._ensemble(exported)
        metadata = self._metadata(whole)
        self.progress.note(f"evaluating on {len(whole.evidence.test)} test photographs")
        grader = _grader(whole.model, metadata)
        if len(exported) == 1:
            labelled = LabelledSet.of(self.manifest, self.splits, part=TEST)
            predictions = predict_labelled(grader, labelled)
        else:
            predictions = self._out_of_fold(exported, metadata)
        result = measure(
            predictions,
            grader,
            manifest=self.manifest,
            part=TEST if len(exported) == 1 else "out of fold",
            out_of_fold=len(exported) > 1,
        )
        write_whole(self.folder / EVALUATION, (result.model_dump_json(indent=1) + "\n").encode())
        metadata = metadata.model_copy(update={"figures": result.stored_figures()})
        write_whole(self.folder / BUNDLE, reseal(whole.model, metadata))

    def _training_data(self, fold: Fold) -> TrainingData:
        manifest, subsets = self.manifest, [entry.subset for entry in self.manifest.entries]
        return TrainingData(
            photos=self.photos,
            grades=manifest.grades,
            targets=soft_targets(
                manifest.grades, self.splits.groups, label_smoothing=self.config.recipe.label_smoothing
            ),
            subsets=np.unique(subsets, return_inverse=True)[1],
            rejected=np.array([entry.rejected for entry in manifest.entries]),
            train=fold.train,
            validation=fold.validation,
            fingerprint=manifest.fingerprint,
        )

    def _fit(self, data: TrainingData, recipe: Recipe, folder: Path) -> Network:
        self.progress.begin(folder.relative_to(self.folder).as_posix().removeprefix("."), epochs=recipe.epochs)
        pick: Pick = "last" if recipe.ema_decay else "best"
        return fit(
            data, recipe, self.config.start, fabric=self.fabric, folder=folder, progress=self.progress, pick=pick
        ).network

    def _supervise_lesions(self, network: Network, data: TrainingData, fold: Fold) -> tuple[str, ...]:
        """Lesion supervision by the annotated photographs of no eye that this fold must not see; their SHA-256."""
        if self.config.lesions is None:
            return ()
        unseen = np.setdiff1d(np.arange(len(self.manifest)), fold.train)
        annotated = without_eyes_of(
            [self.manifest.paths[index] for index in unseen], list(read_annotated(self.config.lesions))
        )
        if not annotated:
            return ()
        lesions = prepare_lesions(annotated, size=self.config.recipe.size)
        supervise_lesions(network, data, lesions, seed=self.config.start.seed, device=self.fabric.device)
        return lesions.digests

    def _correct_prior(self, network: Network, data: TrainingData) -> None:
        """Undo, in the head's bias, what drawing rare grades more often did to the logits."""
        logits = predict(network, data.photos, data.validation, fabric=self.fabric)
        weights = equal_sources(self.manifest.sources[data.validation])
        shift = fit_prior(logits, data.grades[data.validation], weights=weights)
        with torch.no_grad():
            network.get_parameter("classify.bias").add_(torch.from_numpy(shift).to(self.fabric.device))

    def _ensemble(self, exported: Sequence[_Exported]) -> _Exported:
        """The networks of all folds as one, with what each answered on its own fold."""
        network = Ensemble([each.network for each in exported], origin=exported[0].network.origin)
        model = to_onnx(network, size=self.config.recipe.size, mirror=self.config.mirror)
        evidence = [each.evidence for each in exported]
        whole = Evidence(
            train=np.unique(np.concatenate([each.train for each in evidence])),
            annotated=tuple(sorted({digest for each in evidence for digest in each.annotated})),
            calibrate=np.concatenate([each.calibrate for each in evidence]),
            calibration=concatenated([each.calibration for each in evidence]),
            test=np.concatenate([each.test for each in evidence]),
        )
        return _Exported(network, model, whole, run_model(model, self.photos, whole.calibrate).features)

    def _metadata(self, whole: _Exported) -> Metadata:
        config, evidence = self.config, whole.evidence
        across, down = receptive_field_offset(whole.network, self.photos[evidence.calibrate[:_OFFSET_PHOTOS]])
        return make_metadata(
            evidence,
            Origin(
                name=config.name,
                backbone=config.start.backbone,
                starting_weights=whole.network.origin,
                licence=config.license,
                intended_use=config.intended_use,
                recipe=config.recipe,
                folds=config.folds,
            ),
            features=run_model(whole.model, self.photos, evidence.train).features,
            calibration_features=whole.calibration_features,
            receptive_field_offset=(0.5 if config.mirror else across, down),
            manifest=self.manifest,
            split_file=(self.folder / SPLITS).read_bytes(),
        )

    def _out_of_fold(self, exported: Sequence[_Exported], metadata: Metadata) -> Predictions:
        """Every photograph graded by the one network that never saw it, calibrated as the ensemble is."""
        everything = LabelledSet.of(self.manifest, self.splits)
        gradings: dict[int, Grading] = {}
        for each in exported:
            features = run_model(each.model, self.photos, each.evidence.train).features
            detector = fit_out_of_distribution(features, each.calibration_features)
            grader = _grader(each.model, metadata.model_copy(update={"out_of_distribution": detector}))
            paths = [self.manifest.paths[index] for index in each.evidence.test]
            gradings |= dict(zip(each.evidence.test.tolist(), grader.grade_many(paths, heat=False), strict=True))
        return Predictions(everything, tuple(gradings[index] for index in range(len(self.manifest))))


def _grader(model: bytes, metadata: Metadata) -> Grader:
    """A grader of a bundle that is not written yet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, BUNDLE)
        path.write_bytes(reseal(model, metadata))
        return Grader(Bundle.load(path))


def _folds(manifest: Manifest, splits: Splits, config: TrainConfig) -> Iterator[Fold]:
    if config.folds == 0:
        yield Fold(name="", train=splits.part(TRAIN), validation=splits.part(VALIDATION), test=splits.part(TEST))
    for name in splits.names if config.folds else ():
        # Each fold is tested on by a network that neither trained nor stopped by it.
        shares = {TRAIN: 1 - VALIDATION_SHARE, VALIDATION: VALIDATION_SHARE}
        inner = within(manifest, splits, splits.rest(name), shares=shares, seed=config.start.seed)
        yield Fold(name=name, train=inner[TRAIN], validation=inner[VALIDATION], test=splits.part(name))


def _splits(manifest: Manifest, config: TrainConfig, path: Path) -> Splits:
    if path.exists():
        return read_splits(path, manifest)
    groups, seed = find_duplicates(manifest.paths), config.start.seed
    if config.folds:
        splits = k_fold(manifest, groups, folds=config.folds, seed=seed)
    else:
        splits = three_way(manifest, groups, validation=VALIDATION_SHARE, test=TEST_SHARE, seed=seed)
    write_splits(splits, path, manifest)
    return splits
