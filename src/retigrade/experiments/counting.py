"""Make a bundle that counts lesions: a network beside finders that look for them at twice its size.

    python -m retigrade.experiments.counting --bundle FILE --weights FILE --finders FILE... --maps FILE \
        --predictions DIR --data DATA... --splits FILE --out FILE

How much evidence the counts are is found by multinomial logistic regression beside what cross-validated
networks say of photographs that they did not learn from, whose lesions were seen by finders that did not
either. It is asked of photographs that are larger than what the network sees, for others show nothing more at twice the
size; and how much fine detail tells them apart is found, too, by which the bundle trusts counts. The network's own
answers already know something of lesions, so a share of that evidence is added to them. The whole is calibrated on the
split's part `validation`; the rest of the metadata is the network's bundle's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retigrade.arrays import Flags, Floats, Reals
from retigrade.bundle import Bundle, reseal
from retigrade.data.cache import canonical
from retigrade.data.splits import VALIDATION, check_unseen
from retigrade.errors import UsageError
from retigrade.experiments.head import fit_head
from retigrade.experiments.lesion_sample import LesionSample
from retigrade.files import write_whole
from retigrade.metrics.fitting import fit_prior
from retigrade.training.averaging import compared
from retigrade.training.calibrate import equal_sources
from retigrade.training.cells import Detail, cells_of
from retigrade.training.counting import ENLARGED, CountingNetwork
from retigrade.training.describe import calibration
from retigrade.training.export import ModelOutputs, run_model, to_half, to_onnx
from retigrade.training.finder import ARCHITECTURE, Finder
from retigrade.training.network import Network
from retigrade.training.segmentation import SegmentationNetwork
from retigrade.training.weights import StartingWeights

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the evidence of counts, that are compared on validation."""
_ENOUGH = 500  # photographs of each kind that say how much fine detail there is
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """The network, the finders, what their evidence is fitted to, and where the bundle goes."""

    bundle: Path
    """Of the network, as it ships."""
    weights: Path
    """The same network's network.safetensors, before its bias was shifted."""
    finders: tuple[Path, ...]
    """What `retigrade.experiments.finder` taught, or segmentation networks."""
    maps: Path
    """The lesion maps that were made with them, of the same photographs and split."""
    predictions: Path
    """The folder of a cross-validated run."""
    data: tuple[Path, ...]
    splits: Path
    out: Path
    kinds: tuple[str, ...] = ("microaneurysm",)
    """Of lesions, that are counted."""
    share: float = 1.0
    """Of the evidence, that is added; others are only compared."""
    pull: float = 0.001
    """How strongly the evidence is held to none."""
    name: str = "retigrade-mobilenetv2"


def evidence_of_counts(logits: Floats, counts: Floats, targets: Floats, *, weights: Reals, pull: float) -> Reals:
    """How much evidence counts are beside logits: float64 (5, C + 1), the offset last.

    logits: float32 (n, 5), of networks that did not learn from the photographs. counts: float32 (n, C). targets:
    float32 (n, 5), rows sum to 1. weights: (n,), how much each photograph counts.
    """
    mean, spread = counts.mean(axis=0), np.maximum(counts.std(axis=0), 1e-3)
    scaled = np.asarray((counts - mean) / spread, np.float32)
    change = fit_head(logits, scaled, targets, weights=weights, pull=pull)
    slope = change[:, :-1] / spread
    return np.concatenate([slope, (change[:, -1] - slope @ mean)[:, None]], axis=1)


def worth_of_counts(
    sample: LesionSample, predictions: Sequence[Path], asked: Flags, *, kinds: Sequence[str], pull: float
) -> Reals:
    """`evidence_of_counts` of some of the photographs, bool (n,)."""
    return evidence_of_counts(
        sample.logits(predictions)[asked],
        sample.counts(kinds)[asked],
        sample.targets[asked],
        weights=sample.weights[asked],
        pull=pull,
    )


