"""What a training run does, as frozen records that need no torch; the named recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from retigrade.errors import UsageError
from retigrade.icdr import Grade

SIZES = (32, 1024)
"""The smallest and the largest side of a photo in pixels."""
_STRIDE = 32  # of the last feature map of most networks


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """How far augmentation goes; 0 switches a part off.

    rotate: degrees either way. zoom, aspect, contrast, brightness, saturation, channel_gain: relative, either way.
    shift: fraction of the side. horizontal_flip, vertical_flip: probabilities. blur: largest standard deviation in
    pixels, given to half of the photographs. noise: largest deviation of 255. channel_gamma: like brightness, but of
    each colour by itself. illumination: how much brighter or darker one side, and the middle against the rim, may be,
    in logarithms. dust: the deepest of a few soft spots, given to a third of the photographs. specks: how many specks
    of dust with edges, dark and bright, lie on half of the photographs, on average. colour_noise: share of the
    photographs whose noise differs from colour to colour. recompression: share of the photographs that are made
    smaller, compressed and enlarged again. copy_paste, copy_paste_mild: shares of the healthy photographs
    that are given lesions of annotated ones, haemorrhages and exudates, and learned as moderate, or microaneurysms
    alone, and learned as mild.
    """

    rotate: float = 180.0
    zoom: float = 0.10
    shift: float = 0.03
    aspect: float = 0.06
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    brightness: float = 0.30
    contrast: float = 0.25
    saturation: float = 0.25
    channel_gain: float = 0.12
    blur: float = 1.4
    noise: float = 4.0
    channel_gamma: float = 0.0
    illumination: float = 0.0
    dust: float = 0.0
    specks: float = 0.0
    colour_noise: float = 0.0
    recompression: float = 0.0
    copy_paste: float = 0.0
    copy_paste_mild: float = 0.0

    @property
    def pasted_grades(self) -> dict[Grade, float]:
        """The grades that pasted lesions make of healthy photographs, with their shares."""
        shares = {Grade.MODERATE: self.copy_paste, Grade.MILD: self.copy_paste_mild}
        return {grade: share for grade, share in shares.items() if share}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to fine-tune; raises UsageError where a value is out of range.

    size: side of the photo in pixels, and of the first `small_share` of the epochs `small_size`. lr: the highest
    learning rate. ordinal: weight of the squared error of the expected grade. class_balance: classes are drawn in
    proportion to frequency ** (1 - class_balance); 1 makes them equal, 0 leaves them. source_balance: the same over
    data sets and the origins within them. rejected_weight: how often a photograph that a reader of image quality called
    unusable is drawn, relative to others. label_smoothing: probability moved from the grade to each adjacent one, since
    graders differ by one stage. ema_decay: of the exponential moving average of the weights, 0 for none. match_crops:
    cut at random so that the frame cannot tell the grade. high_resolution: weight of the loss of the high-resolution
    head by itself, 0 for a network without. teachers: networks trained first, each on a share of the photographs, to
    predict the rest, 0 for none; teacher_weight: the share of a target that is such a prediction, or that of bundles
    given to learn from; teacher_epochs: the share of the epochs that teachers are trained for. frozen_stride: the
    backbone's layers down to the feature map of this stride stand still, 0 for none.
    lesions: weight of the loss of where lesions are, as a segmentation network that annotated photographs taught sees
    them, 0 for none.
    """

    name: str
    epochs: int
    batch: int
    lr: float
    optimizer: Literal["adam", "adamw"]
    weight_decay: float
    schedule: Literal["constant", "one_cycle"]
    size: int = 224
    small_size: int = 224
    small_share: float = 0.0
    class_balance: float
    source_balance: float
    rejected_weight: float = 1.0
    label_smoothing: float
    ordinal: float
    ema_decay: float
    dropout: float
    match_crops: bool
    high_resolution: float = 0.0
    teachers: int = 0
    teacher_weight: float = 0.0
    teacher_epochs: float = 0.5
    frozen_stride: int = 0
    lesions: float = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        for option, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise UsageError(f"--{option} must be 1 or more, got {value}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"--lr must be a positive number, got {self.lr:g}; the recipes use 6e-4 and 1e-4")
        if self.teachers < 0 or self.teachers == 1:
            raise UsageError(f"teachers must be 0 or at least 2, got {self.teachers}")
        if self.teachers and not self.teacher_weight:
            raise UsageError(
                f"the recipe {self.name} gives teachers no weight: leave --teachers out, or take --recipe best"
            )
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise UsageError(f"--size must lie from {SIZES[0]} to {SIZES[1]} pixels, got {self.size}")

    def resized(self, size: int) -> Recipe:
        """The same at another side in pixels; the first epochs stay smaller by the same share, in steps of 32."""
        small = max(SIZES[0], min(size, round(self.small_size / self.size * size / _STRIDE) * _STRIDE))
        return replace(self, size=size, small_size=size if self.small_size == self.size else small)


BEST = Recipe(
    name="best",
    epochs=28,
    batch=32,
    lr=6e-4,
    optimizer="adamw",
    weight_decay=0.03,
    schedule="one_cycle",
    small_size=160,
    small_share=0.35,
    class_balance=0.35,
    source_balance=0.35,
    label_smoothing=0.06,
    ordinal=0.15,
    ema_decay=0.998,
    dropout=0.2,
    match_crops=True,
    high_resolution=0.4,
    teachers=4,
    teacher_weight=0.5,
)

ROBUST = replace(
    BEST,
    name="robust",
    augmentation=AugmentationConfig(
        zoom=0.15,
        shift=0.04,
        contrast=0.30,
        saturation=0.30,
        channel_gain=0.18,
        noise=9,
        channel_gamma=0.12,
        illumination=0.35,
        dust=0.35,
        colour_noise=0.5,
        recompression=0.3,
    ),
)
"""`best` with augmentation for cameras, clinics and files unlike those trained on."""

BRIEF = replace(
    ROBUST,
    name="brief",
    epochs=8,
    small_share=0.5,
    rejected_weight=0.0,
    teachers=0,
    teacher_weight=0.0,
    augmentation=AugmentationConfig(
        zoom=0.12,
        contrast=0.28,
        saturation=0.28,
        channel_gain=0.15,
        noise=6,
        channel_gamma=0.06,
        illumination=0.18,
        dust=0.18,
        colour_noise=0.25,
        recompression=0.2,
    ),
)
"""One network and few epochs, for many photographs and a processor alone; half of `robust`'s augmentation."""

FURTHER = replace(
    BRIEF,
    name="further",
    epochs=5,
    lr=3e-4,
    size=288,
    small_size=224,
    small_share=0.4,
    source_balance=0.45,
    teacher_weight=0.45,
    frozen_stride=4,
    augmentation=replace(BRIEF.augmentation, noise=9, illumination=0.22, dust=0.4, colour_noise=0.35),
)
"""For a network that grades already and is to learn from more photographs, larger ones, and other bundles."""

FURTHER_ROBUST = replace(
    FURTHER,
    name="further-robust",
    frozen_stride=0,
    augmentation=replace(ROBUST.augmentation, noise=13, channel_gamma=0.1, illumination=0.3, dust=0.5),
)
"""`further` with every layer learning, against noise, dust and uneven light."""

FURTHER_MILD = replace(
    BEST,
    name="further-mild",
    epochs=7,
    lr=5e-4,
    size=288,
    small_share=0.3,
    small_size=224,
    teachers=0,
    teacher_weight=0.45,
)
"""`further` with every layer learning and the milder augmentation of `best`."""

FURTHER_SHARP = replace(
    FURTHER_MILD,
    name="further-sharp",
    lr=4e-4,
    size=384,
    small_size=288,
    small_share=0.25,
    class_balance=0.5,
    source_balance=0.5,
    teacher_weight=0.5,
    frozen_stride=4,
    augmentation=AugmentationConfig(noise=6, illumination=0.12, dust=0.2, colour_noise=0.25, recompression=0.3),
)
"""`further` at 384 pixels, with augmentation that hides which data sets have small, blurred photographs."""

FURTHER_STEADY = replace(
    FURTHER_SHARP.resized(352),
    name="further-steady",
    epochs=10,
    teacher_weight=0.6,
    augmentation=replace(FURTHER_SHARP.augmentation, noise=12, illumination=0.18, dust=0.5, colour_noise=0.4),
)
"""`further-sharp` at 352 pixels, for longer, mostly from predictions and against noise and dust."""

FURTHER_PASTE = replace(
    FURTHER_STEADY,
    name="further-paste",
    epochs=9,
    augmentation=replace(FURTHER_STEADY.augmentation, noise=10, dust=0.45, copy_paste=0.25),
)
"""`further-steady` with lesions of annotated photographs pasted on healthy ones."""

FURTHER_FINE = replace(
    FURTHER_PASTE,
    name="further-fine",
    source_balance=0.8,
    small_share=0.1,
    teacher_weight=0.4,
    lr=5e-4,
    augmentation=replace(
        FURTHER_PASTE.augmentation, blur=0.8, noise=8, recompression=0.2, copy_paste=0.2, copy_paste_mild=0.2
    ),
)
"""`further-paste` for what is small: half from photographs with all the detail of 352 pixels; pastes microaneurysms."""

FURTHER_LESIONS = replace(
    FURTHER_FINE,
    name="further-lesions",
    epochs=7,
    source_balance=0.7,
    small_share=0.0,
    teacher_weight=0.5,
    lesions=2.0,
    augmentation=replace(FURTHER_FINE.augmentation, blur=1.0, recompression=0.25, copy_paste=0.0, copy_paste_mild=0.0),
)
"""`further-fine` that learns where lesions are on every photograph, from a segmentation network."""

FURTHER_DUST = replace(
    FURTHER_LESIONS,
    name="further-dust",
    epochs=3,
    lr=1e-4,
    lesions=0.0,
    augmentation=replace(FURTHER_LESIONS.augmentation, noise=10, specks=8, colour_noise=0.6),
)
"""For a few epochs against noise and specks of dust, without maps of lesions."""

SHARP = replace(
    BEST,
    name="sharp",
    epochs=30,
    batch=64,
    lr=1e-3,
    size=352,
    small_size=256,
    small_share=0.4,
    class_balance=0.4,
    source_balance=0.45,
    ema_decay=0.997,
    teachers=0,
    augmentation=replace(
        BRIEF.augmentation,
        blur=1.6,
        noise=8,
        channel_gamma=0.08,
        illumination=0.15,
        dust=0.3,
        colour_noise=0.3,
        recompression=0.25,
    ),
)
"""For a GPU: at 352 pixels, from out-of-fold predictions too, with augmentation between that of `best` and `robust`."""

PAPER = Recipe(
    name="paper",
    epochs=100,
    batch=32,
    lr=1e-4,
    optimizer="adam",
    weight_decay=0.0,
    schedule="constant",
    class_balance=1.0,
    source_balance=0.0,
    label_smoothing=0.0,
    ordinal=0.0,
    ema_decay=0.0,
    dropout=0.0,
    match_crops=False,
    augmentation=AugmentationConfig(
        rotate=30,
        zoom=0.15,
        shift=0.1,
        aspect=0,
        horizontal_flip=0.5,
        vertical_flip=0,
        brightness=0,
        contrast=0,
        saturation=0,
        channel_gain=0,
        blur=0,
        noise=0,
    ),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        BEST, ROBUST, BRIEF, FURTHER, FURTHER_ROBUST, FURTHER_MILD, FURTHER_SHARP, FURTHER_STEADY, FURTHER_PASTE,
        FURTHER_FINE, FURTHER_LESIONS, FURTHER_DUST, SHARP, PAPER,
    )
}  # fmt: skip


def recipe_named(name: str) -> Recipe:
    """The recipe of this name; UsageError where there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
