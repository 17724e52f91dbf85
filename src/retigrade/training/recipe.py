"""What a training run does, as one frozen record; the two named recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from retigrade.training.augment import AugmentationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to fine-tune.

    size: side of the photo in pixels, and of the first `small_share` of the epochs `small_size`.
    balance: classes are drawn in proportion to frequency ** (1 - balance); 1 makes them equal, 0 leaves them.
    source_balance: the same over data sets. neighbours: probability moved from the grade to each adjacent one, since
    graders differ by one stage. ordinal: weight of the squared error of the expected grade. average: decay of the
    exponential moving average of the weights, 0 for none. cuts: cut at random so that the frame cannot tell the grade.
    fine: weight of the loss of the fine evidence by itself, 0 for a network without. opinions: how many networks are
    trained first, each on a share of the photographs, to give their opinion of the rest, 0 for none; trust: the share
    of a target that is such an opinion. fewer: the share of the epochs that those networks train.
    """

    name: str
    epochs: int
    batch: int
    rate: float
    optimizer: Literal["adam", "adamw"]
    weight_decay: float
    schedule: Literal["constant", "one_cycle"]
    size: int = 224
    small_size: int = 224
    small_share: float = 0.0
    balance: float
    source_balance: float
    neighbours: float
    ordinal: float
    average: float
    dropout: float
    cuts: bool
    fine: float = 0.0
    opinions: int = 0
    trust: float = 0.0
    fewer: float = 0.5
    strength: AugmentationConfig = field(default_factory=AugmentationConfig)


BEST = Recipe(
    name="best",
    epochs=28,
    batch=32,
    rate=6e-4,
    optimizer="adamw",
    weight_decay=0.03,
    schedule="one_cycle",
    small_size=160,
    small_share=0.35,
    balance=0.35,
    source_balance=0.35,
    neighbours=0.06,
    ordinal=0.15,
    average=0.998,
    dropout=0.2,
    cuts=True,
    fine=0.4,
    opinions=4,
    trust=0.5,
)

PAPER = Recipe(
    name="paper",
    epochs=100,
    batch=32,
    rate=1e-4,
    optimizer="adam",
    weight_decay=0.0,
    schedule="constant",
    balance=1.0,
    source_balance=0.0,
    neighbours=0.0,
    ordinal=0.0,
    average=0.0,
    dropout=0.0,
    cuts=False,
    strength=AugmentationConfig(
        rotate=30,
        zoom=0.15,
        shift=0.1,
        aspect=0,
        flip=0.5,
        upend=0,
        brightness=0,
        contrast=0,
        saturation=0,
        tint=0,
        blur=0,
        noise=0,
    ),
)

RECIPES = {recipe.name: recipe for recipe in (BEST, PAPER)}
