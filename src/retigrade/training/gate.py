"""Fit the gate's scores: fundus photographs against pictures of anything else, and readable ones against rejects.

    python -m retigrade.training.gate --fundus DATA... --not-fundus FOLDER [--readable CSV]

writes the fitted numbers to `retigrade/fundus/gate.json` and prints, out of fold, what the scores keep and refuse. All
views of one picture are in one fold. CSV: columns `image` (a file's name without its ending) and `quality`, 0 good, 1
usable, 2 reject, as EyeQ has them (Fu et al., MICCAI 2019).
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Pixels, Reals
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry, read_manifest
from retigrade.errors import PhotoError
from retigrade.files import replacing
from retigrade.fundus.crop import crop
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.measures import MEASURES, SHAPE, Measures, measure
from retigrade.fundus.quality import Score, Trees
from retigrade.icdr import GRADES
from retigrade.inputs import expand
from retigrade.synthetic import draw_eye
from retigrade.training.negatives import SIZE, cast, hue_turned, orange, round_views, tree

_log = logging.getLogger(__name__)

_FOLDS = 5
_DRAWN = 200  # fruit, and as many trees; half as many eyes
_COLOURS = 200  # photographs that lend their colours to other pictures
_KEPT, _KEPT_GOOD, _KEPT_ANATOMY = 0.985, 0.994, 0.998  # shares of photographs that the limits let through
_RIMLESS_MARGIN = 1.5  # logarithm of odds: more is asked where no rim was seen
_STRICT, _STRICT_REJECT = 3.0, 0.03  # inverse strengths of the penalty on the weights
_TREES, _LEAVES = 100, 8
_WEIGHT = {"tree": 4.0, "fruit": 2.0, "drawn eye": 2.0}
_GOOD, _USABLE, _REJECT = "0", "1", "2"


_Row = tuple[Measures, str, int, str, str]


@dataclass(frozen=True, slots=True)
class Gate:
    """Fundus data sets, the folder of other pictures, and who is readable; the command's arguments."""

    fundus: tuple[Path, ...]
    not_fundus: Path
    readable: Path | None = None
    every: int = 1
    """Use only every n-th photograph that has no quality label."""
    output: Path = Path(__file__).parents[1] / "fundus" / "gate.json"


@dataclass(frozen=True, slots=True, eq=False)
class GateSample:
    """Measured pictures.

    measures: (n, 40). kind: of each. picture: equal for views of one. source: data set of a photograph. quality: as
    labelled, "" where it is not.
    """

    measures: Measures
    kind: npt.NDArray[np.str_]
    picture: npt.NDArray[np.int64]
    source: npt.NDArray[np.str_]
    quality: npt.NDArray[np.str_]

    @property
    def eyes(self) -> Flags:
        """Which must pass: photographs, those in another camera's colours, and drawn eyes."""
        return np.isin(self.kind, ("eye", "cast", "drawn eye"))

    @property
    def weight(self) -> Reals:
        """What is drawn counts for more, as there is less of it."""
        return np.array([_WEIGHT.get(kind, 1.0) for kind in self.kind.tolist()])


def fit(
    measures: Measures, wanted: Flags, weight: Reals, *, names: Sequence[str] = MEASURES, strict: float = _STRICT
) -> Score:
    """Fit a score that is high where `wanted`, bool (n,), to measures (n, 40); both sides weigh the same."""
    from sklearn.linear_model import LogisticRegression

    chosen = measures[:, [MEASURES.index(name) for name in names]]
    centre, spread = chosen[wanted].mean(axis=0), chosen[wanted].std(axis=0) + 1e-6
    blank = Score(
        measures=tuple(names),
        centre=_plain(centre),
        spread=_plain(spread),
        weights=(0.0,) * (2 * len(names)),
        offset=0.0,
    )
    z = blank.standard(measures)
    model = LogisticRegression(C=strict, solver="newton-cholesky")
    model.fit(np.concatenate([z, z**2], axis=1), wanted, sample_weight=_even(wanted, weight))
    return blank.model_copy(update={"weights": _plain(model.coef_[0]), "offset": float(f"{model.intercept_[0]:.6g}")})


