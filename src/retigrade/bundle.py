"""The bundle: one ONNX file that holds everything between pixels and grade.

The file is an ONNX model followed by two more entries of its metadata (ModelProto.metadata_props, field 14): what the
bundle says of itself, as JSON under `retigrade`, and last, under `retigrade_sha256`, the digest of every byte before.
A protocol buffer may be continued so, and any ONNX program still reads the file. This is integrity, not proof of
origin: it catches a download cut short, a flipped byte and edited metadata, not a forger. What a forged network can do
is bounded by its operators, all of which end, and by the memory and time of a first run.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped]

from retigrade.arrays import Floats
from retigrade.errors import BundleError, UsageError
from retigrade.fundus.field import FIELD_VERSION
from retigrade.icdr import GRADES
from retigrade.metadata import Metadata
from retigrade.text import shown

METADATA_KEY = b"retigrade"
SEAL_KEY = b"retigrade_sha256"
SHIPPED = "retigrade-mobilenetv2.onnx"

# Field numbers of ModelProto and GraphProto (onnx.proto).
_GRAPH, _METADATA, _TRAINING, _FUNCTIONS = 7, 14, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_BYTES = 2  # the wire type of texts, byte strings and messages
_DIGEST_CHARACTERS = 64
_LARGEST = 2**31 - 1  # bytes; a protocol buffer ends there
_LARGEST_METADATA = 2**24
_CHECK_BYTES = 2**30  # that the first run may take beside the weights, and the seconds that it may last
_CHECK_SECONDS = 20.0
_LIMIT_LOCK = threading.Lock()  # the limit is the process's
_DRIFT = 1e-3  # by which the mean of a map may differ from its logit, relative to the largest logit


Device = Literal["cpu", "cuda", "openvino"]
"""What a network runs on."""

_PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_BUILDS = {"cuda": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}

_OPERATORS = """
    Abs Add And ArgMax ArgMin Cast CastLike Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mul Neg Not Or PRelu Pow Reciprocal
    Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor
    AveragePool Conv ConvTranspose GlobalAveragePool GlobalMaxPool GridSample LpPool MaxPool
    BatchNormalization GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization
    MeanVarianceNormalization RMSNormalization
    Attention Einsum Gemm LogSoftmax MatMul Softmax
    CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare TopK
    Concat Constant ConstantOfShape DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Pad Range Reshape
    Resize ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Upsample
    DequantizeLinear DynamicQuantizeLinear QuantizeLinear
"""
OPERATORS = frozenset(_OPERATORS.split())
"""The operators that a bundle's network may use (onnx.ai/onnx/operators): each ends, and none reads a file."""


class Outputs(NamedTuple):
    """What the network says of N photos.

    logits: float32 (N, 5). maps: float32 (N, 5, s, s); their mean over the last two axes is the logits.
    features: float32 (N, C).
    """

    logits: Floats
    maps: Floats
    features: Floats


def reseal(model: bytes, metadata: Metadata) -> bytes:
    """Return the bytes of a sealed bundle: the network of `model`, an ONNX file or a bundle, with this metadata.

    Raises BundleError if `model` is not a protocol buffer.
    """
    return seal(strip(model) + _entry(METADATA_KEY, metadata.model_dump_json().encode()))


def seal(body: bytes) -> bytes:
    """Return `body` followed by its seal."""
    return body + _entry(SEAL_KEY, hashlib.sha256(body).hexdigest().encode())


def strip(data: bytes) -> bytes:
    """Return the ONNX file that a bundle was made of, byte for byte, without metadata and seal.

    Raises BundleError if `data` is not a protocol buffer.
    """
    return b"".join(data[part.start : part.end] for part in _parts(data) if part.key not in (METADATA_KEY, SEAL_KEY))


