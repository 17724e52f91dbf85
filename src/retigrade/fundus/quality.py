"""The gate: is this the back of an eye, and can anything be read from it?

Plain limits on light, sharpness, colour and visible retina give the reasons a person can act on. Three fitted scores
over the same measurements do the rest: `eye` tells retina from everything else, `anatomy` looks for vessels and optic
disc whatever the colour, and `reject` knows the photographs that graders could not read. What has the anatomy of an eye
is never called something else: a person must look at it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import resources
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from retigrade.arrays import Pixels
from retigrade.fundus.field import Field as Disc
from retigrade.fundus.measures import MEASURES, Measures, measure
from retigrade.icdr import Status

NOT_AN_EYE = "does not look like the back of an eye"
UNUSUAL = "has the shape of a retina in unusual colours or structures: a person must look at it"
_REACH = 5.0  # deviations from the mean beyond which a measure says no more
_FAULTS = (
    ("light", -1, "too dark"),
    ("glare", 1, "too bright in places"),
    ("sharpness", -1, "not sharp"),
    ("clear ridges", -1, "vessels hardly stand out"),
    ("shading", 1, "unevenly lit"),
)


@dataclass(frozen=True, slots=True)
class Quality:
    """What the gate found: a score from 0 (useless) to 1 (clear), the verdict, and reasons in words.

    reject: of what passed, the score of what nobody could read, a logarithm of odds; poor: what to say if it could not.
    """

    score: float
    status: Status
    reasons: tuple[str, ...] = ()
    reject: float = 0.0
    poor: str = ""

    def judged(self, beyond: float) -> Quality:
        """The quality of what passed, with what a network adds on whether it can be read.

        beyond: the logarithm of the odds that nobody could, 0 at the limit.
        """
        score = self.score * _share(-beyond)
        if beyond <= 0:
            return replace(self, score=score)
        return Quality(score, Status.UNGRADABLE, (self.poor, *self.reasons))


class _Fitted(BaseModel):
    """A fitted score over some measures, named in the order in which they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    measures: tuple[str, ...] = Field(min_length=1)

    def chosen(self, measures: Measures) -> Measures:
        """Return those that the score reads, of measures in the order of `MEASURES`: (..., 40) -> (..., n)."""
        return measures[..., self._places]

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        return np.array([MEASURES.index(name) for name in self.measures])

    @model_validator(mode="after")
    def _know_them(self) -> Self:
        if unknown := sorted(set(self.measures) - set(MEASURES)):
            raise ValueError(f"unknown measures: {', '.join(unknown)}")
        return self


class Score(_Fitted):
    """A quadratic logistic score, a logarithm of odds: offset + weights . [z, z^2].

    z = (measures - centre) / spread, clipped to -5..5.
    """

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    offset: float

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        count = len(self.measures)
        lengths = len(self.centre), len(self.spread), len(self.weights)
        if lengths != (count, count, 2 * count) or min(self.spread) <= 0:
            raise ValueError("a score needs a centre, a positive spread and two weights for each of its measures")
        return self

    def standard(self, measures: Measures) -> Measures:
        """Return z of measures in the order of `MEASURES`: (..., 40) -> (..., n)."""
        centre, spread, _ = self._arrays
        z = (self.chosen(measures) - centre) / spread
        return np.asarray(np.clip(z, -_REACH, _REACH))

    def of(self, measures: Measures) -> Measures:
        """Return the score of measures in the order of `MEASURES`: (..., 40) -> (...)."""
        z = self.standard(measures)
        return np.asarray(self.offset + np.concatenate([z, z**2], axis=-1) @ self._arrays[2])

    @cached_property
    def _arrays(self) -> tuple[Measures, Measures, Measures]:
        return np.array(self.centre), np.array(self.spread), np.array(self.weights)


class Trees(_Fitted):
    """A sum of small decision trees, a logarithm of odds (gradient boosting: Friedman, Annals of Statistics 29, 2001).

    Nodes of all trees in one row: at each, the place of a measure, the threshold up to which `left` is next, else
    `right`; a leaf is its own next node, and has a value. roots: where the trees begin. depth: steps that reach a leaf.
    """

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]
    roots: tuple[int, ...]
    depth: int = Field(ge=1, le=32)
    offset: float

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        count = len(self.feature)
        if not count == len(self.threshold) == len(self.left) == len(self.right) == len(self.value):
            raise ValueError("each node needs a measure, a threshold, two next nodes and a value")
        nodes = (*self.left, *self.right, *self.roots)
        if not all(0 <= node < count for node in nodes) or not all(
            0 <= place < len(self.measures) for place in self.feature
        ):
            raise ValueError("a node leads to none of the nodes, or asks for none of the measures")
        return self

    @cached_property
    def _nodes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        return np.array([self.threshold, self.value]), np.array([self.feature, self.left, self.right])

    def of(self, measures: Measures) -> Measures:
        """Return the score of measures in the order of `MEASURES`: (..., 40) -> (...)."""
        (threshold, value), (feature, left, right) = self._nodes
        rows = self.chosen(measures).reshape(-1, len(self.measures))
        node = np.tile(np.array(self.roots), (len(rows), 1))
        for _ in range(self.depth):
            asked = np.take_along_axis(rows, feature[node], axis=1)
            node = np.where(asked <= threshold[node], left[node], right[node])
        return np.asarray(self.offset + value[node].sum(axis=1)).reshape(measures.shape[:-1])


