"""Identifiers that follow from what they name, so that a second run makes the same and not a double."""

from __future__ import annotations

import uuid

from pydicom.uid import UID

_NAMESPACE = uuid.UUID("6f6b4a0e-5d3c-5b1c-9d0a-0c3f6d3a9b11")


def derived_uid(*parts: object) -> UID:
    """Return the UID that these parts make: always the same, and under no registered root (PS3.5, B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(map(str, parts))).int}")