def read_metadata(data: bytes) -> Metadata:
    """Check the seal of a bundle's bytes and return its metadata.

    Raises BundleError if a byte is missing or altered, or the metadata is absent, invalid or of another schema.
    """
    seal_length = len(_entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS))
    body, ending = data[:-seal_length], data[-seal_length:]
    if not ending.startswith(_entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS)[:-_DIGEST_CHARACTERS]):
        raise BundleError("it does not end in the seal of a bundle: it was cut short, or is not a bundle; get it again")
    if ending != seal(body)[len(body) :]:
        raise BundleError("its bytes do not match its seal: it was altered or damaged; get it again")
    entries = [part.value for part in _parts(body) if part.key == METADATA_KEY]
    if len(entries) != 1:
        raise BundleError(f"it has {len(entries)} entries of metadata and needs one; make the bundle again")
    if len(entries[0]) > _LARGEST_METADATA:
        raise BundleError(f"its metadata has {len(entries[0])} bytes, more than any bundle's; make the bundle again")
    return Metadata.read(entries[0])


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
    def load(cls, path: Path, *, threads: int | None = None, device: Device = "cpu") -> Self:
        """Read a bundle once, check it whole, and make it ready to run with `threads` threads (None: every core).

        device: what the network runs on; cuda and openvino need a build of ONNX Runtime that has them. Raises
        BundleError if the bundle is missing, cut short, altered, or does not fit this program, UsageError if ONNX
        Runtime cannot run on the device.
        """
        try:
            return cls.from_bytes(_read(path), threads=threads, device=device)
        except BundleError as error:
            raise BundleError(f"{shown(str(path))}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes, *, threads: int | None = None, device: Device = "cpu") -> Self:
        """Make a bundle from its file's bytes, as `load` does."""
        metadata = read_metadata(data)
        if metadata.field_version != FIELD_VERSION:
            raise BundleError(
                f"it learned on field geometry {metadata.field_version} and this program makes {FIELD_VERSION}: "
                "train it again, or install the version of retigrade that made it"
            )
        check_operators(data)
        with _bounded_memory(_CHECK_BYTES + 4 * len(data)) if device == "cpu" else nullcontext():
            session = _open(data, threads=threads or cpu_count(), device=device)
            _check_signature(session, metadata)
            bundle = cls(metadata, f"{metadata.name}@{hashlib.sha256(data).hexdigest()[:12]}", session)
            bundle._check_answers()
        return bundle

    def run(self, photos: npt.NDArray[np.uint8]) -> Outputs:
        """Run the network; photos: uint8 (N, S, S, 3), RGB, the canonical field as `crop` makes it.

        Raises ValueError on photos of another shape, BundleError where the network answers with other than numbers.
        """
        side = self.metadata.input_size
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (side, side, 3):
            raise ValueError(f"photos must be uint8 (N, {side}, {side}, 3), got {photos.dtype} {photos.shape}")
        return self._run(photos, None)

    def _run(self, photos: npt.NDArray[np.uint8], options: ort.RunOptions | None) -> Outputs:
        try:
            outputs = Outputs(*self.session.run(list(Outputs._fields), {"photo": photos}, options))
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise BundleError(f"its network cannot be run: {_first_line(error)}") from error
        if not all(np.isfinite(values).all() for values in outputs):
            raise BundleError("its network answers a photograph with numbers that are not finite; export it again")
        return outputs

    def _check_answers(self) -> None:
        """Run one picture: the maps must average to the logits, or the heat would show something else."""
        options = ort.RunOptions()
        clock = threading.Timer(_CHECK_SECONDS, setattr, (options, "terminate", True))
        clock.daemon = True
        clock.start()
        try:
            logits, maps, _ = self._run(_trial_picture(self.metadata.input_size), options)
        finally:
            clock.cancel()
        drift = float(np.abs(maps.mean(axis=(2, 3)) - logits).max())
        if drift > _DRIFT * max(1.0, float(np.abs(logits).max())):
            raise BundleError(f"its maps do not average to its logits (they differ by {drift:.3g}); export it again")


def _trial_picture(side: int) -> npt.NDArray[np.uint8]:
    """A noisy orange disc on black, uint8 (1, S, S, 3): no photograph, but as lively as one."""
    axis = np.linspace(-1, 1, side)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.95)[..., None] * np.array([200, 110, 50])
    noise = np.random.default_rng(0).integers(-50, 50, (side, side, 1))
    return np.asarray(np.clip(disc + noise * (disc > 0), 0, 255), np.uint8)[None]