@cache
def _fitted() -> dict[str, Any]:
    """The scores and their limits, fitted by `retigrade.training.gate`."""
    fitted: dict[str, Any] = json.loads(resources.files("retigrade.fundus").joinpath("gate.json").read_text("utf-8"))
    return fitted


Sum = tuple[Score | Trees, ...]
"""Scores that are added."""
_SUM: TypeAdapter[Score | Sum] = TypeAdapter(Score | Sum)


class QualityLimits(BaseModel):
    """The limits of the gate.

    retina, dark, bright, white, blurred, grey: plain limits, each on the measure of that matter. eye, anatomy, reject:
    the scores; eye_trees: added to the first. eye_needed: what these must reach; eye_needed_rimless: where no rim was
    seen. anatomy_needed: from where that score says eye. reject_limit: what that score must not exceed; None where a
    network has its say, too, before it is decided (`Quality.judged`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    retina: float = 0.25
    dark: float = 0.07
    bright: float = 0.85
    white: float = 0.35
    blurred: float = -5.3
    grey: float = 0.93
    eye_needed: float = Field(default_factory=lambda: _fitted()["eye_needed"])
    eye_needed_rimless: float = Field(default_factory=lambda: _fitted()["eye_needed_rimless"])
    anatomy_needed: float = Field(default_factory=lambda: _fitted()["anatomy_needed"])
    reject_limit: float | None = Field(default_factory=lambda: _fitted()["reject_limit"])
    eye: Score = Field(default_factory=lambda: Score.model_validate_json(json.dumps(_fitted()["eye"])))
    eye_trees: Trees = Field(default_factory=lambda: Trees.model_validate_json(json.dumps(_fitted()["eye_trees"])))
    anatomy: Score = Field(default_factory=lambda: Score.model_validate_json(json.dumps(_fitted()["anatomy"])))
    reject: Score | Sum = Field(default_factory=lambda: _SUM.validate_json(json.dumps(_fitted()["reject"])))

    @classmethod
    def stated(cls) -> Self:
        """Today's limits, each of them stated, as a bundle must."""
        return cls(**cls().model_dump())

    def eye_score(self, measures: Measures) -> Measures:
        """How much measures look like those of an eye, a logarithm of odds: (..., 40) -> (...)."""
        return np.asarray(self.eye.of(measures) + self.eye_trees.of(measures))

    def reject_score(self, measures: Measures) -> Measures:
        """How much measures look like those of a photograph that nobody could read: (..., 40) -> (...)."""
        parts = (self.reject,) if isinstance(self.reject, Score) else self.reject
        return np.asarray(sum(part.of(measures) for part in parts))


def assess(canonical: Pixels, disc: Disc, limits: QualityLimits) -> Quality:
    """Judge a canonical photo, uint8 (S, S, 3).

    The verdict is graded (it may be), ungradable or not_fundus, with reasons in words for the latter two; the note that
    the disc may have is among the reasons of the first two.
    """
    measures = measure(canonical)
    if measures is None:
        return Quality(0.0, Status.UNGRADABLE, ("too little retina is lit to be read",))
    needed = limits.eye_needed_rimless if disc.filled else limits.eye_needed
    eye = float(limits.eye_score(measures)) - needed
    reject = float(limits.reject_score(measures))
    beyond = -np.inf if limits.reject_limit is None else reject - limits.reject_limit
    quality = float(_share(eye / 2) * _share(-beyond))
    complaints = _complaints(dict(zip(MEASURES, measures.tolist(), strict=True)), limits)
    note = () if disc.note is None else (disc.note,)
    if complaints:
        return Quality(quality, Status.UNGRADABLE, (*complaints, *note))
    if eye < 0:
        if float(limits.anatomy.of(measures)) >= limits.anatomy_needed:
            return Quality(quality, Status.UNGRADABLE, (UNUSUAL, *note))
        return Quality(0.0, Status.NOT_FUNDUS, (NOT_AN_EYE,))
    poor = f"poor quality, {_fault(measures, limits.eye)}: take it again"
    if beyond > 0:
        return Quality(quality, Status.UNGRADABLE, (poor, *note))
    return Quality(quality, Status.GRADED, note, reject, poor)


def _share(odds: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def _complaints(named: dict[str, float], limits: QualityLimits) -> tuple[str, ...]:
    complaints = (
        (
            named["retina"] < limits.retina,
            f"too little retina: {named['retina']:.0%} of the picture, need {limits.retina:.0%}",
        ),
        (named["light"] < limits.dark, f"too dark: mean light {named['light']:.2f}, need {limits.dark:.2f}"),
        (
            named["light"] > limits.bright or named["white"] > limits.white,
            f"too bright: {named['white']:.0%} of the retina is white",
        ),
        (named["grey"] > limits.grey, "no colour: a colour photograph is needed"),
        (named["sharpness"] < limits.blurred, "blurred: no vessel can be told from its surroundings"),
    )
    return tuple(reason for found, reason in complaints if found)


def _fault(measures: Measures, eye: Score) -> str:
    """What most sets a photograph apart from the usual eye, of what makes one hard to read."""
    z = dict(zip(eye.measures, eye.standard(measures).tolist(), strict=True))
    faults = [(sign * z[name], words) for name, sign, words in _FAULTS if name in z]
    return max(faults, default=(0.0, "unlike others"))[1]
