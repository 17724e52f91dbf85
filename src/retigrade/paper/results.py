"""A finished training on disk: written whole, read back and verified, so that a stopped run resumes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from retigrade.errors import UsageError
from retigrade.files import write_whole
from retigrade.icdr import GRADES
from retigrade.paper.trainer import CheckpointResult
from retigrade.training.progress import EpochResult

RESULT, ANSWERS = "result.json", "answers.npz"
_HISTORY = TypeAdapter(list[EpochResult])


class _ResultFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")

    identity: dict[str, str]
    history: list[dict[str, float]]
    epoch: int
    receptive_field_offset: tuple[float, float]


def write_result(result: CheckpointResult, folder: Path, *, identity: Mapping[str, str]) -> None:
    """Write what a training left; the record comes last, so a training is finished where there is one."""
    packed = io.BytesIO()
    np.savez(packed, logits=result.logits, maps=result.maps)
    write_whole(folder / ANSWERS, packed.getvalue())
    file = _ResultFile(
        identity=dict(identity),
        history=[asdict(epoch) for epoch in result.history],
        epoch=result.epoch,
        receptive_field_offset=result.receptive_field_offset,
    )
    write_whole(folder / RESULT, file.model_dump_json(indent=1).encode())


def read_result(folder: Path, *, identity: Mapping[str, str]) -> CheckpointResult | None:
    """Read a finished training back; None where there is none.

    Raises UsageError where it is damaged, or of other photographs, folds, config or weights.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        file = _ResultFile.model_validate_json(path.read_bytes())
        with np.load(io.BytesIO((folder / ANSWERS).read_bytes()), allow_pickle=False) as packed:
            logits, maps = packed["logits"], packed["maps"]
        history = _HISTORY.validate_python(file.history)
    except (OSError, ValidationError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{folder}: not a finished training that can be read; delete it to train again") from error
    for key, value in identity.items():
        stored = file.identity.get(key, "nothing")
        if stored != value:
            raise UsageError(
                f"{folder} was trained with another {key} ({_short(stored)}, this run has {_short(value)}); "
                "repeat that run's options, or name another folder with --out"
            )
    if logits.shape[1:] != (len(GRADES),):
        raise UsageError(f"{folder}: holds answers of the shape {logits.shape}; delete it to train again")
    return CheckpointResult(
        history=tuple(history),
        epoch=file.epoch,
        logits=logits,
        maps=maps,
        receptive_field_offset=file.receptive_field_offset,
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