@contextmanager
def _bounded_memory(extra: int) -> Iterator[None]:
    """Let the process grow by so many bytes at most, where the system can say and hold it to that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError, IndexError):  # not on Linux
        yield
        return
    with _LIMIT_LOCK:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + extra
        if soft != resource.RLIM_INFINITY:
            limit = min(limit, soft)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        except MemoryError as error:
            raise BundleError(
                "its network needs more memory than any that grades photographs; export it again"
            ) from error
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


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


def _open(data: bytes, *, threads: int, device: Device) -> ort.InferenceSession:
    provider = _PROVIDERS[device]
    if provider not in (available := ort.get_available_providers()):
        raise UsageError(
            f"the installed ONNX Runtime cannot run on {device}: it has {', '.join(available)}; install "
            f"{_BUILDS.get(device, 'onnxruntime')} in the place of onnxruntime"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Threads that wait by spinning take the cores from those that decode the next photographs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=list(dict.fromkeys([provider, _PROVIDERS["cpu"]])))
    except Exception as error:  # ONNX Runtime's errors share no other base
        raise BundleError(f"ONNX Runtime cannot load its network: {_first_line(error)}") from error
    if provider not in session.get_providers():  # it goes on with the processor where a driver is missing
        raise UsageError(f"ONNX Runtime finds no {device} device that it can run on; leave the device to be the cpu")
    return session


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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


def check_operators(data: bytes) -> None:
    """Raise BundleError unless a network is made of `OPERATORS` alone and holds all its weights itself.

    Loops, branches, functions and operators of other domains could run without end or read other files; no network
    that grades photographs needs them.
    """
    for number, wire, body, end in _fields(data, 0, len(data)):
        if wire != _BYTES:
            continue
        if number in (_TRAINING, _FUNCTIONS):
            raise BundleError(
                "its network has functions or training steps of its own, which are not run; export it again"
            )
        if number == _GRAPH:
            _check_graph(data, body, end)


def _check_graph(data: bytes, start: int, stop: int) -> None:
    for number, wire, body, end in _fields(data, start, stop):
        if wire != _BYTES:
            continue
        if number == _SPARSE:
            raise BundleError("its network has sparse weights, which are not read; export it again")
        if number == _INITIALIZER:
            _check_tensor(data, body, end)
        if number == _NODE:
            _check_node(data, body, end)


def _check_node(data: bytes, start: int, stop: int) -> None:
    kind, domain = b"", b""
    for number, wire, body, end in _fields(data, start, stop):
        if (number, wire) == (4, _BYTES):
            kind = data[body:end]
        if (number, wire) == (7, _BYTES):
            domain = data[body:end]
        if (number, wire) == (5, _BYTES):  # an attribute: its tensor is 5, its graphs are 6 and 11
            for inner, inner_wire, inner_body, inner_end in _fields(data, body, end):
                if inner_wire == _BYTES and inner in (6, 11):
                    raise BundleError("its network has branches or loops, which are not run; export it again")
                if inner_wire == _BYTES and inner in (5, 10):
                    _check_tensor(data, inner_body, inner_end)
    name = shown(kind.decode(errors="backslashreplace"))
    if domain not in (b"", b"ai.onnx") or name not in OPERATORS:
        where = f" of {shown(domain.decode(errors='backslashreplace'))}" if domain else ""
        raise BundleError(f"its network uses the operator {name}{where}, which is not run; export it without")


def _check_tensor(data: bytes, start: int, stop: int) -> None:
    if any(number in (13, 14) for number, _, _, _ in _fields(data, start, stop)):
        raise BundleError("its network keeps weights in other files, which are not read; export it with them inside")


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield what `_field` says of each field of the message data[start:stop]."""
    while start < stop:
        number, wire, body, start = _field(data, start)
        if start > stop:
            raise BundleError("its bytes are not an ONNX file; get it again")
        yield number, wire, body, start


class _Part(NamedTuple):
    """One field of a protocol buffer, data[start:end]; key and value where it is an entry of the metadata."""

    start: int
    end: int
    key: bytes | None = None
    value: bytes = b""


def _parts(data: bytes) -> Iterator[_Part]:
    """Walk over a ModelProto's own fields, without looking into them (protobuf.dev/programming-guides/encoding)."""
    start = 0
    for number, wire, body, end in _fields(data, 0, len(data)):
        if number == _METADATA and wire == _BYTES:
            pair = _strings(data, body, end)
            yield _Part(start, end, pair.get(1), pair.get(2, b""))
        else:
            yield _Part(start, end)
        start = end


def _strings(data: bytes, start: int, stop: int) -> dict[int, bytes]:
    """Return the byte strings of one message by field number: 1 the key and 2 the value of a metadata entry."""
    return {number: data[body:end] for number, wire, body, end in _fields(data, start, stop) if wire == _BYTES}


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
