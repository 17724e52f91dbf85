"""The bundle: one ONNX file that holds everything between pixels and grade.

The file is an ONNX model followed by two more entries of its metadata (ModelProto.metadata_props, field 14): the card
as JSON under `retigrade`, and last, under `retigrade_sha256`, the digest of every byte before it. A protocol buffer
may be continued so, and any ONNX program still reads the file. This is integrity, not proof of origin: it catches a
download cut short, a flipped byte and an edited card, not a forger.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped]

from retigrade.arrays import Floats
from retigrade.errors import BundleError
from retigrade.fundus.field import FIELD_VERSION
from retigrade.icdr import GRADES
from retigrade.metadata import Metadata

CARD_KEY = b"retigrade"
SEAL_KEY = b"retigrade_sha256"
SHIPPED = "retigrade-mobilenetv2.onnx"

_METADATA = 14  # the number of ModelProto.metadata_props
_BYTES = 2  # the wire type of texts, byte strings and messages
_DIGEST_CHARACTERS = 64
_LARGEST = 2**31 - 1  # bytes; a protocol buffer ends there
_DRIFT = 1e-3  # by which the mean of a map may differ from its logit, relative to the largest logit


class Outputs(NamedTuple):
    """What the network says of N photos.

    logits: float32 (N, 5). maps: float32 (N, 5, s, s); their mean over the last two axes is the logits.
    features: float32 (N, C).
    """

    logits: Floats
    maps: Floats
    features: Floats


def reseal(model: bytes, metadata: Metadata) -> bytes:
    """Return the bytes of a sealed bundle: the network of `model`, an ONNX file or a bundle, with this card.

    Raises BundleError if `model` is not a protocol buffer.
    """
    return seal(strip(model) + _entry(CARD_KEY, metadata.model_dump_json().encode()))


def seal(body: bytes) -> bytes:
    """Return `body` followed by its seal."""
    return body + _entry(SEAL_KEY, hashlib.sha256(body).hexdigest().encode())


def strip(data: bytes) -> bytes:
    """Return the ONNX file that a bundle was made of, byte for byte, without card and seal.

    Raises BundleError if `data` is not a protocol buffer.
    """
    return b"".join(data[part.start : part.end] for part in _parts(data) if part.key not in (CARD_KEY, SEAL_KEY))


def read_metadata(data: bytes) -> Metadata:
    """Check the seal of a bundle's bytes and return its card.

    Raises BundleError if a byte is missing or altered, or the card is absent, invalid or of another schema.
    """
    seal_length = len(_entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS))
    body, ending = data[:-seal_length], data[-seal_length:]
    if not ending.startswith(_entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS)[:-_DIGEST_CHARACTERS]):
        raise BundleError("it does not end in the seal of a bundle: it was cut short, or is not a bundle; get it again")
    if ending != seal(body)[len(body) :]:
        raise BundleError("its bytes do not match its seal: it was altered or damaged; get it again")
    cards = [part.value for part in _parts(body) if part.key == CARD_KEY]
    if len(cards) != 1:
        raise BundleError(f"it holds {len(cards)} cards and needs one; make the bundle again")
    return Metadata.read(cards[0])


def shipped_bundle() -> Path:
    """Return the path of the bundle inside the package; BundleError if this installation has none."""
    path = Path(str(resources.files("retigrade"))) / "bundles" / SHIPPED
    if not path.is_file():
        raise BundleError(f"no bundle is shipped at {path}: install retigrade again, or name one with --bundle FILE")
    return path


@dataclass(frozen=True, eq=False, repr=False)
class Bundle:
    """A checked bundle, ready to run; safe to share between threads.

    identity: the bundle's name and the first 12 digits of its file's SHA-256.
    """

    metadata: Metadata
    identity: str
    session: ort.InferenceSession

    def __repr__(self) -> str:
        return f"<Bundle {self.identity}>"

    @classmethod
    def load(cls, path: Path, *, threads: int | None = None) -> Self:
        """Read a bundle once, check it whole, and make it ready to run with `threads` threads (None: every core).

        Raises BundleError if it is missing, cut short, altered, or does not fit this program.
        """
        try:
            data = _read(path)
            metadata = read_metadata(data)
            if metadata.field_version != FIELD_VERSION:
                raise BundleError(
                    f"it learned on field geometry {metadata.field_version} and this program makes {FIELD_VERSION}: "
                    "train it again, or install the version of retigrade that made it"
                )
            session = _open(data, threads=threads or cpu_count())
            _check_signature(session, metadata)
            bundle = cls(metadata, f"{metadata.name}@{hashlib.sha256(data).hexdigest()[:12]}", session)
            bundle._check_answers()
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        return bundle

    def run(self, photos: npt.NDArray[np.uint8]) -> Outputs:
        """Run the network; photos: uint8 (N, S, S, 3), RGB, the canonical field as `crop` makes it."""
        side = self.metadata.input_size
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (side, side, 3):
            raise ValueError(f"photos must be uint8 (N, {side}, {side}, 3), got {photos.dtype} {photos.shape}")
        return Outputs(*self.session.run(list(Outputs._fields), {"photo": photos}))

    def _check_answers(self) -> None:
        """Run one grey square: the maps must average to the logits, or the heat would show something else."""
        side = self.metadata.input_size
        logits, maps, features = self.run(np.full((1, side, side, 3), 128, np.uint8))
        if not all(np.isfinite(values).all() for values in (logits, maps, features)):
            raise BundleError("its network answers with numbers that are not finite; export it again")
        drift = float(np.abs(maps.mean(axis=(2, 3)) - logits).max())
        if drift > _DRIFT * max(1.0, float(np.abs(logits).max())):
            raise BundleError(f"its maps do not average to its logits (they differ by {drift:.3g}); export it again")


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise BundleError("there is no such file; name a bundle with --bundle FILE, or leave that out")
        if not path.is_file():
            raise BundleError("it is not a file; name a bundle's .onnx file")
        if (size := path.stat().st_size) > _LARGEST:
            raise BundleError(f"it has {size} bytes, more than any bundle; name a bundle's .onnx file")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"it cannot be read: {error.strerror}") from error


def cpu_count() -> int:
    """Return how many cores this process may use; given no number, ONNX Runtime would pin its threads to cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open(data: bytes, *, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Threads that wait by spinning take the cores from those that decode the next photographs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no other base
        raise BundleError(f"ONNX Runtime cannot load its network: {str(error).splitlines()[0]}") from error


def _check_signature(session: ort.InferenceSession, metadata: Metadata) -> None:
    """Compare the network's inputs and outputs with the contract; any name of a free size stands for N."""
    side = metadata.input_size
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape) for node in session.get_outputs()}
    if list(inputs) != ["photo"] or sorted(outputs) != sorted(Outputs._fields):
        raise BundleError(
            f"its network maps {', '.join(inputs)} to {', '.join(outputs)}, "
            f"and must map photo to {', '.join(Outputs._fields)}; export it again"
        )
    _check_shape("photo", inputs["photo"], "tensor(uint8)", (side, side, 3))
    _check_shape("logits", outputs["logits"], "tensor(float)", (len(GRADES),))
    cells = outputs["maps"][1][-1:]
    _check_shape("maps", outputs["maps"], "tensor(float)", (len(GRADES), *cells, *cells))
    channels = (
        outputs["features"][1][-1:] if metadata.out_of_distribution is None else [metadata.out_of_distribution.channels]
    )
    _check_shape("features", outputs["features"], "tensor(float)", tuple(channels))


