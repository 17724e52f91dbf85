"""Find the retinal disc in a photograph, as an axis-aligned ellipse.

A camera shows a circle; a picture squeezed to another aspect shows an axis-aligned ellipse, and either may be cut
off by the frame. The boundary is read along rows and columns where the mask of lit pixels begins and ends, points
on the frame's edge are dropped (they are the cut, not the disc), and the ellipse is chosen by sampling consensus, so
that a notch, a glare or a dark rim cannot pull it, then settled by robust least squares on the distance itself: of a
cut-off disc an algebraic fit leaves the hidden half axis uncertain by half a percent.

Lines, bars and surrounds of one colour, as captures and cut-outs have them, are taken away before the search, and a
frame with two discs is refused. A search that failed is not taken for a disc: where no rim is visible, the field says
so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Pixels
from retigrade.errors import NotAFundus, SeveralEyes
from retigrade.fundus.decode import Photo
from retigrade.fundus.ellipse import TOLERANCE, Points, near, settled, through
from retigrade.fundus.surround import Colour, Window, has_bright_edge, peel, surround_colour

FIELD_VERSION = 2
"""Raised whenever the same photograph would give another field or another canonical picture."""

_SIDE = 256  # the boundary is read on a copy with this shorter side at most
_DRAWS = 128  # candidate ellipses
_VOTERS = 200  # boundary points that choose among the candidates
_BLEED = 1  # pixels by which smoothing and a low threshold carry the lit region over the disc's edge
_FEWEST = 40  # boundary points below which the retina is taken to fill its frame
_WIDEST, _NARROWEST = 1.15, 1 / 1.9  # width of the disc over its height; 16:9 squeezed to a square leaves 1 / 1.78
_WIDEST_PORTRAIT = 1.45  # a 3:4 portrait squeezed to a square leaves 1.33; looked for where nothing narrower is found
_HALF, _SURE = 0.5, 0.65  # share of the boundary that follows the ellipse: at least, and beyond doubt
_SHAVED = 0.012  # of the window's sides: a line's blurred remainder
_SMALLEST_AREA = 0.08  # of the frame
_FURTHEST = 0.95  # half axes of a disc much larger than its frame, in frame sides
_FULL = 0.9  # share of a frame that is lit where the retina fills it

_BLURRED, _OUTSIDE = 1.03, 1.08  # of the half axes: beyond a disc's own blur, and beyond its glare too
_STRAY = 0.05  # of the disc's area: what may be lit beside one that was found only after a surround was taken away
_SECOND_AREA = 0.1  # of the first disc's: how large another lit region must be to be looked at
_ARCS = 400  # candidate ellipses of another disc
_ARC_POINTS = 300  # boundary points among which they are looked for
_FOLLOWED = 0.5  # share of the region's boundary that the other disc's ellipse must follow
_COVERED = 0.6  # share of that ellipse which must be lit; its own frame may have cut it off
_STRAIGHT = 0.35  # of a region's width or height: a row or column of its outline this long is a cut, not the disc
_RIMLESS = "the rim of the retina is not visible: how much of the eye the picture shows is not known"

Light = npt.NDArray[np.uint8]


class _Edge(NamedTuple):
    """Where a region begins to be lit: at this share of the way from dark to bright, and at most at this light."""

    share: float
    highest: float


_FADING = _Edge(0.12, 60.0)  # a camera's rim
_SHARP = _Edge(0.3, 255.0)  # of a cut-out: where its smeared step meets the place at which a rim on black is seen


@dataclass(frozen=True, slots=True)
class Field:
    """The retinal disc: an axis-aligned ellipse, in fractions of the frame's width and height.

    cx, cy: centre; rx, ry: half axes. A disc cut off by the frame reaches below 0 or above 1.
    filled: True where the retina fills the frame and no boundary was seen.
    window: left, top, right and bottom of what shows the photograph; around it are lines, bars or a surround.
    """

    cx: float
    cy: float
    rx: float
    ry: float
    filled: bool = False
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not (0 < self.rx < 4 and 0 < self.ry < 4 and 0 <= self.cx <= 1 and 0 <= self.cy <= 1):
            raise ValueError(f"not an ellipse inside a frame: {self.cx, self.cy, self.rx, self.ry}")
        left, top, right, bottom = self.window
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"not a window inside a frame: {self.window}")

    @property
    def note(self) -> str | None:
        """What a reader of the grade must know of the field, or None."""
        return _RIMLESS if self.filled else None


WHOLE_FRAME = Field(cx=0.5, cy=0.5, rx=0.5, ry=0.5, filled=True)
"""Of a picture that shows no disc: all of the frame."""


def find_field(photo: Photo) -> Field:
    """Find the retinal disc of a photo.

    Raises NotAFundus where no lit region is large enough and no ellipse follows its boundary, and SeveralEyes where
    more than one disc is seen.
    """
    pixels = photo.pixels
    height, width = pixels.shape[:2]
    frame = Window(0, 0, width, height)
    if not has_bright_edge(pixels):
        search = _Search.of(_brightest(pixels))
        if search.share < _SMALLEST_AREA:
            raise NotAFundus(
                f"no retinal disc: {search.share:.0%} of the frame is lit, at least {_SMALLEST_AREA:.0%} is needed; "
                "is this a fundus photograph?"
            )
        if found := search.disc(followed=_SURE):
            search.refuse_another(found)
            return found
        if found := search.disc():
            search.refuse_two()
            return found
    window = peel(pixels)
    if (window.right - window.left) * (window.bottom - window.top) < _SMALLEST_AREA * width * height:
        raise NotAFundus("no retinal disc: all but a sliver of the frame has one colour; is this a fundus photograph?")
    outside = surround_colour(pixels)
    searches = [
        (part, _Search.of(light, edge=edge))
        for part in (window, window.shaved(_SHAVED))
        for light, edge in _lights(part.of(pixels), outside)
    ]
    for widest in (_WIDEST, _WIDEST_PORTRAIT):
        for part, search in searches:
            if found := search.disc(widest=widest, followed=_SURE):
                search.refuse_another(found)
                if search.beside(found) < _STRAY:
                    return _in_frame(found, part, frame)
    for _, search in searches:
        search.refuse_two()
    part, search = searches[0]
    if search.share > _FULL or (len(search.points) < _FEWEST and search.share > _SMALLEST_AREA):
        return _in_frame(_rimless(part), part, frame)
    raise NotAFundus("no retinal disc: the lit region's boundary is not round; is this a fundus photograph?")


def lit(pixels: Pixels) -> Flags:
    """Tell retina from the black around it: bool (h, w), the largest lit region without its holes."""
    return _largest(_lit(_brightest(pixels)))


def _brightest(pixels: Pixels) -> Light:
    red, green, blue = cv2.split(pixels)  # forty times as fast as a maximum over the last axis
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _lights(pixels: Pixels, outside: Colour | None) -> list[tuple[Light, _Edge]]:
    """What may tell the retina from around it: the difference from a surround that is light, and brightness.

    outside: the colour around these pixels, for where their own corners have no surround.
    """
    inside, brightness = surround_colour(pixels), _brightest(pixels)
    colour = outside if inside is None else inside
    if colour is None:
        return [(brightness, _FADING)]
    difference = _brightest(np.asarray(cv2.absdiff(pixels, np.broadcast_to(colour, pixels.shape)), np.uint8))
    return [(difference, _SHARP), (difference, _FADING), (brightness, _FADING)]


def _rimless(window: Window) -> Field:
    """The circle about a window without a rim, as wide as its longer side: a disc cut off by the frame."""
    width, height = window.right - window.left, window.bottom - window.top
    longer = max(width, height)
    return replace(WHOLE_FRAME, rx=min(0.5 * longer / width, _FURTHEST), ry=min(0.5 * longer / height, _FURTHEST))


def _in_frame(field: Field, window: Window, frame: Window) -> Field:
    """A field found in a window, in fractions of the frame."""
    width, height = window.right - window.left, window.bottom - window.top
    return Field(
        cx=(window.left + field.cx * width) / frame.right,
        cy=(window.top + field.cy * height) / frame.bottom,
        rx=field.rx * width / frame.right,
        ry=field.ry * height / frame.bottom,
        filled=field.filled,
        window=(
            window.left / frame.right,
            window.top / frame.bottom,
            window.right / frame.right,
            window.bottom / frame.bottom,
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """A look for a disc. lit: bool (h, w) of a thumbnail, all lit regions; mask: the largest; points: its boundary."""

    lit: Flags
    mask: Flags
    points: Points

    @classmethod
    def of(cls, light: Light, *, edge: _Edge = _FADING) -> _Search:
        lit = _lit(_thumb(light), edge)
        mask = _largest(lit)
        return cls(lit, mask, _boundary(mask))

    @property
    def share(self) -> float:
        """Of the frame that is lit."""
        return np.count_nonzero(self.mask) / self.mask.size

    def disc(self, *, widest: float = _WIDEST, followed: float = _HALF) -> Field | None:
        """The ellipse that at least this share of the largest region's boundary follows, or None."""
        if len(self.points) < _FEWEST or self.share < _SMALLEST_AREA:
            return None
        height, width = self.mask.shape
        return _consensus(self.points / (width, height), aspect=width / height, widest=widest, followed=followed)

    def beside(self, disc: Field) -> float:
        """How much of what is lit lies beside a disc, as a share of the disc's area."""
        away = np.count_nonzero(self.lit & ~_inside(disc, self.lit.shape, _BLURRED))
        return float(away / (np.pi * disc.rx * disc.ry * self.lit.size))

    def refuse_another(self, disc: Field) -> None:
        """Raise SeveralEyes where a second disc is lit beside the one that was found."""
        away = self.lit & ~_inside(disc, self.lit.shape, _OUTSIDE)
        least = _SECOND_AREA * np.pi * disc.rx * disc.ry * self.lit.size
        if np.count_nonzero(away) < least:
            return
        region = _largest(away)
        if np.count_nonzero(region) >= least and _arc(region, apart_from=disc) is not None:
            raise _several()

    def refuse_two(self) -> None:
        """Raise SeveralEyes where the lit regions, none of which is one disc, are two."""
        first = _arc(_largest(self.lit))
        if first is not None:
            self.refuse_another(first)