def main(arguments: Counting) -> None:
    """Fit, compare on validation, calibrate, and write the bundle."""
    if not arguments.share > 0:
        raise UsageError(
            f"--share must be above 0, got {arguments.share:g}: without counts it is the bundle that is there"
        )
    bundle = Bundle.load(arguments.bundle)
    metadata = bundle.metadata
    size = ENLARGED * metadata.input_size
    sample = LesionSample.read(arguments.data, arguments.splits, arguments.maps)
    manifest, splits = sample.manifest, sample.splits
    validation = splits.part(VALIDATION)
    check_unseen(manifest, splits, [VALIDATION], metadata.training)
    large = sample.larger_than(metadata.input_size)
    worth = worth_of_counts(sample, [arguments.predictions], large, kinds=arguments.kinds, pull=arguments.pull)
    detail = _fit_detail(sample, ~large, size=size)
    network = Network(
        metadata.backbone, high_resolution=True, weights=arguments.weights, size=metadata.input_size
    ).eval()
    finders = [_read_finder(path, metadata.backbone) for path in arguments.finders]
    offset = metadata.receptive_field_offset
    counting = CountingNetwork(network, finders, kinds=arguments.kinds, receptive_field_offset=offset).eval()
    photos = np.stack([canonical(manifest.entries[index], size=size) for index in validation])
    grades, equal = manifest.grades[validation], equal_sources(manifest.sources[validation])
    without = run_model(_exported(counting, size=size), photos, np.arange(len(photos)), batch=1)
    counting.weigh(arguments.share * worth, detail)
    chosen = run_model(_exported(counting, size=size), photos, np.arange(len(photos)), batch=1)
    for share in SHARES:
        logits = without.logits + share / arguments.share * (chosen.logits - without.logits)
        _log.info("%g of the evidence, on validation: %s", share, ", ".join(compared(logits, grades, equal)))
    shift = np.asarray(fit_prior(chosen.logits, grades, weights=equal), np.float32)
    network.add_to_head(torch.from_numpy(shift))
    shifted = ModelOutputs(chosen.logits + shift, chosen.maps + shift[:, None, None], chosen.features)
    own = {
        "name": arguments.name,
        "input_size": size,
        "receptive_field_offset": (0.5, 0.5),
        "figures": (),
        "starting_weights": f"{bundle.identity} and {_numbered(finders)}; the former from {metadata.starting_weights}",
        **calibration(shifted, manifest, validation, duplicates=splits.groups),
    }
    sealed = reseal(_exported(counting, size=size), metadata.model_copy(update=own))
    Bundle.from_bytes(sealed)
    write_whole(arguments.out, sealed)
    _log.info("bundle: %s, %.1f MB", arguments.out, len(sealed) / 1e6)


def _fit_detail(sample: LesionSample, enlarged: Flags, *, size: int) -> Detail | None:
    """From some photographs of each kind; None where none is enlarged."""
    if not enlarged.any():
        return None
    rng = np.random.default_rng(1)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(kind))[:_ENOUGH] for kind in (enlarged, ~enlarged)])
    with torch.inference_mode():
        measured = [float(cells_of(_photo(sample, number, size=size)).fine_detail[0]) for number in chosen]
    detail = Detail.fit(np.array(measured), enlarged[chosen])
    _log.info("a photograph is as likely enlarged as not at %.2f of fine detail", detail.middle)
    return detail


def _photo(sample: LesionSample, number: int, *, size: int) -> Tensor:
    pixels = canonical(sample.manifest.entries[sample.train[number]], size=size)
    return torch.from_numpy(pixels[None]).permute(0, 3, 1, 2).float()


def _exported(counting: CountingNetwork, *, size: int) -> bytes:
    return to_half(to_onnx(counting, size=size))


def _read_finder(path: Path, backbone: str) -> Finder | SegmentationNetwork:
    if StartingWeights.open(path).notes.get("architecture") == ARCHITECTURE:
        return Finder.read(path)
    return SegmentationNetwork.read(path, backbone=backbone)


def _numbered(finders: Sequence[Finder | SegmentationNetwork]) -> str:
    what = "finder" if isinstance(finders[0], Finder) else "segmentation network"
    return f"a {what}" if len(finders) == 1 else f"{len(finders)} {what}s"


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Counting)
