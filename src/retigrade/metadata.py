"""What a bundle says of itself: how its numbers become a decision, what it learned from, how well it does.

The metadata travel as JSON inside the bundle. One key that is missing or unknown is an error, but for the quality head,
which bundles of schema 3 do not have.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import date
from functools import cached_property
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from retigrade.arrays import Floats, Reals
from retigrade.errors import BundleError, UsageError
from retigrade.fundus.quality import QualityLimits
from retigrade.icdr import GRADES, REFERABLE_FROM, Grade
from retigrade.metrics.conformal import Conformal
from retigrade.metrics.decision import Decision, Fraction, OperatingPoint, softmax
from retigrade.metrics.estimate import Estimate, Record
from retigrade.metrics.registry import METRICS

SCHEMA_VERSION: Final = 4
_READS: Final = (3, SCHEMA_VERSION)
HASH_DIGITS: Final = 8
MAX_SPREAD: Final = 4.0  # that five probabilities can have

CellPlace = Annotated[float, Field(ge=-1, le=2)]
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Figure(Record):
    """One measured figure: the metric with the key `metric` over the photographs of the data set `set`.

    photos: photographs of the set. graded: those of them that got a grade, of which the figure is.
    """

    set: Text
    photos: Count
    graded: Count
    metric: Text
    estimate: Estimate

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.graded > self.photos:
            raise ValueError(f"{self.graded} graded of {self.photos} photographs")
        if self.metric not in METRICS:
            raise ValueError(f"{self.metric!r} is none of the metrics {', '.join(METRICS)}")
        return self

    @property
    def title(self) -> str:
        """What the metric is called."""
        return METRICS[self.metric].title

    @property
    def of(self) -> str:
        """Of how many photographs it is."""
        return f"{self.graded} graded of {self.photos}"


class Training(Record):
    """What the network learned from; grades: photographs of each grade; sources: photographs of each data set.

    fingerprint: of the manifest; splits: of the file that says which photograph was used for what. annotated: of the
    files of the photographs whose annotated lesions it learned from. photo_hashes: the first eight digits of the
    SHA-256 of each photograph's file, in ascending order, without separators; empty where the bundle does not say.
    """

    photos: Count
    grades: tuple[Count, Count, Count, Count, Count]
    sources: dict[Text, Count]
    fingerprint: Sha256
    splits: Sha256
    annotated: tuple[Sha256, ...]
    photo_hashes: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{8})*$")]
    epochs: Count
    protocol: Text

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if not self.photos == sum(self.grades) == sum(self.sources.values()):
            raise ValueError(f"{self.photos} photos, but grades {self.grades} and sources {self.sources}")
        if self.photo_hashes and len(self.photo_hashes) > HASH_DIGITS * self.photos:
            raise ValueError(f"{len(self.photo_hashes) // HASH_DIGITS} hashes of {self.photos} photos")
        return self

    @cached_property
    def _known_hashes(self) -> frozenset[str]:
        packed = self.photo_hashes
        return frozenset(packed[start : start + HASH_DIGITS] for start in range(0, len(packed), HASH_DIGITS))

    def learned_from(self, sha256: str) -> bool:
        """Whether a photograph's file, by its SHA-256 in hexadecimal, was trained on, as far as the bundle says."""
        return sha256[:HASH_DIGITS] in self._known_hashes

    def has_seen(self, sha256: str) -> bool:
        """Whether it was trained on, or its annotated lesions were, as far as the bundle says."""
        return self.learned_from(sha256) or sha256 in self.annotated

    @staticmethod
    def pack_hashes(digests: Iterable[str]) -> str:
        """Return `photo_hashes` of these SHA-256 in hexadecimal."""
        return "".join(sorted({digest[:HASH_DIGITS] for digest in digests}))