def _check_shape(name: str, found: tuple[str, list[Any]], kind: str, sizes: tuple[Any, ...]) -> None:
    """Raise BundleError unless a tensor is of this kind and shape (N, *sizes) with N free and sizes fixed."""
    found_kind, found_shape = found
    batch, *rest = found_shape or [0]
    if found_kind != kind or isinstance(batch, int) or tuple(rest) != sizes or not all(map(_is_size, rest)):
        wanted = ", ".join(str(size) if _is_size(size) else "a fixed size" for size in sizes)
        raise BundleError(f"its {name} is {found_kind} {found_shape} and must be {kind} [N, {wanted}]; export it again")


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and size > 0


class _Part(NamedTuple):
    """One field of a protocol buffer, data[start:end]; key and value where it is an entry of the metadata."""

    start: int
    end: int
    key: bytes | None = None
    value: bytes = b""


def _parts(data: bytes) -> Iterator[_Part]:
    """Walk over a ModelProto's own fields, without looking into them (protobuf.dev/programming-guides/encoding)."""
    start = 0
    while start < len(data):
        number, wire, body, end = _field(data, start)
        if number == _METADATA and wire == _BYTES:
            pair = _strings(data[body:end])
            yield _Part(start, end, pair.get(1), pair.get(2, b""))
        else:
            yield _Part(start, end)
        start = end


def _strings(data: bytes) -> dict[int, bytes]:
    """Return the byte strings of one message by field number: 1 the key and 2 the value of a metadata entry."""
    found, start = {}, 0
    while start < len(data):
        number, wire, body, end = _field(data, start)
        if wire == _BYTES:
            found[number] = data[body:end]
        start = end
    return found


def _field(data: bytes, start: int) -> tuple[int, int, int, int]:
    """Return number, wire type, where the content starts and where the field ends, of the field at `start`."""
    tag, body = _varint(data, start)
    number, wire = tag >> 3, tag & 7
    match wire:
        case 0:  # a number
            end = _varint(data, body)[1]
        case 1:  # eight bytes
            end = body + 8
        case 2:  # _BYTES
            length, body = _varint(data, body)
            end = body + length
        case 5:  # four bytes
            end = body + 4
        case _:
            raise BundleError("its bytes are not an ONNX file; get it again")
    if end > len(data) or number == 0:
        raise BundleError("its bytes are not an ONNX file; get it again")
    return number, wire, body, end


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return the number at `start`, seven bits a byte from the lowest, and where it ends."""
    value = 0
    for place, byte in enumerate(data[start : start + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, start + place + 1
    raise BundleError("its bytes are not an ONNX file; get it again")


def _packed(number: int) -> bytes:
    """Return a number as `_varint` reads it."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _entry(key: bytes, value: bytes) -> bytes:
    """Return one metadata entry as a field of ModelProto."""
    pair = b"".join(
        bytes([number << 3 | _BYTES]) + _packed(len(text)) + text for number, text in ((1, key), (2, value))
    )
    return bytes([_METADATA << 3 | _BYTES]) + _packed(len(pair)) + pair
