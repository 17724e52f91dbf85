"""Pictures that the gate must refuse, as canonical squares: everyday ones made round, drawn fruit, false colours."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from retigrade.arrays import Floats, Pixels
from retigrade.fundus.crop import LIT, circle

SIZE = 224
VIEWS = 24  # of each picture that is no fundus
_ORANGE = np.array([200.0, 110.0, 40.0])
_RANKS = np.linspace(0, 1, 65)
_HUES = (30, 90)  # of 180, either way: a turn by 60 to 180 degrees


def round_views(pixels: Pixels, eyes: Pixels, rng: np.random.Generator, *, views: int = VIEWS) -> Iterator[Pixels]:
    """Cut discs from a picture that is no fundus, some blurred, tinted or in an eye's colours: uint8 (S, S, 3) each.

    eyes: canonical pictures whose colours are taken, uint8 (n, S, S, 3).
    """
    height, width = pixels.shape[:2]
    for view in range(views):
        side = int(max(40, min(height, width) * (rng.uniform(0.35, 1) if view else 1)))
        top, left = (int(rng.integers(max(1, length - side + 1))) for length in (height, width))
        piece = pixels[top : top + side, left : left + side]
        disc = cv2.resize(piece, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
        if view % 7 == 2:
            disc = cv2.GaussianBlur(disc, (0, 0), rng.uniform(0.7, 3)).astype(np.float32)
        eye = eyes[rng.integers(len(eyes))]
        match view % 6:
            case 1:
                disc = disc * np.array([1.1, rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.6)], np.float32)
            case 2:
                disc = (disc.mean(axis=2, keepdims=True) / 128 * _ORANGE * rng.uniform(0.5, 1.1)).astype(np.float32)
            case 3:
                disc = in_colours_of(disc, eye, matched=False)
            case 4:
                disc = in_colours_of(disc, eye, matched=True)
            case 5:
                disc = toned(disc, eye)
        if view % 4 == 3:
            disc = disc * _vignette(rng)[..., None]
        yield _framed(disc, rng, cut=bool(view % 2))


def in_colours_of(disc: Floats, eye: Pixels, *, matched: bool) -> Floats:
    """Give each colour the mean and deviation, or the whole distribution, of that of an eye: float32 (S, S, 3)."""
    inside, lit = circle(len(disc)), eye.max(axis=2) > LIT
    changed = disc.copy()
    for channel in range(3):
        values, wished = disc[..., channel], eye[..., channel][lit].astype(np.float32)
        own = values[inside]
        if matched:
            changed[..., channel] = np.interp(values, np.quantile(own[::7], _RANKS), np.quantile(wished[::7], _RANKS))
        else:
            changed[..., channel] = (values - own.mean()) / (own.std() + 1) * wished.std() + wished.mean()
    return changed


def toned(disc: Floats, eye: Pixels) -> Floats:
    """Give each level of light the colour that an eye has at the same rank of light: float32 (S, S, 3)."""
    colours = eye[eye.max(axis=2) > LIT][::7].astype(np.float32)
    colours = cv2.blur(colours[np.argsort(colours.sum(axis=1))][None], (31, 1))[0]
    light = disc.mean(axis=2)
    ranks = np.interp(light, np.quantile(light[circle(len(disc))][::7], _RANKS), _RANKS)
    return np.asarray(colours[(ranks * (len(colours) - 1)).astype(int)], np.float32)


def orange(rng: np.random.Generator) -> Pixels:
    """Draw a round fruit: a colour, shading, a highlight, pores, perhaps a stalk; uint8 (S, S, 3)."""
    rows, columns = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) / (SIZE / 2)
    colour = np.array([rng.uniform(150, 255), rng.uniform(50, 180), rng.uniform(0, 80)])
    away = np.hypot(rows - rng.uniform(-0.4, 0.4), columns - rng.uniform(-0.4, 0.4))
    shade = 1 - rng.uniform(0, 0.6) * away**2
    grain = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), rng.uniform(0.6, 3))
    shade = shade + rng.uniform(0, 0.12) * grain / grain.std()
    if rng.random() < 0.6:  # segments, as of a cut fruit
        turns = np.arctan2(rows, columns) * rng.integers(4, 7)
        shade = shade + rng.uniform(0.05, 0.25) * (np.abs(np.cos(turns)) > rng.uniform(0.9, 0.99))
    fruit = colour * shade[..., None]
    for _ in range(rng.integers(0, 3)):
        spot = np.exp(
            -((rows - rng.uniform(-0.6, 0.6)) ** 2 + (columns - rng.uniform(-0.6, 0.6)) ** 2) / rng.uniform(0.005, 0.08)
        )
        fruit = fruit + rng.uniform(-90, 160) * spot[..., None]
    return _framed(fruit.astype(np.float32), rng, cut=rng.random() < 0.3)


def tree(rng: np.random.Generator) -> Pixels:
    """Draw a disc with branching dark lines and a bright spot, as a child draws an eye: uint8 (S, S, 3)."""
    colour = [int(rng.uniform(150, 240)), int(rng.uniform(50, 150)), int(rng.uniform(0, 90))]
    disc = np.full((SIZE, SIZE, 3), colour, np.uint8)
    spot = (int(rng.uniform(0.15, 0.85) * SIZE), int(rng.uniform(0.3, 0.7) * SIZE))
    dark = [int(value * rng.uniform(0.3, 0.8)) for value in colour]

    def branch(x: float, y: float, angle: float, length: float, width: int) -> None:
        for _ in range(int(rng.integers(2, 6))):
            end = x + length * np.cos(angle), y + length * np.sin(angle)
            cv2.line(disc, (int(x), int(y)), (int(end[0]), int(end[1])), dark, width, cv2.LINE_AA)
            x, y, angle = *end, angle + rng.normal(0, 0.25)
            if length > 8 and rng.random() < 0.6:
                branch(x, y, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1), length * 0.7, max(1, width - 1))

    for angle in rng.uniform(0, 2 * np.pi, rng.integers(3, 8)):
        branch(*spot, float(angle), rng.uniform(10, 35), int(rng.integers(1, 5)))
    bright = [min(255, int(value * 1.3) + 40) for value in colour]
    cv2.circle(disc, spot, int(rng.uniform(8, 26)), bright, -1, cv2.LINE_AA)
    drawn: Floats = disc.astype(np.float32)
    if rng.random() < 0.5:
        drawn = drawn * _vignette(rng)[..., None]
    if rng.random() < 0.6:
        drawn = cv2.GaussianBlur(drawn, (0, 0), rng.uniform(0.5, 2)).astype(np.float32)
    if rng.random() < 0.6:
        drawn = (drawn + rng.normal(0, rng.uniform(1, 8), drawn.shape)).astype(np.float32)
    return _framed(drawn, rng, cut=rng.random() < 0.3)


def hue_turned(canonical: Pixels, rng: np.random.Generator) -> Pixels:
    """Turn an eye's hue by 60 to 180 degrees, either way: uint8 (S, S, 3)."""
    hsv = cv2.cvtColor(canonical, cv2.COLOR_RGB2HSV)
    turn = int(rng.integers(*_HUES)) * int(rng.choice([-1, 1]))
    hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def cast(canonical: Pixels, rng: np.random.Generator) -> Pixels:
    """An eye as another camera shows it, which must pass: each colour brighter or darker, and its curve bent."""
    gain, bend = rng.uniform(0.75, 1.25, 3), rng.uniform(0.8, 1.25, 3)
    levels = np.arange(256)[:, None] / 255
    table = np.clip(255 * gain * levels**bend, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(canonical, table[None]), np.uint8)


def _vignette(rng: np.random.Generator) -> Floats:
    rows, columns = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) / (SIZE / 2)
    return np.asarray(1 - rng.uniform(0.1, 0.7) * (rows**2 + columns**2), np.float32).clip(0.05)


def _framed(disc: Floats, rng: np.random.Generator, *, cut: bool) -> Pixels:
    pixels = np.clip(disc, 0, 255).astype(np.uint8)
    pixels[~circle(SIZE)] = 0
    if cut:  # as fundus photographs are, so that the frame does not tell them apart
        hidden = int(rng.uniform(0, 0.14) * SIZE)
        pixels[:hidden] = 0
        pixels[SIZE - hidden :] = 0
    return pixels