def _several() -> SeveralEyes:
    return SeveralEyes("two retinal discs were seen: one verdict cannot cover both, put each eye into its own file")


def _thumb(light: Light) -> Light:
    height, width = light.shape
    scale = _SIDE / min(height, width)
    if scale >= 1:
        return light
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(light, size, interpolation=cv2.INTER_AREA), np.uint8)


def _lit(light: Light, edge: _Edge = _FADING) -> Flags:
    light = np.asarray(cv2.GaussianBlur(light, (3, 3), 0), np.uint8)
    around = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    black = float(np.percentile(around, 2))
    bright = float(np.percentile(light[::3, ::3], 75))  # a sample tells it as well
    # A dark photograph needs a low threshold, a hazy black background a higher one.
    threshold = min(black + max(6.0, edge.share * (bright - black)), edge.highest)
    return np.asarray(light > threshold)


def _largest(above: Flags) -> Flags:
    """The largest region, without its holes."""
    outlines, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = np.zeros(above.shape, np.uint8)
    if outlines:
        cv2.drawContours(largest, [max(outlines, key=cv2.contourArea)], -1, 1, thickness=cv2.FILLED)
    return np.asarray(above & (largest > 0))


def _inside(disc: Field, shape: tuple[int, ...], scale: float = 1.0) -> Flags:
    """Which pixels of a frame lie in an ellipse whose half axes are scaled: bool (h, w)."""
    height, width = shape
    rows = ((np.arange(height) + 0.5) / height - disc.cy) / (disc.ry * scale)
    columns = ((np.arange(width) + 0.5) / width - disc.cx) / (disc.rx * scale)
    return np.asarray(rows[:, None] ** 2 + columns[None] ** 2 < 1)