class OutOfDistributionDetector(Record):
    """What the features of a training photograph look like, so that a picture of another kind can be refused.

    The distance of a photo is Mahalanobis': of its features' direction from the mean one, along each component in
    standard deviations, and in all other directions together (Lee et al., NeurIPS 2018; Moghaddam and Pentland, 1997).
    mean: (C,); components: (k, C), orthonormal rows; scale: (k + 1,), the standard deviation along each component and
    in any one other direction; each base64 of little-endian float16.
    limit: the distance beyond which a photo is refused; choose it with `distance`, as packing rounds.
    """

    mean: Text
    scale: Text
    components: str
    limit: Annotated[float, Field(gt=0)]

    @classmethod
    def pack(cls, *, mean: Floats, scale: Floats, components: Floats, limit: float) -> Self:
        """Make one from arrays of shapes (C,), (k + 1,) and (k, C)."""
        return cls(mean=_packed(mean), scale=_packed(scale), components=_packed(components), limit=limit)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        mean, scale, components = self.arrays
        if not all(np.isfinite(values).all() for values in (mean, scale, components)) or not (scale > 0).all():
            raise ValueError("mean, scale and components must be finite and scale positive")
        return self

    @cached_property
    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """Unpacked mean (C,), scale (k + 1,) and components (k, C), float32."""
        mean, scale, components = (_unpacked(text) for text in (self.mean, self.scale, self.components))
        if not mean.size or components.size != (scale.size - 1) * mean.size:
            raise ValueError(f"{mean.size} means, {scale.size} scales and {components.size} numbers of components")
        return mean, scale, components.reshape(-1, mean.size)

    @property
    def channels(self) -> int:
        """The number of features, C."""
        return self.arrays[0].size

    def distance(self, features: Floats) -> Floats:
        """Return how far photos are from the typical one; features: float32 (N, C) -> float32 (N,), 0 and up."""
        mean, scale, components = self.arrays
        away = direction(features) - mean
        along = away @ components.T
        rest = np.clip((away**2).sum(axis=1) - (along**2).sum(axis=1), 0, None)
        return np.asarray(np.sqrt(((along / scale[:-1]) ** 2).sum(axis=1) + rest / scale[-1] ** 2), np.float32)


class QualityHead(Record):
    """How much a photo looks like those that nobody could read, to the gate and to the network: a logarithm of odds.

    weights: (C,), base64 of little-endian float16, of the features' `direction`; gate: of the gate's score of that.
    limit: the score beyond which a photo is refused.
    """

    weights: Text
    gate: float
    offset: float
    limit: float

    @classmethod
    def pack(cls, *, weights: Floats, gate: float, offset: float, limit: float) -> Self:
        """Make one from weights of shape (C,)."""
        return cls(weights=_packed(weights), gate=gate, offset=offset, limit=limit)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if not self.array.size or not np.isfinite(self.array).all():
            raise ValueError("a quality head needs a finite weight for each feature")
        return self

    @cached_property
    def array(self) -> Floats:
        """Unpacked weights, float32 (C,)."""
        return _unpacked(self.weights)

    @property
    def channels(self) -> int:
        """The number of features, C."""
        return self.array.size

    def score(self, features: Floats, gate: Reals) -> Reals:
        """Return the score of photos; features: float32 (N, C); gate: the gate's score, (N,) -> float64 (N,)."""
        return np.asarray(direction(features) @ self.array + self.gate * np.asarray(gate, np.float64) + self.offset)

    def beyond(self, features: Floats, gate: float) -> float:
        """Return how far the score of one photo is above the limit; features: float32 (1, C)."""
        return float(self.score(features, np.array([gate]))[0]) - self.limit


class Verdict(NamedTuple):
    """Stage and referral of one photo.

    p_referable: the probability of a moderate or worse stage, 0..1. reasons: sentences on what a reader would stumble
    over: a referral that the stage alone does not explain, a stage that is not the most probable one.
    """

    grade: Grade
    p_referable: float
    referable: bool
    reasons: tuple[str, ...]


