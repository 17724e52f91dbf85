"""From a manifest to a bundle: split, prepare, train, calibrate, export, evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from retigrade.arrays import Floats, Integers, Pixels, Reals
from retigrade.bundle import Bundle, read_metadata, reseal
from retigrade.data.annotations import AnnotatedPhoto
from retigrade.data.cache import prepared
from retigrade.data.manifest import Manifest
from retigrade.data.splits import TEST, VALIDATION, Splits
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import LabelledSet, Predictions, predict_labelled
from retigrade.evaluation.result import OUT_OF_FOLD, EvaluationResult
from retigrade.files import write_whole
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.metadata import Metadata
from retigrade.metrics.decision import softmax
from retigrade.metrics.fitting import fit_prior, fit_temperature
from retigrade.training.calibrate import equal_sources
from retigrade.training.config import TrainConfig
from retigrade.training.copy_paste import LesionBank
from retigrade.training.dataset import Fold, TrainingData
from retigrade.training.describe import Evidence, Origin, make_metadata, make_training
from retigrade.training.distillation import (
    cross_fitted_targets,
    distilled_targets,
    mean_logits,
    mean_prediction,
    teacher_shares,
)
from retigrade.training.export import receptive_field_offset, run_model, to_onnx
from retigrade.training.folds import FoldPredictions, everything, folds_of, split_of
from retigrade.training.lesion_maps import kept_lesion_maps
from retigrade.training.lesion_supervision import annotated_apart, prepare_lesions, supervise_lesions
from retigrade.training.loop import Pick, fit, predict, starting_network
from retigrade.training.network import Ensemble, Network
from retigrade.training.out_of_distribution import drawn_eyes, fit_out_of_distribution, passing
from retigrade.training.progress import Progress
from retigrade.training.recipe import Recipe

BUNDLE, SPLITS, WEIGHTS, EVALUATION = "bundle.onnx", "splits.json", "network.safetensors", "evaluation.json"
_OFFSET_PHOTOS = 16  # enough for the gradient's centre to settle
_ENOUGH = 2048  # photographs that say what a fold's features look like
_APART = 3  # every n-th photograph sets the detector's limit where none is left that was not learned from


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainedBundle:
    """A finished training: the bundle's file and metadata, its evaluation, and what each fold's network predicted."""

    path: Path
    metadata: Metadata
    splits: Splits
    predictions: Predictions
    result: EvaluationResult
    folds: tuple[FoldPredictions, ...]


def bundle_of_weights(
    manifest: Manifest, config: TrainConfig, *, folder: Path, fabric: Fabric, progress: Progress, taught: bool = False
) -> TrainedBundle:
    """Make a bundle of the weights that the config starts from, as they are: what follows a training, without one.

    taught: the map knows the annotated photographs already; they are noted and not learned from again.
    """
    network = starting_network(config.recipe, config.start)
    run = _Run(manifest, config, folder=folder, fabric=fabric, progress=progress)
    (fold,) = folds_of(manifest, run.splits, config)
    network = network.to(fabric.device).to(memory_format=torch.channels_last).eval()
    fitted = run.finish(network, run.training_data(fold), fold, trained="weights as they were", taught=taught)
    return run.write_bundle([run.export(fitted)])


def train_manifest(
    manifest: Manifest,
    config: TrainConfig,
    *,
    folder: Path,
    fabric: Fabric,
    progress: Progress,
    predicted: Reals | None = None,
) -> TrainedBundle | None:
    """Train as configured on the photographs of a manifest; what `folder` holds already is continued.

    predicted: what the runs of `config.distill` say of the photographs, float (N, 5) above 0, rows sum to 1. Returns
    None in all processes but the first.
    """
    run = _Run(manifest, config, folder=folder, fabric=fabric, progress=progress, predicted=predicted)
    folds = list(folds_of(manifest, run.splits, config))
    fitted = [run.fit(fold) for fold in folds]
    refit = run.fit(everything(manifest)) if config.refit else None
    trained = run.write_bundles(fitted, refit) if fabric.is_global_zero else None
    fabric.barrier()
    return trained


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A trained network, its map taught; annotated: SHA-256 of the photographs that taught it."""

    network: Network
    fold: Fold
    annotated: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Exported:
    """A trained network as ONNX, what it answers where it did not train, and its calibration photographs' features.

    calibration_features: None of a network that learned from all photographs.
    """

    name: str
    network: Network | Ensemble
    model: bytes
    evidence: Evidence
    calibration_features: Floats | None