def _arc(region: Flags, *, apart_from: Field | None = None) -> Field | None:
    """A disc, anywhere and perhaps merged with another, that much of a region's outline follows; or None.

    apart_from: a disc beside it, along which the outline does not count.
    """
    height, width = region.shape
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    outline = max(outlines, key=cv2.contourArea)[:, 0].astype(np.float64)
    free = ((outline > 1) & (outline < (width - 2, height - 2))).all(axis=1) & ~_on_a_cut(outline)
    points = (outline + 0.5) / (width, height)
    if apart_from is not None:
        across, down = ((points - (apart_from.cx, apart_from.cy)) / (apart_from.rx, apart_from.ry)).T
        free &= np.hypot(across, down) > 1.5 * _OUTSIDE - 0.5
    points = points[free]
    if len(points) < _FEWEST:
        return None
    few = points[:: 1 + len(points) // _ARC_POINTS]
    rng = np.random.default_rng(0)
    # Neighbours along the outline mostly lie on one disc.
    spans = rng.uniform(0.12, 0.6, _ARCS) * len(few)
    steps = rng.integers(len(few), size=(_ARCS, 1)) + np.sort(rng.random((_ARCS, 6)), axis=1) * spans[:, None]
    centre, radius = through(few[steps.astype(int) % len(few)])
    with np.errstate(all="ignore"):
        stretch = radius[:, 0] * width / (radius[:, 1] * height)
        area = radius[:, 0] * radius[:, 1] * np.pi
        good = (stretch > 1 / _WIDEST_PORTRAIT / 1.3) & (stretch < _WIDEST_PORTRAIT)
        good &= (centre > 0).all(axis=1) & (centre < 1).all(axis=1) & (area > 0.01) & (radius < _FURTHEST).all(axis=1)
    if not good.any():
        return None
    centre, radius = centre[good], radius[good]
    votes = near(few, centre, radius, tolerance=2 * TOLERANCE).mean(axis=1)
    best = int(votes.argmax())
    found = Field(*centre[best].tolist(), *radius[best].tolist())
    inside = _inside(found, region.shape, 0.95)
    needed = _FOLLOWED if apart_from is not None else _FOLLOWED / 2
    return found if votes[best] >= needed and region[inside].mean() >= _COVERED else None


def _on_a_cut(outline: Points) -> Flags:
    """Which points of an outline in whole pixels, (n, 2), lie on a long row or column of it: bool (n,)."""
    found = np.zeros(len(outline), bool)
    for along, across in ((0, 1), (1, 0)):
        places = outline[:, across].astype(int)
        counts = np.convolve(np.bincount(places, minlength=places.max() + 2), (1, 1, 1), mode="same")
        found |= counts[places] > _STRAIGHT * np.ptp(outline[:, along])
    return found


def _boundary(mask: Flags) -> Points:
    """Where rows and columns enter and leave the mask, frame edges left out: (n, 2), x and y in pixels."""
    return np.concatenate([_entries(mask), _entries(np.ascontiguousarray(mask.T))[:, ::-1]])


def _entries(mask: Flags) -> Points:
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    inner, far = 2, mask.shape[1] - 2
    left = np.column_stack([first + _BLEED, rows + 0.5])[first >= inner]
    right = np.column_stack([last - _BLEED, rows + 0.5])[last <= far]
    points = np.concatenate([left, right]).astype(np.float64)
    # Along rows that graze the disc's top the boundary is the frame's cut, not the disc.
    return np.asarray(points[(points[:, 1] > inner) & (points[:, 1] < mask.shape[0] - inner)])


def _consensus(points: Points, *, aspect: float, widest: float, followed: float) -> Field | None:
    """The ellipse that most boundary points follow, or None; `points` and the answer in frame fractions."""
    rng = np.random.default_rng(0)
    few = points[:: 1 + len(points) // _VOTERS]
    picks = few[rng.integers(len(few), size=(_DRAWS, 6))]
    centre, radius = through(picks)
    good = _plausible(centre, radius, aspect, widest)
    if not good.any():
        return None
    centre, radius = centre[good], radius[good]
    best = int(near(few, centre, radius).sum(axis=1).argmax())
    ellipse = settled(points, np.concatenate([centre[best], radius[best]]))
    centre, radius = ellipse[None, :2], ellipse[None, 2:]
    if not _plausible(centre, radius, aspect, widest)[0] or near(points, centre, radius).mean() < followed:
        return None
    cx, cy, rx, ry = ellipse.tolist()
    return Field(cx=cx, cy=cy, rx=rx, ry=ry)


def _plausible(centre: Points, radius: Points, aspect: float, widest: float) -> Flags:
    """Which ellipses a camera could have made; aspect: the frame's width over its height, widest: the disc's."""
    with np.errstate(all="ignore"):
        stretch = radius[:, 0] * aspect / radius[:, 1]
        shape = (stretch < widest) & (stretch > _NARROWEST)
        place = (np.abs(centre - 0.5) < 0.25).all(axis=1)
        size = (radius < _FURTHEST).all(axis=1) & (radius[:, 0] * radius[:, 1] * np.pi > _SMALLEST_AREA)
    return np.asarray(np.isfinite(radius).all(axis=1) & shape & place & size)
