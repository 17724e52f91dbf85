"""Content items of a structured report, encoded (PS3.3, C.17.3)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from pydicom.valuerep import format_number_as_ds

from retigrade.dicom.encoding import Value, element, elements, sequence

Relationship = Literal["CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"]
_DECIMALS = 16  # characters of a decimal string


class Code(NamedTuple):
    """A coded concept: its value, the scheme that the value is of, and what it means."""

    value: str
    scheme: str
    meaning: str


def content(items: Iterable[bytes]) -> bytes:
    """Return Content Sequence, the last element of a report and of an item, with these items."""
    return sequence("ContentSequence", items)


def container(name: Code, items: Iterable[bytes], *, template: str) -> bytes:
    """Return a heading with the items below it; template: the number of the one in PS3.16 that it follows, or ""."""
    return _head("CONTAINS", "CONTAINER", name) + heading(template) + content(items)


def heading(template: str) -> bytes:
    """Return what a container says of itself: that its items belong together, and the template that it follows."""
    values: dict[str, Value] = {"ContinuityOfContent": "CONTINUOUS"}
    if template:
        values["ContentTemplateSequence"] = [elements({"MappingResource": "DCMR", "TemplateIdentifier": template})]
    return elements(values)


@lru_cache(maxsize=256)
def code(relationship: Relationship, name: Code, value: Code, items: tuple[bytes, ...] = ()) -> bytes:
    """Return a concept as the value of a named one, with what modifies it."""
    below = content(items) if items else b""
    return _head(relationship, "CODE", name) + sequence("ConceptCodeSequence", [coded(value)]) + below


def number(relationship: Relationship, name: Code, value: float, unit: Code) -> bytes:
    """Return a number with its unit: in decimals of at most 16 characters, and a float also in double precision."""
    written = str(value) if len(str(value)) <= _DECIMALS else format_number_as_ds(float(value))
    exact = element("FloatingPointValue", value) if isinstance(value, float) else b""
    measured = b"".join((_units(unit), exact, element("NumericValue", written)))
    return _head(relationship, "NUM", name) + sequence("MeasuredValueSequence", [measured])


def text(relationship: Relationship, name: Code, value: str) -> bytes:
    """Return a named text."""
    return _head(relationship, "TEXT", name) + element("TextValue", value)


def uid(relationship: Relationship, name: Code, value: str) -> bytes:
    """Return a named unique identifier."""
    return _head(relationship, "UIDREF", name) + element("UID", value)


def image(name: Code, reference: bytes, items: Iterable[bytes] = ()) -> bytes:
    """Return a named `reference` to an image, with what is said of it."""
    below = tuple(items)
    return b"".join(
        (
            sequence("ReferencedSOPSequence", [reference]),
            _head("CONTAINS", "IMAGE", name),
            content(below) if below else b"",
        )
    )


@lru_cache(maxsize=64)
def coded(concept: Code) -> bytes:
    """Return a concept as the item of a code sequence."""
    return elements(
        {"CodeValue": concept.value, "CodingSchemeDesignator": concept.scheme, "CodeMeaning": concept.meaning}
    )


@lru_cache(maxsize=256)
def _head(relationship: Relationship, value_type: str, name: Code) -> bytes:
    """What every item begins with: its relationship to the one above, its kind and its name."""
    return elements(
        {"RelationshipType": relationship, "ValueType": value_type, "ConceptNameCodeSequence": [coded(name)]}
    )


@lru_cache(maxsize=16)
def _units(unit: Code) -> bytes:
    return sequence("MeasurementUnitsCodeSequence", [coded(unit)])
