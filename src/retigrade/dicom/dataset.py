"""The bytes of a DICOM file to a data set, within limits on what a hostile file can cost."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import MAX_BYTES
from retigrade.text import shown

_READS = 400_000  # calls of `read` on a header: some 100,000 elements, seconds; an honest one has hundreds
_SEQUENCE_BYTES = 2**20  # of a sequence that is looked into
# Groups that may stand behind the pixel data: its own, digital signatures, padding. An element has 8 bytes at least.
_AFTER_PIXELS, _SMALLEST_ELEMENT = frozenset({0x7FE0, 0xFFFA, 0xFFFC}), 8
_TEXT = 1024  # characters of one value that are kept
_SEVERAL = (list, pydicom.multival.MultiValue)
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "PN", "SH", "TM", "UI"})  # representations that are text
# Python's filters of warnings belong to the process: one thread at a time may change them.
_quiet = threading.Lock()
_in_thread = threading.local()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep pydicom's remarks on odd values off stderr: what matters of them, an error or a warning of ours says."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _in_thread.hushed = True
        try:
            yield
        finally:
            _in_thread.hushed = False


def _is_heard(record: logging.LogRecord) -> bool:
    return not getattr(_in_thread, "hushed", False)


# A filter, since a change of the level makes Python look up every logger's anew: the dearest part of reading a header.
logging.getLogger("pydicom").addFilter(_is_heard)


def read_dataset(file: BinaryIO, *, name: str, pixels: bool) -> FileDataset:
    """Parse one DICOM file, with or without preamble; `name` stands in the error, `pixels`: also read Pixel Data.

    A deflated data set is inflated, to at most `MAX_BYTES`, and stands as explicit VR little endian after that.
    Raises UnreadablePhoto: no DICOM, cut short within the header, nested too deeply, too many elements, too large.
    """
    try:
        with hushed():
            return _parse(_inflated(file), pixels=pixels)
    except InvalidDicomError:
        raise UnreadablePhoto(f"{shown(name)}: not a DICOM file") from None
    except RecursionError:
        raise UnreadablePhoto(f"{shown(name)}: its DICOM sequences are nested too deeply") from None
    except _Refused as refusal:
        raise UnreadablePhoto(f"{shown(name)}: {refusal}") from None
    except MemoryError:
        raise UnreadablePhoto(f"{shown(name)}: its DICOM elements need more memory than there is") from None
    except (
        Exception
    ) as problem:  # pydicom lets whatever goes wrong in a damaged file pass: struct, Key, Value, OS errors
        raise UnreadablePhoto(f"{shown(name)}: the DICOM header is damaged ({_first_line(problem)})") from None


class _Refused(Exception):
    """Finishes the sentence "scan.dcm: ..."."""


class _Counted:
    """A file that refuses to be read in too many pieces."""

    name = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise _Refused("its DICOM header declares more elements than any photograph needs")
        return self._file.read(size)


def _parse(file: BinaryIO, *, pixels: bool) -> FileDataset:
    dataset = pydicom.dcmread(_Counted(file), force=True, stop_before_pixels=not pixels)
    sop_class = text_of(dataset, "SOPClassUID")
    if sop_class is None:
        raise _Refused("not a DICOM file with an image: it names no SOP class")
    dataset.SOPClassUID = UID(sop_class, validation_mode=pydicom.config.IGNORE)  # of several values the first
    if "TransferSyntaxUID" not in dataset.file_meta:  # files without meta group: how pydicom found them encoded
        implicit, little = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax if little else pydicom.uid.ExplicitVRBigEndian
    elif not isinstance(dataset.file_meta.TransferSyntaxUID, UID):
        raise _Refused("its DICOM header names several transfer syntaxes")
    if pixels:
        _check_end(dataset, size=file.seek(0, io.SEEK_END))
    return dataset


def _check_end(dataset: FileDataset, *, size: int) -> None:
    """Refuse bytes behind the pixel data that are no elements: some were added before, and the picture is shifted."""
    raw: Any = dataset.get_item("PixelData") if "PixelData" in dataset else None
    if raw is None or getattr(raw, "length", None) in (None, 0xFFFFFFFF):
        return
    rest = size - raw.value_tell - raw.length
    tags = list(dataset.keys())  # in the order of the file
    after = tags[tags.index(raw.tag) + 1 :]
    known = all(tag.group in _AFTER_PIXELS or (tag.is_private and (tag.group << 16) + 0x10 in dataset) for tag in after)
    if 0 < rest < _SMALLEST_ELEMENT or not known:
        raise _Refused("it has bytes behind its pixel data that belong to nothing, copy the file again from its source")


def _inflated(file: BinaryIO) -> BinaryIO:
    """Return the file itself, or where its data set is deflated a file with the same, inflated as far as allowed."""
    start = file.tell()
    head = file.read(132)
    if head[128:] != b"DICM":
        file.seek(start)
        return file
    meta_start = file.tell()
    first = file.read(12)
    length = struct.unpack("<I", first[8:])[0] if first[:6] == b"\2\0\0\0UL" and len(first) == 12 else 0
    meta = file.read(min(length, 2**16))
    if DeflatedExplicitVRLittleEndian.encode() not in meta:
        file.seek(start)
        return file
    file.seek(meta_start + 12 + length)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(file.read(MAX_BYTES), MAX_BYTES)
    if inflater.unconsumed_tail:
        raise _Refused(f"its deflated data set is larger than the {MAX_BYTES // 2**20} MiB that are read")
    plain = ExplicitVRLittleEndian.encode()
    plain += b"\0" * (len(plain) % 2)
    syntax = b"\2\0\x10\0UI" + struct.pack("<H", len(plain)) + plain
    return io.BytesIO(head + b"\2\0\0\0UL\4\0" + struct.pack("<I", len(syntax)) + syntax + body)


def _first_line(problem: Exception) -> str:
    text = (str(problem) or type(problem).__name__).splitlines()[0]
    return text if len(text) <= 120 else text[:117] + "..."


def text_of(dataset: Dataset, keyword: str) -> str | None:
    """Return a value as one line of text, or None where it is absent, empty or unreadable."""
    try:
        value = _value_of(dataset, keyword)
        first = value[0] if isinstance(value, _SEVERAL) and len(value) else value
        text = "" if first is None else str(first)
    except Exception:  # a value that cannot be converted is as good as none
        return None
    return " ".join(_printable(text).split())[:_TEXT] or None


def identifier_of(dataset: Dataset, keyword: str) -> str | None:
    """Return an identifier as it stands, blanks within it too, or None where it is absent, empty or unreadable.

    Raises ValueError where it is several: nobody can say which of them is meant.
    """
    try:
        value = _value_of(dataset, keyword)
        values = list(value) if isinstance(value, _SEVERAL) else [value]
        text = "" if not values or values[0] is None else str(values[0])
    except Exception:
        return None
    if len(values) > 1 or "\\" in text:
        raise ValueError(f"{keyword} has several values")
    return _printable(text).strip()[:_TEXT] or None


def _value_of(dataset: Dataset, keyword: str) -> Any:
    """Return a value, plain text without what pads it; None where it is absent. Raises whatever pydicom does."""
    tag = _tag_of(keyword)
    raw: Any = dataset.get_item(tag) if tag in dataset else None
    if raw is None:
        return None
    text = _plain_text(raw)
    return dataset[tag].value if text is None else text


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def _plain_text(raw: Any) -> str | None:
    """Return a value that pydicom has not converted yet and that is plain text whatever the character set; else None.

    Most are; pydicom takes some 50 microseconds for each, for its checks of values that are kept here as they stand.
    """
    value = getattr(raw, "value", None)
    if type(value) is not bytes or getattr(raw, "VR", None) not in _PLAIN or not value.isascii():
        return None
    text = value.rstrip(b"\0 ").decode("ascii")
    return text if text.isprintable() and "\\" not in text else None  # no other value, no escape to other characters


@lru_cache(maxsize=256)
def _tag_of(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no element of DICOM's dictionary")
    return Tag(tag)


def number_of(dataset: Dataset, keyword: str) -> float | None:
    """Return a value as a finite number, or None where it is absent, empty or none."""
    try:
        number = float(text_of(dataset, keyword) or "nan")
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def integer_of(dataset: Dataset, keyword: str) -> int | None:
    """Return a value as a whole number, or None where it is absent, empty or none."""
    number = number_of(dataset, keyword)
    return None if number is None or number != int(number) else int(number)


def items_of(dataset: Dataset, keyword: str, *, limit: int = _SEQUENCE_BYTES) -> list[Dataset]:
    """Return the items of a sequence; none where it is absent, damaged or longer than `limit` bytes."""
    try:
        tag = _tag_of(keyword)
        raw: Any = dataset.get_item(tag) if tag in dataset else None
        if raw is None or (isinstance(getattr(raw, "value", None), bytes) and len(raw.value) > limit):
            return []
        value = dataset[tag].value
    except Exception:
        return []
    return list(value) if isinstance(value, Sequence) else []


def uid_of(dataset: Dataset, keyword: str) -> UID | None:
    """Return a unique identifier, or None where it is absent or not one (PS3.5, 9)."""
    text = text_of(dataset, keyword)
    uid = None if text is None else UID(text, validation_mode=pydicom.config.IGNORE)
    return uid if uid is not None and uid.is_valid else None
