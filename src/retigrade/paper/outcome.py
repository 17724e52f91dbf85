"""A finished training on disk: written whole, read back and verified, so that a stopped run resumes."""

from __future__ import annotations

import io
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from retigrade.errors import UsageError
from retigrade.files import write_whole
from retigrade.icdr import GRADES
from retigrade.paper.trainer import Trained
from retigrade.training.progress import EpochResult

_RECORD, _ANSWERS = "outcome.json", "answers.npz"


_STRICT = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


class _Line(BaseModel):
    model_config = _STRICT

    epoch: int
    loss: float
    accuracy: float
    kappa: float
    seconds: float


class _Record(BaseModel):
    model_config = _STRICT

    identity: dict[str, str]
    history: list[_Line]
    epoch: int
    centre: tuple[float, float]


def write_outcome(trained: Trained, folder: Path, *, identity: dict[str, str]) -> None:
    """Write what a training left; the record comes last, so a training is finished where there is one."""
    packed = io.BytesIO()
    np.savez(packed, logits=trained.logits, maps=trained.maps)
    write_whole(folder / _ANSWERS, packed.getvalue())
    record = _Record(
        identity=identity,
        history=[_Line(**asdict(line)) for line in trained.history],
        epoch=trained.epoch,
        centre=trained.centre,
    )
    write_whole(folder / _RECORD, record.model_dump_json(indent=1).encode())


def read_outcome(folder: Path, *, identity: dict[str, str]) -> Trained | None:
    """Read a finished training back; None where there is none.

    Raises UsageError where it is damaged, or of other photographs, parts, settings or weights.
    """
    path = folder / _RECORD
    if not path.exists():
        return None
    try:
        record = _Record.model_validate_json(path.read_bytes())
        with np.load(io.BytesIO((folder / _ANSWERS).read_bytes()), allow_pickle=False) as packed:
            logits, maps = packed["logits"], packed["maps"]
    except (OSError, ValidationError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{folder}: not a finished training that can be read; delete it to train again") from error
    for key, own in identity.items():
        found = record.identity.get(key, "nothing")
        if found != own:
            raise UsageError(
                f"{folder} was trained with another {key} ({_short(found)}, this run has {_short(own)}); "
                "repeat that run's options, or name another folder with --out"
            )
    if logits.shape[1:] != (len(GRADES),):
        raise UsageError(f"{folder}: holds answers of the shape {logits.shape}; delete it to train again")
    history = tuple(EpochResult(**line.model_dump()) for line in record.history)
    return Trained(history=history, epoch=record.epoch, logits=logits, maps=maps, centre=record.centre)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
