"""Content items of a structured report as bytes: explicit VR little endian, UTF-8 (PS3.3, C.17.3; PS3.5, 7).

A report is a tree of some 500 elements, nearly all of them the same in every report. Built and written element by
element it took longer than the grading that it reports; encoded here, and codes only once, it takes a millisecond.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from pydicom.valuerep import format_number_as_ds

Relationship = Literal["CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"]

_LONG = frozenset({"SQ", "UT"})  # value representations whose length takes four bytes
_CODE_VALUE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
_MAPPING_RESOURCE, _REFERENCED_IMAGES = 0x00080105, 0x00081199
_REFERENCED_CLASS, _REFERENCED_INSTANCE, _REFERENCED_FRAME = 0x00081150, 0x00081155, 0x00081160
_UNITS, _RELATIONSHIP, _VALUE_TYPE, _NAME = 0x004008EA, 0x0040A010, 0x0040A040, 0x0040A043
_CONTINUITY, _UID, _TEXT, _DOUBLE, _CODE, _MEASURED, _NUMBER = (
    0x0040A050, 0x0040A124, 0x0040A160, 0x0040A161, 0x0040A168, 0x0040A300, 0x0040A30A,
)  # fmt: skip
_TEMPLATE, _CONTENT, _TEMPLATE_ID = 0x0040A504, 0x0040A730, 0x0040DB00


class Code(NamedTuple):
    """A coded concept: its value, the scheme that the value is of, and what it means."""

    value: str
    scheme: str
    meaning: str


def content(items: Iterable[bytes]) -> bytes:
    """Return Content Sequence, the last element of a report, with these items."""
    return _sequence(_CONTENT, *items)


def container(name: Code, items: Iterable[bytes], *, template: str | None = None) -> bytes:
    """Return a heading with the items below it; template: the number of the one in PS3.16 that it follows."""
    parts = [_head("CONTAINS", "CONTAINER", name), _element(_CONTINUITY, "CS", "CONTINUOUS")]
    if template is not None:
        parts.append(
            _sequence(_TEMPLATE, _element(_MAPPING_RESOURCE, "CS", "DCMR") + _element(_TEMPLATE_ID, "CS", template))
        )
    return b"".join((*parts, content(items)))


@lru_cache(maxsize=256)
def code(relationship: Relationship, name: Code, value: Code, items: tuple[bytes, ...] = ()) -> bytes:
    """Return a concept as the value of a named one, with what modifies it."""
    below = content(items) if items else b""
    return _head(relationship, "CODE", name) + _sequence(_CODE, _coded(value)) + below


def number(relationship: Relationship, name: Code, value: float, unit: Code) -> bytes:
    """Return a number with its unit: in decimals of at most 16 characters, and a float also in double precision."""
    written = str(value) if len(str(value)) <= 16 else format_number_as_ds(float(value))
    exact = _framed(_DOUBLE, "FD", struct.pack("<d", value)) if isinstance(value, float) else b""
    measured = _units(unit) + exact + _element(_NUMBER, "DS", written)
    return _head(relationship, "NUM", name) + _sequence(_MEASURED, measured)


def text(relationship: Relationship, name: Code, value: str) -> bytes:
    """Return a named text."""
    return _head(relationship, "TEXT", name) + _element(_TEXT, "UT", value)


def uid(relationship: Relationship, name: Code, value: str) -> bytes:
    """Return a named unique identifier."""
    return _head(relationship, "UIDREF", name) + _element(_UID, "UI", value)


def image(
    name: Code, *, sop_class: str, sop_instance: str, frame: int | None = None, items: Iterable[bytes] = ()
) -> bytes:
    """Return a reference to an image, or to one of its frames, with what is said of it."""
    reference = _element(_REFERENCED_CLASS, "UI", sop_class) + _element(_REFERENCED_INSTANCE, "UI", sop_instance)
    if frame is not None:
        reference += _element(_REFERENCED_FRAME, "IS", str(frame))
    below = tuple(items)
    return b"".join(
        (
            _sequence(_REFERENCED_IMAGES, reference),
            _head("CONTAINS", "IMAGE", name),
            content(below) if below else b"",
        )
    )


@lru_cache(maxsize=256)
def _head(relationship: Relationship, value_type: str, name: Code) -> bytes:
    """What every item begins with: its relationship to the one above, its kind and its name."""
    return b"".join(
        (
            _element(_RELATIONSHIP, "CS", relationship),
            _element(_VALUE_TYPE, "CS", value_type),
            _sequence(_NAME, _coded(name)),
        )
    )


@lru_cache(maxsize=16)
def _units(unit: Code) -> bytes:
    return _sequence(_UNITS, _coded(unit))


def _coded(concept: Code) -> bytes:
    return b"".join(
        (
            _element(_CODE_VALUE, "SH", concept.value),
            _element(_SCHEME, "SH", concept.scheme),
            _element(_MEANING, "LO", concept.meaning),
        )
    )


def _sequence(tag: int, *items: bytes) -> bytes:
    body = b"".join(part for item in items for part in (struct.pack("<HHI", 0xFFFE, 0xE000, len(item)), item))
    return _framed(tag, "SQ", body)


def _element(tag: int, vr: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")  # a lone surrogate, of a name that is no Unicode, becomes "?"
    if len(data) % 2:
        data += b"\0" if vr == "UI" else b" "
    return _framed(tag, vr, data)


def _framed(tag: int, vr: str, data: bytes) -> bytes:
    form, reserved = ("<HH2sHI", (0,)) if vr in _LONG else ("<HH2sH", ())
    return struct.pack(form, tag >> 16, tag & 0xFFFF, vr.encode(), *reserved, len(data)) + data
