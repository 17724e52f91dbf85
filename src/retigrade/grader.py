"""A photo to its grading, through a bundle."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union, cast

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Pixels
from retigrade.bundle import Bundle, Device, Outputs, bundle_file
from retigrade.errors import BundleError, NotAFundus, SeveralEyes, UnreadablePhoto, UsageError
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import MAX_BYTES, Photo, decode, decode_bytes
from retigrade.fundus.field import Field, find_field
from retigrade.fundus.quality import Quality, assess
from retigrade.grading import Grading
from retigrade.heatmap import make_heatmap
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.metadata import OutOfDistributionDetector
from retigrade.metrics.decision import needs_second_reader
from retigrade.text import shown

if TYPE_CHECKING:
    from PIL.Image import Image

LOW_CONFIDENCE = "low confidence: a second reader is advised"

_AHEAD = 2  # photos waiting for each thread, so that none idles while a slow one holds up the order
_UPLOAD, _PIXELS = "(bytes)", "(pixels)"  # the path of a photo that came without one
_PIL_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})  # those of 8 bits or fewer
_logger = logging.getLogger(__name__)

Source = Union[str, "os.PathLike[str]", bytes, BinaryIO, Input, "npt.NDArray[np.uint8]", "Image"]
"""A photo: its path, the bytes of its file, a binary file to read, an input that knows how it is read, an array of
pixels, uint8 (h, w, 3) RGB and upright, or a PIL image."""


def load(
    bundle: Path | str | None = None,
    *,
    threads: int | None = None,
    operating_point: str | None = None,
    device: Device = "cpu",
) -> Grader:
    """Return a grader with this bundle, a file or "thorough", or with the one shipped in the package.

    threads: of one network run; None takes every core. operating_point: the name of the one that says from where a
    photo is referable; None takes the bundle's default. device: see `Bundle.load`. Raises BundleError if the bundle is
    missing or does not fit, UsageError if it has no such operating point or ONNX Runtime cannot run on the device.
    """
    return Grader(Bundle.load(bundle_file(bundle), threads=threads, device=device), operating_point=operating_point)


@dataclass(frozen=True, eq=False, repr=False)
class Grader:
    """Grades photographs with one bundle; safe to share between threads."""

    bundle: Bundle
    operating_point: str | None = None

    def __repr__(self) -> str:
        point = "" if self.operating_point is None else f", operating point {self.operating_point!r}"
        return f"<Grader {self.bundle.identity}{point}>"

    def __post_init__(self) -> None:
        self.bundle.metadata.threshold(self.operating_point)  # an unknown name must not wait for the first photo

    def grade(self, source: Source, *, heat: bool = True) -> Grading:
        """Return the verdict on one photo.

        source: see `Source`; the digest of an array or a PIL image is that of its pixels' bytes, else of the file's. A
        file that is no usable photo gets a verdict too, and raises nothing. heat: whether to keep the thermal map.

        Raises UsageError where an array or image is of another kind, TypeError where the source is none of these,
        BundleError where the network fails on the photo.
        """
        started = time.perf_counter()
        try:
            photo = _decode(source, min_side=decode_side(self.bundle.metadata.input_size))
        except UnreadablePhoto as error:
            grading = self._refuse(_name(source), Status.ERROR, str(error))
        except NotAFundus as error:
            grading = self._refuse(_name(source), Status.NOT_FUNDUS, str(error))
        else:
            grading = self._verdict(photo, _name(source), heat=heat)
        return replace(_about(grading, source), seconds=time.perf_counter() - started)

    def grade_photo(self, photo: Photo, *, path: str = _PIXELS, heat: bool = True) -> Grading:
        """Return the verdict on a decoded photo, the same as `grade` gives its file; `path` is what it goes by."""
        started = time.perf_counter()
        grading = self._verdict(photo, path, heat=heat)
        return replace(grading, seconds=time.perf_counter() - started)

    def grade_many(self, sources: Iterable[Source], *, jobs: int = 1, heat: bool = True) -> Iterator[Grading]:
        """Yield the verdict on each photo, in order, as it is ready.

        Sources are taken a few at a time, so they may have no end, and memory does not grow with their number. An
        internal error costs one photo its grade, not the others theirs. Closing the iterator ends its threads. jobs:
        photos at work at once. Raises UsageError if that is not positive, BundleError where the network fails.
        """
        if jobs < 1:
            raise UsageError(f"jobs must be 1 or more, got {jobs}")
        if jobs == 1:
            return (self._grade_or_report(source, heat=heat) for source in sources)
        return self._grade_ahead(iter(sources), jobs=jobs, heat=heat)

    def _grade_ahead(self, sources: Iterator[Source], *, jobs: int, heat: bool) -> Iterator[Grading]:
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="retigrade")
        waiting: deque[Future[Grading]] = deque()
        try:
            while True:
                for source in islice(sources, jobs * _AHEAD - len(waiting)):
                    waiting.append(pool.submit(self._grade_or_report, source, heat=heat))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _grade_or_report(self, source: Source, *, heat: bool) -> Grading:
        try:
            return self.grade(source, heat=heat)
        except BundleError:  # no other photo would fare better
            raise
        except UsageError as error:
            reason = str(error)
        except MemoryError:
            reason = "not enough memory to grade it: grade fewer at once"
        except Exception as error:  # ours, not the photo's; the others must not pay for it
            _logger.debug("grading %s failed", _name(source), exc_info=True)
            reason = f"internal error: {type(error).__name__}: {error}"
        return _about(self._refuse(_name(source), Status.ERROR, reason), source)

    def _verdict(self, photo: Photo, path: str, *, heat: bool) -> Grading:
        metadata = self.bundle.metadata
        try:
            field = find_field(photo)
        except SeveralEyes as error:
            return self._refuse(path, Status.UNGRADABLE, str(error), photo=photo)
        except NotAFundus as error:
            return self._refuse(path, Status.NOT_FUNDUS, str(error), photo=photo)
        canonical = crop(photo, field, size=metadata.input_size)
        quality = assess(canonical, field, metadata.quality)
        if quality.status is not Status.GRADED:
            return self._refuse(path, quality.status, *quality.reasons, photo=photo, quality=quality)
        outputs = self.bundle.run(canonical[None])
        if reason := _unlike_training(outputs.features, metadata.out_of_distribution):
            return self._refuse(path, Status.UNGRADABLE, reason, photo=photo, quality=quality)
        if (head := metadata.quality_head) is not None:
            quality = quality.judged(head.beyond(outputs.features, quality.reject))
            if quality.status is not Status.GRADED:
                return self._refuse(path, quality.status, *quality.reasons, photo=photo, quality=quality)
        return self._decide(path, photo, field, quality, outputs, heat=heat)

    def _decide(
        self, path: str, photo: Photo, field: Field, quality: Quality, outputs: Outputs, *, heat: bool
    ) -> Grading:
        metadata = self.bundle.metadata
        probabilities = metadata.probabilities(outputs.logits)[0]
        grade, p_referable, referable, why = metadata.decide(probabilities, operating_point=self.operating_point)
        doubtful = needs_second_reader(probabilities, limit=metadata.second_reader_spread)
        advice = (LOW_CONFIDENCE,) if doubtful else ()
        heatmap = make_heatmap(
            outputs.maps[0],
            probabilities,
            cam_maximum=metadata.cam_maximum,
            receptive_field_offset=metadata.receptive_field_offset,
            field=field,
            width=photo.width,
            height=photo.height,
        )
        return Grading(
            path=path,
            status=Status.GRADED,
            bundle=self.bundle.identity,
            seconds=0.0,
            grade=grade,
            probabilities=probabilities,
            p_referable=p_referable,
            referable=referable,
            prediction_set=None
            if metadata.conformal is None
            else metadata.conformal.prediction_set(probabilities, grade),
            quality=quality.score,
            reasons=(*quality.reasons, *why, *advice, *photo.notes),
            sha256=photo.sha256,
            heatmap=heatmap if heat else None,
        )

    def _refuse(
        self, path: str, status: Status, *reasons: str, photo: Photo | None = None, quality: Quality | None = None
    ) -> Grading:
        return Grading(
            path=path,
            status=status,
            bundle=self.bundle.identity,
            seconds=0.0,
            quality=None if quality is None or status is Status.NOT_FUNDUS else quality.score,  # of what is no eye
            reasons=reasons if photo is None else (*reasons, *photo.notes),
            sha256=None if photo is None else photo.sha256,
        )


def _about(grading: Grading, source: Source) -> Grading:
    """The grading with what an input says of itself."""
    if not isinstance(source, Input):
        return grading
    reasons = (*grading.reasons, *source.warnings)
    return replace(grading, subject=source.subject, acquisition=source.acquisition, reasons=reasons)


def _decode(source: Source, *, min_side: int) -> Photo:
    match source:
        case Input():
            return source.read(min_side=min_side)
        case str() | os.PathLike():
            return decode(Path(source), min_side=min_side)
        case bytes() | bytearray() | memoryview():
            return decode_bytes(bytes(source), name=_name(source), min_side=min_side)
        case np.ndarray():
            return _from_pixels(source)
    if hasattr(source, "getexif"):
        return _from_pixels(_pixels_of(cast("Image", source)))
    if not hasattr(source, "read"):
        raise TypeError(
            f"a photo is a path, bytes, a binary file, an array or a PIL image, got {type(source).__name__}"
        )
    try:
        data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadablePhoto(f"{shown(_name(source))}: cannot be read ({error.strerror or error})") from error
    if not isinstance(data, bytes):
        raise TypeError(f"a file must be opened in binary mode, this one gives {type(data).__name__}")
    return decode_bytes(data, name=_name(source), min_side=min_side)


def _from_pixels(pixels: npt.NDArray[Any]) -> Photo:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(f"an array must be uint8 (h, w, 3) RGB, got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    whole = np.ascontiguousarray(pixels)
    return Photo(pixels=whole, width=width, height=height, sha256=hashlib.sha256(whole.data).hexdigest())


def _pixels_of(image: Image) -> Pixels:
    """Return a PIL image's pixels as `decode` would: upright, RGB, transparency over black."""
    from PIL import Image, ImageOps

    if image.mode not in _PIL_MODES:
        raise UsageError(f"a PIL image of mode {image.mode} cannot be graded: convert it to RGB, scaled to 8 bits")
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError) as error:
        raise UnreadablePhoto(f"{shown(_name(image))}: cannot be decoded ({error})") from error
    if "A" in upright.mode or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
    return np.asarray(upright.convert("RGB"))


def _unlike_training(features: Floats, detector: OutOfDistributionDetector | None) -> str | None:
    """Return why a photo lies too far from those learned from, or None; features: float32 (1, C)."""
    if detector is None or (distance := float(detector.distance(features)[0])) <= detector.limit:
        return None
    return f"unlike the photographs that the network learned from (distance {distance:.3g}, limit {detector.limit:.3g})"


def _name(source: Source) -> str:
    """Return what a photo goes by: its path, as far as it has one."""
    if isinstance(source, str | os.PathLike | Input):
        return str(source)
    if isinstance(source, np.ndarray):
        return _PIXELS
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return name if isinstance(name, str) else _PIXELS if hasattr(source, "getexif") else _UPLOAD