class _Run:
    """One call of `train_manifest`: the photographs, how to train on them, and where to."""

    def __init__(
        self,
        manifest: Manifest,
        config: TrainConfig,
        *,
        folder: Path,
        fabric: Fabric,
        progress: Progress,
        predicted: Reals | None = None,
    ) -> None:
        """With the split and the prepared photographs that `folder` holds, or that are made there."""
        with fabric.rank_zero_first():  # of several processes one writes and the others read
            self.splits = split_of(manifest, config, folder / SPLITS)
            self.photos = prepared(manifest, size=config.recipe.size, folder=folder)
        self.manifest, self.config = manifest, config
        self.folder, self.fabric, self.progress = folder, fabric, progress
        self._predicted, self._annotated = predicted, cache(self._read_annotated)
        self._distill_logits: Floats | None = None  # alike for all folds

    def fit(self, fold: Fold) -> _Fitted:
        """Train the network of one fold."""
        config, recipe, folder = self.config, self.config.recipe, self.folder / fold.name
        data = replace(self.training_data(fold), lesions=self._lesions(fold), lesion_maps=self._lesion_maps(fold))
        if recipe.teachers:
            shares = teacher_shares(
                self.manifest, self.splits, fold.train, teachers=recipe.teachers, seed=config.start.seed
            )

            def teach(name: str, apart: TrainingData, shorter: Recipe, unseen: Integers) -> Floats:
                network = self._fit(apart, shorter, folder / name)
                return predict(network, self.photos, unseen, fabric=self.fabric)

            data = cross_fitted_targets(data, recipe, shares=shares, teach=teach)
        self._note_known(fold)
        if config.distill:
            data = self._distilled(data, fold)
        network = self._fit(data, recipe, folder)
        return self.finish(network, data, fold, trained=f"recipe {recipe.name}, {recipe.epochs} epochs")

    def finish(
        self, network: Network, data: TrainingData, fold: Fold, *, trained: str, taught: bool = False
    ) -> _Fitted:
        """Teach a trained network's map, if it was not, and save its weights; `trained` says how it came about."""
        if not self.fabric.is_global_zero:
            return _Fitted(network, fold, ())
        annotated = self._annotated(fold)
        if annotated and not taught:
            lesions = prepare_lesions(annotated, size=self.config.recipe.size)
            supervise_lesions(network, data, lesions, seed=self.config.start.seed, device=self.fabric.device)
        network.save(self.folder / fold.name / WEIGHTS, trained=trained)
        return _Fitted(network, fold, tuple(item.photo.sha256 for item in annotated))

    def write_bundles(self, fitted: Sequence[_Fitted], refit: _Fitted | None) -> TrainedBundle:
        """Export the networks and write their bundle: of the refit one, if there is one, else of them together."""
        if refit is None:
            return self.write_bundle([self.export(each) for each in fitted])
        logits = [predict(each.network, self.photos, each.fold.test, fabric=self.fabric) for each in fitted]
        shift = self._prior(np.concatenate(logits), np.concatenate([each.fold.test for each in fitted]))
        exported = [self.export(each, shift=shift) for each in fitted]
        refit.network.add_to_head(torch.from_numpy(shift))
        model = to_onnx(refit.network, size=self.config.recipe.size, mirror=self.config.mirror)
        evidence = replace(
            Evidence.together([each.evidence for each in exported]), train=refit.fold.train, annotated=refit.annotated
        )
        return self.write_bundle(exported, refit=_Exported("", refit.network, model, evidence, None))

    def export(self, fitted: _Fitted, *, shift: Reals | None = None) -> _Exported:
        """Export a network and ask it about photographs that it did not learn from.

        shift: what undoes class balancing, if not fitted on the fold's validation photographs.
        """
        config, fold, network = self.config, fitted.fold, fitted.network
        if shift is None:
            shift = self._prior(predict(network, self.photos, fold.validation, fabric=self.fabric), fold.validation)
        network.add_to_head(torch.from_numpy(shift))
        model = to_onnx(network, size=config.recipe.size, mirror=config.mirror)
        # With folds, the fold that tests calibrates too: the ensemble's own answers to it are those of this network.
        calibrate = fold.test if config.cross_validated else fold.validation
        calibration = run_model(model, self.photos, calibrate)
        evidence = Evidence(
            train=fold.train, annotated=fitted.annotated, calibrate=calibrate, calibration=calibration, test=fold.test
        )
        return _Exported(fold.name, network, model, evidence, calibration.features)

    def write_bundle(self, exported: Sequence[_Exported], *, refit: _Exported | None = None) -> TrainedBundle:
        """Write the network, the networks of all folds as one, or the refit one, with calibration and evaluation."""
        whole = refit or (exported[0] if len(exported) == 1 else self._ensemble(exported))
        metadata = self._metadata(whole)
        self.progress.note(f"evaluating on {len(whole.evidence.test)} test photographs")
        grader = Grader(Bundle.from_bytes(reseal(whole.model, metadata)))
        if len(exported) == 1:
            labelled = LabelledSet.of(self.manifest, self.splits, part=TEST)
            predictions = predict_labelled(grader, labelled)
        else:
            predictions = self._out_of_fold(exported, metadata)
        result = measure(
            predictions,
            grader,
            manifest=self.manifest,
            part=TEST if len(exported) == 1 else OUT_OF_FOLD,
            out_of_fold=len(exported) > 1,
        )
        metadata = metadata.model_copy(update={"figures": result.stored_figures()})
        bundle = reseal(whole.model, metadata)
        result = result.model_copy(update={"bundle": Bundle.from_bytes(bundle).identity})  # its figures are part of it
        write_whole(self.folder / EVALUATION, (result.model_dump_json(indent=1) + "\n").encode())
        write_whole(self.folder / BUNDLE, bundle)
        return TrainedBundle(
            path=self.folder / BUNDLE,
            metadata=metadata,
            splits=self.splits,
            predictions=predictions,
            result=result,
            folds=tuple(self._fold_predictions(exported, metadata)),
        )

    def _fold_predictions(self, exported: Sequence[_Exported], metadata: Metadata) -> Iterator[FoldPredictions]:
        for each in exported:
            evidence = each.evidence
            unseen = {TEST: evidence.test, VALIDATION: evidence.calibrate}
            if len(exported) > 1:  # there the fold that tests calibrates too
                del unseen[VALIDATION]
            for part, indices in unseen.items():
                known = indices is evidence.calibrate or len(exported) > 1
                outputs = evidence.calibration if known else run_model(each.model, self.photos, indices)
                yield FoldPredictions(
                    fold=each.name,
                    part=part,
                    learned_from=len(evidence.train),
                    indices=indices,
                    probabilities=softmax(outputs.logits, temperature=metadata.temperature),
                )

    def training_data(self, fold: Fold) -> TrainingData:
        smoothing = self.config.recipe.label_smoothing
        return TrainingData.of(self.manifest, self.photos, fold, self.splits.groups, label_smoothing=smoothing)

    def _fit(self, data: TrainingData, recipe: Recipe, folder: Path) -> Network:
        self.progress.begin(folder.relative_to(self.folder).as_posix().removeprefix("."), epochs=recipe.epochs)
        pick: Pick = "last" if recipe.ema_decay else "best"
        return fit(
            data, recipe, self.config.start, fabric=self.fabric, folder=folder, progress=self.progress, pick=pick
        ).network

    def _note_known(self, fold: Fold) -> None:
        """Say which given bundles learned from photographs that validate or test."""
        unseen = [self.manifest.entries[index].sha256 for index in np.concatenate([fold.validation, fold.test])]
        for path in self.config.given_bundles:
            training = read_metadata(path.read_bytes()).training
            if known := sum(map(training.has_seen, unseen)):
                self.progress.note(
                    f"{path.name} learned from {known} of the {len(unseen)} photographs that validate or test: figures "
                    "on them flatter what learns from it; --splits keeps to the split that it was trained by"
                )

    def _distilled(self, data: TrainingData, fold: Fold) -> TrainingData:
        """The training data with targets that are in part the mean prediction of calibrated bundles and runs."""
        bundles, calibrate = self.config.distilled_bundles, fold.validation
        predictions = [] if self._predicted is None else [(self._predicted, len(self.config.distilled_runs))]
        if bundles:
            if self._distill_logits is None:
                self._distill_logits = mean_logits([Bundle.load(path) for path in bundles], self.photos)
            logits = self._distill_logits
            temperature = float(np.mean([read_metadata(path.read_bytes()).temperature for path in bundles]))
            if len(calibrate):  # a network of all photographs has none
                weights = equal_sources(self.manifest.sources[calibrate])
                temperature = fit_temperature(logits[calibrate], data.grades[calibrate], weights=weights)
            predictions.append((softmax(logits, temperature=temperature), len(bundles)))
        return distilled_targets(data, self.config.recipe, mean_prediction(predictions))

    def _read_annotated(self, fold: Fold) -> list[AnnotatedPhoto]:
        """The annotated photographs of no eye that this fold must not see."""
        if self.config.lesions is None:
            return []
        return annotated_apart(self.manifest, fold.train, self.config.lesions)

    def _lesions(self, fold: Fold) -> LesionBank | None:
        grades, size = self.config.recipe.augmentation.pasted_grades, self.config.recipe.size
        return LesionBank.of(self._annotated(fold), grades, size=size) if grades else None

    def _lesion_maps(self, fold: Fold) -> Pixels | None:
        """Where lesions are on the photographs that train; of several processes the first finds out."""
        if not self.config.recipe.lesions:
            return None
        self.progress.note(f"segmentation networks show where lesions are on {len(fold.train)} photographs")
        with self.fabric.rank_zero_first():
            folder, annotated = self.folder / fold.name, self._annotated(fold)
            return kept_lesion_maps(
                self.manifest, self.splits, fold, annotated, self.config, folder=folder, fabric=self.fabric
            )

    def _prior(self, logits: Floats, indices: Integers) -> Reals:
        """What undoes, in the logits, that rare grades were drawn more often than they come: float64 (5,)."""
        weights = equal_sources(self.manifest.sources[indices])
        return fit_prior(logits, self.manifest.grades[indices], weights=weights)

    def _ensemble(self, exported: Sequence[_Exported]) -> _Exported:
        """The networks of all folds as one, with what each answered on its own fold."""
        network = Ensemble([each.network for each in exported], origin=exported[0].network.origin)
        model = to_onnx(network, size=self.config.recipe.size, mirror=self.config.mirror)
        whole = Evidence.together([each.evidence for each in exported])
        return _Exported("", network, model, whole, run_model(model, self.photos, whole.calibrate).features)

    def _metadata(self, whole: _Exported) -> Metadata:
        evidence = whole.evidence
        across, down = receptive_field_offset(whole.network, self.photos[evidence.calibrate[:_OFFSET_PHOTOS]])
        features, others = run_model(whole.model, self.photos, evidence.train).features, whole.calibration_features
        if others is None:
            apart = np.arange(len(features)) % _APART == 0
            features, others = features[~apart], features[apart]
        drawn = np.stack(list(drawn_eyes(self.config.recipe.size)))
        return make_metadata(
            evidence,
            self._origin(whole),
            detector=passing(
                fit_out_of_distribution(features, others), run_model(whole.model, drawn, np.arange(len(drawn))).features
            ),
            receptive_field_offset=(0.5 if self.config.mirror else across, down),
            manifest=self.manifest,
            duplicates=self.splits.groups,
            split_file=(self.folder / SPLITS).read_bytes(),
        )

    def _origin(self, exported: _Exported) -> Origin:
        config = self.config
        return Origin(
            name=config.name,
            backbone=config.start.backbone,
            starting_weights=exported.network.origin,
            licence=config.license,
            intended_use=config.intended_use,
            recipe=config.recipe,
            folds=len(self.splits.names) if config.cross_validated else 0,
            leave_source_out=config.leave_source_out,
            refit=config.refit,
        )

    def _out_of_fold(self, exported: Sequence[_Exported], metadata: Metadata) -> Predictions:
        """Every photograph graded by the one network that never saw it, calibrated as the bundle is.

        Each of these networks is written as a bundle of its own, so that anybody can ask it.
        """
        everything = LabelledSet.of(self.manifest, self.splits)
        gradings: dict[int, Grading] = {}
        for each in exported:
            bundle = reseal(each.model, self._of_fold(each, metadata))
            write_whole(self.folder / each.name / BUNDLE, bundle)
            grader = Grader(Bundle.from_bytes(bundle))
            paths = [self.manifest.paths[index] for index in each.evidence.test]
            gradings |= dict(zip(each.evidence.test.tolist(), grader.grade_many(paths, heat=False), strict=True))
        return Predictions(everything, tuple(gradings[index] for index in range(len(self.manifest))))

    def _of_fold(self, exported: _Exported, metadata: Metadata) -> Metadata:
        """The metadata of one fold's network, calibrated as the bundle is."""
        if exported.calibration_features is None:
            raise ValueError("a fold's network has photographs that it did not learn from")
        some = exported.evidence.train[:: max(1, len(exported.evidence.train) // _ENOUGH)]
        features = run_model(exported.model, self.photos, some).features
        origin, split_file = self._origin(exported), (self.folder / SPLITS).read_bytes()
        own = {
            "name": f"{metadata.name}-{exported.name}",
            "out_of_distribution": fit_out_of_distribution(features, exported.calibration_features),
            "training": make_training(self.manifest, exported.evidence, origin, split_file=split_file),
        }
        return metadata.model_copy(update=own)