def fit_trees(measures: Measures, wanted: Flags, weight: Reals) -> Trees:
    """Fit small boosted trees to the same, which see what depends on two measures or more."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=_TREES,
        max_leaf_nodes=_LEAVES,
        learning_rate=0.12,
        l2_regularization=1,
        min_samples_leaf=15,
        early_stopping=False,
        random_state=0,
    ).fit(measures, wanted, sample_weight=_even(wanted, weight))
    columns: dict[str, list[float]] = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
    roots, depth = [], 1
    for (predictor,) in model._predictors:  # scikit-learn has no public way to its trees
        first = len(columns["feature"])
        roots.append(first)
        for place, node in enumerate(predictor.nodes):
            leaf = bool(node["is_leaf"])
            depth = max(depth, int(node["depth"]))
            columns["feature"].append(0 if leaf else int(node["feature_idx"]))
            columns["threshold"].append(0.0 if leaf else float(node["num_threshold"]))
            columns["left"].append(first + (place if leaf else int(node["left"])))
            columns["right"].append(first + (place if leaf else int(node["right"])))
            columns["value"].append(float(f"{node['value']:.5g}") if leaf else 0.0)
    return Trees.model_validate(
        {
            **{name: tuple(values) for name, values in columns.items()},
            "measures": MEASURES,
            "roots": tuple(roots),
            "depth": depth,
            "offset": float(model._baseline_prediction.item()),
        }
    )


def out_of_fold(
    sample: GateSample,
    wanted: Flags,
    learned: Flags,
    *,
    names: Sequence[str] = MEASURES,
    strict: float = _STRICT,
    trees: bool = False,
) -> Reals:
    """Score every picture by a fit that saw neither it nor another view of it: (n,).

    learned: which may be learned from; all are scored. trees: whether trees are added to the score.
    """
    scores = np.empty(len(wanted))
    fold = sample.picture % _FOLDS
    for held in range(_FOLDS):
        seen, there = (fold != held) & learned, sample.measures[fold == held]
        known = sample.measures[seen], wanted[seen], sample.weight[seen]
        scores[fold == held] = fit(*known, names=names, strict=strict).of(there)
        if trees:
            scores[fold == held] += fit_trees(*known).of(there)
    return scores


def fit_gate(sample: GateSample) -> dict[str, object]:
    """Fit the scores and choose their limits out of fold; report what they keep and refuse."""
    eyes, poor = sample.eyes, sample.quality == _REJECT
    photographs = sample.kind == "eye"
    learned = ~(eyes & poor)
    eye = out_of_fold(sample, eyes, learned, trees=True)
    needed = float(np.quantile(eye[photographs & ~poor], 1 - _KEPT))
    shaped = eyes | (sample.kind == "hue")
    anatomy = out_of_fold(sample, shaped, learned, names=SHAPE)
    anatomy_needed = float(np.quantile(anatomy[photographs], 1 - _KEPT_ANATOMY))
    # Data sets without a label were published as readable; without them the score would know their cameras.
    labelled = np.isin(sample.source, np.unique(sample.source[photographs & (sample.quality != "")]))
    judged = photographs & np.where(labelled, np.isin(sample.quality, (_GOOD, _REJECT)), True)
    reject = out_of_fold(sample, poor, judged, strict=_STRICT_REJECT)
    limit = float(np.quantile(reject[photographs & (sample.quality == _GOOD)], _KEPT_GOOD))
    graded = (eye >= needed) & (reject <= limit)
    for kind in dict.fromkeys(sample.kind.tolist()):
        _report(f"of kind {kind}", sample.kind == kind, graded, anatomy >= anatomy_needed)
    for source in sorted(set(sample.source[photographs].tolist())):
        _report(f"eyes of {source}", photographs & (sample.source == source), graded, anatomy >= anatomy_needed)
    for label, name in ((_GOOD, "good"), (_USABLE, "usable"), (_REJECT, "reject")):
        _report(f"labelled {name}", photographs & (sample.quality == label), graded, anatomy >= anatomy_needed)

    def whole(wanted: Flags, of: Flags) -> tuple[Measures, Flags, Reals]:
        return sample.measures[of], wanted[of], sample.weight[of]

    return {
        "eye_needed": round(needed, 3),
        "eye_needed_rimless": round(needed + _RIMLESS_MARGIN, 3),
        "anatomy_needed": round(anatomy_needed, 3),
        "reject_limit": round(limit, 3),
        "eye": fit(*whole(eyes, learned)).model_dump(),
        "eye_trees": fit_trees(*whole(eyes, learned)).model_dump(),
        "anatomy": fit(*whole(shaped, learned), names=SHAPE).model_dump(),
        "reject": fit(*whole(poor, judged), strict=_STRICT_REJECT).model_dump(),
    }


def main(arguments: Gate) -> None:
    """Measure, fit, report, and write the numbers."""
    fitted = fit_gate(gather(arguments))
    with replacing(arguments.output) as part:
        part.write_text(json.dumps(fitted) + "\n", "utf-8")


def gather(arguments: Gate) -> GateSample:
    """Measure photographs, the same in other colours, drawn eyes and fruit, and views of other pictures."""
    quality = _qualities(arguments.readable)
    entries = [
        entry
        for number, entry in enumerate(read_manifest(list(arguments.fundus)).entries)
        if number % arguments.every == 0 or Path(entry.name).stem in quality
    ]
    rows: list[_Row] = []
    colours: list[Pixels] = []
    for number, (entry, pixels) in enumerate(_photographs(entries)):
        rng = np.random.default_rng(number)
        of = entry.source, quality.get(Path(entry.name).stem, "")
        if len(colours) < _COLOURS and number % max(1, len(entries) // _COLOURS) == 0:
            colours.append(pixels)
        rows += _measured([pixels], "eye", number, *of)
        if number % 3 == 0:
            rows += _measured([cast(pixels, rng)], "cast", number, *of)
        if number % 3 == 1:
            rows += _measured([hue_turned(pixels, rng)], "hue", number, *of)
    rows += _drawn()
    for number, item in enumerate(expand([arguments.not_fundus]).items):
        try:
            pixels = decode(item.path).pixels
        except PhotoError as error:
            _log.warning("%s", error)
            continue
        rows += _measured(round_views(pixels, np.stack(colours), np.random.default_rng(number)), "other", number)
    measures, kinds, pictures, sources, qualities = zip(*rows, strict=True)
    return GateSample(np.stack(measures), *map(np.array, (kinds, pictures, sources, qualities)))


def _photographs(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Pixels]]:
    for entry in entries:
        try:
            yield entry, canonical(entry, size=SIZE)
        except Exception as error:
            _log.warning("%s", error)


def _drawn() -> list[_Row]:
    rows: list[_Row] = []
    for number in range(_DRAWN):
        rng = np.random.default_rng(number)
        rows += [*_measured([orange(rng)], "fruit", number), *_measured([tree(rng)], "tree", number)]
        if number % 2 == 0:
            grade, size, aspect = GRADES[number // 2 % len(GRADES)], int(rng.integers(200, 420)), rng.uniform(1.2, 1.5)
            eye = draw_eye(grade=grade, size=size, aspect=float(aspect), cut=float(rng.choice([0, 0.08])), rng=rng)
            height, width = eye.pixels.shape[:2]
            photo = Photo(pixels=eye.pixels, width=width, height=height, sha256="")
            rows += _measured([crop(photo, eye.field, size=SIZE)], "drawn eye", number)
    return rows


def _measured(
    pictures: Sequence[Pixels] | Iterator[Pixels], kind: str, number: int, source: str = "", quality: str = ""
) -> list[_Row]:
    return [(found, kind, number, source, quality) for pixels in pictures if (found := measure(pixels)) is not None]


def _qualities(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["image"]: row["quality"] for row in csv.DictReader(file) if row["quality"]}


def _even(wanted: Flags, weight: Reals) -> Reals:
    """Weights by which both sides count the same."""
    return np.where(wanted, weight, weight * weight[wanted].sum() / max(float(weight[~wanted].sum()), 1e-9))


def _report(name: str, chosen: Flags, graded: Flags, anatomy: Flags) -> None:
    if chosen.any():
        _log.info(
            "%6d %-18s %6.2f %% graded, %6.2f %% refused but with an eye's anatomy",
            chosen.sum(), name, 100 * graded[chosen].mean(), 100 * (~graded & anatomy)[chosen].mean(),
        )  # fmt: skip


def _plain(values: Reals) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


if __name__ == "__main__":
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Gate))