class Metadata(Record):
    """All that a bundle knows beside its weights.

    backbone: the network's name in timm. input_size: side of the photo's square in pixels. field_version: the geometry
    of the canonical field that it learned on. temperature: divides the logits. referable_threshold: the probability of
    a referable stage from which a photo is referable. conformal: makes the prediction sets; None makes none.
    second_reader_spread: a second reader is advised beyond this `retigrade.metrics.decision.spread`; 4 advises none.
    retest_noise: the difference of expected grades that 98 % of pairs of photographs of one unchanged eye stay within;
    None was not measured. out_of_distribution: refuses photos unlike those learned from; None refuses none.
    quality: the limits of the gate. quality_head: refuses photos that nobody could read; None leaves it to the gate.
    cam_maximum: the disease evidence that is shown as hottest; receptive_field_offset: see
    `retigrade.heatmap.make_heatmap`.
    """

    schema_version: Literal[3, 4]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    created: date
    backbone: Text
    input_size: Annotated[int, Field(ge=32, le=4096)]
    field_version: Count
    temperature: Annotated[float, Field(ge=1e-3, le=1e7)]
    decision: Decision
    referable_threshold: Fraction
    operating_points: dict[Text, OperatingPoint]
    conformal: Conformal | None
    second_reader_spread: Annotated[float, Field(ge=0, le=MAX_SPREAD)]
    retest_noise: Annotated[float, Field(gt=0, le=4)] | None
    out_of_distribution: OutOfDistributionDetector | None
    quality: QualityLimits
    quality_head: QualityHead | None = None
    cam_maximum: Annotated[float, Field(gt=0)]
    receptive_field_offset: tuple[CellPlace, CellPlace]
    training: Training
    figures: tuple[Figure, ...]
    licence: Text
    intended_use: Text
    limits: Text
    starting_weights: Text

    @model_validator(mode="after")
    def _ask_who_can_read_it(self) -> Self:
        if self.quality.reject_limit is None and self.quality_head is None:
            raise ValueError("without a quality head the gate needs a reject_limit")
        return self

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Return the metadata that this JSON holds.

        Raises BundleError where a key is missing, unknown or out of range, or the schema is of another version.
        """
        try:
            metadata = cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise BundleError(_complaint(text, error)) from error
        # The limits have defaults for whoever makes metadata; what is read must state each one.
        if missing := sorted(set(QualityLimits.model_fields) - metadata.quality.model_fields_set):
            raise BundleError(f"its metadata lack the quality limits {', '.join(missing)}")
        if metadata.schema_version == SCHEMA_VERSION and "quality_head" not in metadata.model_fields_set:
            raise BundleError("its metadata are not valid at quality_head: Field required")
        return metadata

    def probabilities(self, logits: Floats) -> Reals:
        """Return calibrated probabilities, softmax(logits / temperature): float32 (N, 5) -> float64 (N, 5)."""
        return softmax(logits, temperature=self.temperature)

    def threshold(self, operating_point: str | None = None) -> float:
        """Return the probability of a referable stage from which a photo is referable, at a named point or by default.

        Raises UsageError, naming those there are, where there is no such operating point.
        """
        if operating_point is None:
            return self.referable_threshold
        if operating_point not in self.operating_points:
            names = ", ".join(self.operating_points) or "none"
            raise UsageError(f"there is no operating point {operating_point!r} in this bundle; there are: {names}")
        return self.operating_points[operating_point].threshold

    def decide(self, probabilities: Reals, *, operating_point: str | None = None) -> Verdict:
        """Return stage and referral of one photo, which never contradict each other; probabilities: (5,), sum to 1.

        The stage follows the bundle's `decision`. A photo is referable where the probability of a moderate or worse
        stage reaches the threshold, or where the stage is itself moderate or worse. Raises UsageError on an unknown
        operating point.
        """
        grade, threshold = self.decision.decide(probabilities), self.threshold(operating_point)
        p_referable = min(float(probabilities[REFERABLE_FROM:].sum()), 1.0)
        reached, by_stage = p_referable >= threshold, grade >= REFERABLE_FROM
        reasons = []
        if reached and not by_stage:
            reasons.append(f"refer: moderate or worse is possible at {p_referable:.2f}")
        if by_stage and not reached:
            reasons.append(f"refer: the stage is {grade.stage}, though at {p_referable:.2f} below {threshold:.2f}")
        top = Grade(int(np.argmax(probabilities)))
        if probabilities[grade] < probabilities[top]:
            median, mean = "half of the probability lies at it or below", float(probabilities @ np.arange(len(GRADES)))
            why = median if self.decision.rule == "median" else f"the mean grade is {mean:.2f}"
            reasons.append(
                f"stage {grade.stage}, as {why}; the most probable is {top.stage} at {probabilities[top]:.2f}"
            )
        return Verdict(grade, p_referable, reached or by_stage, tuple(reasons))


def direction(features: Floats) -> Floats:
    """Return the square roots of features, signs kept, at length 1: float32 (N, C) -> (N, C)."""
    roots = np.sign(features) * np.sqrt(np.abs(features))
    return np.asarray(roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6), np.float32)


def _packed(values: Floats) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _unpacked(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)


def _complaint(text: bytes, error: ValidationError) -> str:
    """Return one sentence on the first thing that is wrong with metadata."""
    try:
        found = json.loads(text)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = SCHEMA_VERSION
    if found not in _READS:
        return (
            f"its metadata have schema {found!r} and this program reads {' and '.join(map(str, _READS))}: "
            "install the version of retigrade that made it, or make the bundle again"
        )
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(step) for step in first["loc"]) or "the whole"
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"its metadata are not valid at {where}: {first['msg']}{others}"
