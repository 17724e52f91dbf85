"""DICOM files as inputs: one a frame, each knowing whose eye it shows, how it is read, and where it belongs."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.dataset import FileDataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from retigrade.dicom.dataset import hushed, items_of, read_dataset, text_of
from retigrade.dicom.header import DicomHeader, read_header
from retigrade.dicom.pixels import decode_frame
from retigrade.errors import PhotoError, UnreadablePhoto
from retigrade.fundus.decode import Photo, read_file
from retigrade.inputs import Input
from retigrade.text import shown

_DIRECTORY_BYTES = 64 * 2**20
_IMAGE = "IMAGE"


@dataclass(slots=True)
class Loaded:
    """A file that is kept in memory: its data set with pixels, its digest, and the frame that was decoded last.

    photo: that frame, its number, and the `min_side` that it was decoded for.
    """

    dataset: FileDataset
    sha256: str
    photo: tuple[Photo, int, int | None] | None = None

    def read(self, frame: int, *, name: str, min_side: int | None) -> Photo:
        """Decode a frame, unless the last one decoded has the pixels that it would get, or more.

        So grade before you draw: a frame decoded for a larger picture would be graded at another scale than its file.
        """
        if self.photo is not None:
            photo, number, side = self.photo
            # Decoded for less, yet large enough: at the same scale, since that is the smallest which serves.
            large = None if side is None else max(side, min(photo.pixels.shape[:2]))
            enough = min_side is not None and large is not None and min_side <= large
            if number == frame and (side == min_side or enough):
                return photo
        photo = decode_frame(self.dataset, frame, name=name, sha256=self.sha256, min_side=min_side)
        self.photo = photo, frame, min_side
        return photo


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Reads one frame of a DICOM file, counted from 1.

    header: as it was when the file was listed. loaded: the file itself, where it is kept.
    """

    frame: int
    header: DicomHeader
    loaded: Loaded | None = field(default=None, compare=False, repr=False)

    def __call__(self, path: Path, *, min_side: int | None = None) -> Photo:
        """Decode the frame; raises UnreadablePhoto, or NotAFundus where the header says that it shows no fundus."""
        if self.loaded is not None:
            return self.loaded.read(self.frame, name=shown(path.name), min_side=min_side)
        data = read_file(path)
        dataset = read_dataset(io.BytesIO(data), name=path.name, pixels=True)
        with hushed():
            header = read_header(dataset, path=path)
        if self.frame > header.frames or header.sop_instance != self.header.sop_instance:
            raise UnreadablePhoto(f"{shown(path.name)}: it has changed since it was listed")
        digest = hashlib.sha256(data).hexdigest()
        return decode_frame(dataset, self.frame, name=shown(path.name), sha256=digest, min_side=min_side)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Says once more, in its place among the inputs, why a file was refused when it was listed."""

    error: PhotoError

    def __call__(self, path: Path, *, min_side: int | None = None) -> Photo:
        raise type(self.error)(*self.error.args)


def list_dicom(path: Path, name: str, *, keep: bool = False, nested: bool = False) -> Iterator[Input]:
    """List the photographs of one DICOM file: one input a frame, or those that a DICOMDIR names.

    A file that cannot be used is one input, which says so when it is read; see `retigrade.inputs.ListDicom`. keep:
    whether the inputs hold the file, so that it is read only once; for the few that are graded at once. nested: whether
    a directory is refused, as where another one names it, which may be itself.
    """
    loaded: Loaded | None = None
    try:
        if keep:
            data = read_file(path)
            dataset = read_dataset(io.BytesIO(data), name=path.name, pixels=True)
            loaded = Loaded(dataset, hashlib.sha256(data).hexdigest())
        else:
            dataset = _listed(path)
        if dataset.SOPClassUID == MediaStorageDirectoryStorage:
            if nested:
                raise UnreadablePhoto(f"{shown(path.name)}: a DICOM directory where a picture should be")
            yield from _directory(dataset, path)
            return
        with hushed():
            header = read_header(dataset, path=path)
    except PhotoError as error:
        yield Input(path, name, reader=_Refusal(error))
        return
    except Exception as error:  # values of kinds that no header has: pydicom hands on whatever stands there
        reason = f"{shown(path.name)}: the DICOM header is damaged ({type(error).__name__}: {error})"
        yield Input(path, name, reader=_Refusal(UnreadablePhoto(shown(reason))))
        return
    for frame in range(1, header.frames + 1):
        several = header.frames > 1
        yield Input(
            path,
            f"{name}#{frame}" if several else name,
            frame=frame if several else None,
            reader=FrameReader(frame, header, loaded),
            subject=header.subject,
            acquisition=header.acquisition,
            study=header.study,
            warnings=header.warnings,
        )


def header_of(item: Input) -> DicomHeader | None:
    """Return the header of an input that is a DICOM photograph; None for any other."""
    return item.reader.header if isinstance(item.reader, FrameReader) else None


def dataset_of(item: Input) -> FileDataset:
    """Return the data set of an input that is a DICOM photograph, with or without pixels; raises UnreadablePhoto."""
    if isinstance(item.reader, FrameReader) and item.reader.loaded is not None:
        return item.reader.loaded.dataset
    return _listed(item.path)


def check_studies(items: Iterable[Input]) -> tuple[Input, ...]:
    """Mark the photographs of a study that names two patients: whose they are is not known, and each says so."""
    items = tuple(items)
    patients: dict[UID, set[str | None]] = defaultdict(set)
    for item in items:
        if (header := header_of(item)) is not None and header.study is not None:
            patients[header.study].add(header.subject.patient)
    return tuple(_unowned(item) if _is_shared(item, patients) else item for item in items)


def _is_shared(item: Input, patients: dict[UID, set[str | None]]) -> bool:
    header = header_of(item)
    return header is not None and header.study is not None and len(patients[header.study]) > 1


def _unowned(item: Input) -> Input:
    warning = "patient unknown: other files of its study name another patient"
    return replace(item, subject=replace(item.subject, patient=None), warnings=(*item.warnings, warning))


def _listed(path: Path) -> FileDataset:
    try:
        with path.open("rb") as file:
            return read_dataset(file, name=path.name, pixels=False)
    except OSError as problem:
        raise UnreadablePhoto(f"{shown(path.name)}: cannot be opened ({problem.strerror})") from None


def _directory(dataset: FileDataset, path: Path) -> Iterator[Input]:
    """List the images that a DICOMDIR names (PS3.3, F.5); a name that leads out of its folder is refused."""
    with hushed():
        records = items_of(dataset, "DirectoryRecordSequence", limit=_DIRECTORY_BYTES)
        named = [
            record.get("ReferencedFileID") for record in records if text_of(record, "DirectoryRecordType") == _IMAGE
        ]
    for parts in named:
        names = [str(part) for part in ([parts] if isinstance(parts, str) else parts or [])]
        if not names or any(part in ("", ".", "..") or "/" in part or "\\" in part for part in names):
            refusal = UnreadablePhoto(f"{shown(path.name)}: it names a file outside its own folder")
            yield Input(path, path.name, reader=_Refusal(refusal))
        else:
            yield from list_dicom(path.parent.joinpath(*names), "/".join(names), nested=True)
