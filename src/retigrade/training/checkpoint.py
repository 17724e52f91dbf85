"""A training's state on disk: written whole, verified by its SHA-256 on return, and of one run alone."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retigrade.errors import UsageError
from retigrade.files import write_whole

CHECKPOINT = "checkpoint.pt"
_MAGIC = b"retigrade checkpoint 2\n"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size


def write_checkpoint(path: Path, state: Mapping[str, Any], *, identity: Mapping[str, str]) -> None:
    """Write `state`, plain values and tensors, in one step; what was there before stays until then.

    identity: what makes the run this one and no other, by name. Raises UsageError where the disk is full or the folder
    cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"identity": dict(identity), "state": dict(state)}, buffer)
    payload = buffer.getvalue()
    try:
        write_whole(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
    except UsageError as error:
        raise UsageError(f"{error}; the checkpoint before it is kept: make room, then go on with --resume") from error


def read_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> tuple[dict[str, str], dict[str, Any]]:
    """Return the identity and the state of a checkpoint.

    Raises UsageError where the file cannot be read, is of another version, or differs by one bit from what was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if not data.startswith(_MAGIC):
        raise UsageError(
            f"{path} is not a checkpoint of this version of retigrade; delete it to start again, or use another --out"
        )
    payload = data[_HEADER:]
    if hashlib.sha256(payload).digest() != data[len(_MAGIC) : _HEADER]:
        raise UsageError(f"the checkpoint {path} is damaged: its checksum differs; delete it to start again")
    held = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    return held["identity"], held["state"]


def check_identity(path: Path, found: Mapping[str, str], *, expected: Mapping[str, str]) -> None:
    """Raise UsageError, naming the first difference, where a checkpoint is of another run."""
    for key, value in expected.items():
        if found.get(key) != value:
            raise UsageError(
                f"{path} is of another {key}: {found.get(key)}, this run has {value}; repeat that run's options, or "
                "use another --out"
            )
