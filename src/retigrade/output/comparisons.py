"""One eye at two visits: the earlier photograph laid over the later one, side by side, each with its thermal map.

The eyes that changed come first, then the most suspicious ones. Where the two do not fit, nothing is shown, and that is
said: a pair that lies wrongly would show changes that are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retigrade.arrays import Pixels
from retigrade.errors import PhotoError, UnreadablePhoto
from retigrade.fundus.decode import Photo
from retigrade.grader import Grader
from retigrade.icdr import GRADES
from retigrade.inputs import Input
from retigrade.output.overlay import as_jpeg, fitted, strip, thermal
from retigrade.output.progression import Direction, Timeline, TimelinePoint
from retigrade.output.registration import SIDE, Registration, register
from retigrade.progress import RunProgress
from retigrade.signals import Stop

COMPARED = 40
"""The most eyes of one run: two photographs read, graded and laid over each other take half a second or more."""
_WORKED_AT = 720  # pixels, the longer side that photographs are brought to
_LARGE, _SMALL = 360, 170  # pixels of each of the four pictures, in the file and in the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What became of the first and the last photograph of an eye.

    picture: a JPEG file, earlier and later photograph and their maps in a row, None where they could not be laid over
    each other, for the reason in `words`; small: the same for a page.
    """

    timeline: Timeline
    words: str
    picture: bytes | None = None
    small: bytes | None = None

    @property
    def later(self) -> TimelinePoint:
        """The visit at which the eye is shown as it is."""
        return self.timeline.points[-1]


def compare(
    timelines: Iterable[Timeline],
    *,
    sources: Mapping[str, Input],
    grader: Grader,
    heat: bool = True,
    jobs: int = 1,
    most: int = COMPARED,
    stop: Stop | None = None,
    progress: RunProgress | None = None,
) -> list[Comparison]:
    """Lay the first and the last photograph of each eye over each other, of at most `most` eyes, the urgent ones first.

    timelines: of eyes of which some have more than one visit. sources: the inputs by the paths of their rows. heat:
    whether to add the maps. jobs: pairs at work at once. stop: ends it early, with those that are done.
    """
    several = [timeline for timeline in timelines if len(timeline.points) > 1]
    chosen = list(islice(sorted(several, key=_urgency), most))
    stop, progress = stop or Stop(), progress or RunProgress()

    def one(timeline: Timeline) -> Comparison | None:
        return None if stop.asked else _compare(timeline, sources, grader, heat=heat)

    if not chosen:
        return []
    with ThreadPoolExecutor(min(jobs, len(chosen)), thread_name_prefix="retigrade-compare") as pool:
        done = progress.track(pool.map(one, chosen), "comparing visits", total=len(chosen))
        return [comparison for comparison in done if comparison is not None]


def _urgency(timeline: Timeline) -> tuple[int, float]:
    order = {Direction.WORSE: 0, Direction.BETTER: 1}
    return 2 if timeline.direction is None else order.get(timeline.direction, 2), -timeline.points[-1].p_referable


def _compare(timeline: Timeline, sources: Mapping[str, Input], grader: Grader, *, heat: bool) -> Comparison:
    points = timeline.points[0], timeline.points[-1]
    days = " and ".join(point.date.isoformat() for point in points)
    try:
        photos = [_read(point, sources) for point in points]
    except (PhotoError, MemoryError) as error:
        why = str(error) or "not enough memory"
        return Comparison(timeline=timeline, words=f"the photographs of {days} could not be compared: {why}")
    moving, fixed = (fitted(photo.pixels, _WORKED_AT) for photo in photos)
    found = register(moving, fixed)
    if found is None:
        return Comparison(
            timeline=timeline,
            words=f"the photographs of {days} could not be laid over each other: too little in common",
        )
    pictures = [found.align(moving, width=fixed.shape[1], height=fixed.shape[0]), fixed]
    titles = [f"{point.date}: {GRADES[point.grade].stage}" for point in points]
    if heat:
        pictures += _maps(photos, (moving, fixed), found, grader)
        titles += ["thermal map, then", "thermal map, now"][: len(pictures) - 2]
    return Comparison(
        timeline=timeline,
        words=f"the photographs of {days}, the first laid over the second ({found.landmarks} landmarks agree)",
        picture=as_jpeg(strip(pictures, titles, side=_LARGE)),
        small=as_jpeg(strip(pictures, titles, side=_SMALL)),
    )


def _read(point: TimelinePoint, sources: Mapping[str, Input]) -> Photo:
    photo = sources[point.row.path].read(min_side=SIDE)
    if photo.sha256 != point.row.sha256:
        raise UnreadablePhoto(f"{point.row.path} has changed since it was graded")
    return photo


def _maps(
    photos: Sequence[Photo], small: tuple[Pixels, Pixels], found: Registration, grader: Grader
) -> tuple[Pixels, ...]:
    """Return both maps over their photographs, the earlier one laid over the later; nothing where one has none."""
    views = []
    for photo, pixels in zip(photos, small, strict=True):
        heatmap = grader.grade_photo(photo).heatmap
        if heatmap is None:
            return ()
        views.append(thermal(pixels, heatmap.in_frame(pixels.shape[1], pixels.shape[0])))
    earlier, later = views
    return found.align(earlier, width=later.shape[1], height=later.shape[0]), np.ascontiguousarray(later)
