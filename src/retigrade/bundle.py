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
from retigrade.onnx_file import check_operators, entry, parts
from retigrade.text import shown

METADATA_KEY = b"retigrade"
SEAL_KEY = b"retigrade_sha256"
SHIPPED = "retigrade-mobilenetv2.onnx"
BESIDE = {"thorough": "retigrade-thorough.onnx"}
"""The bundles that are shipped beside it, by the names that `bundle_file` knows."""

_DIGEST_CHARACTERS = 64
_LARGEST = 2**31 - 1  # bytes; a protocol buffer ends there
_LARGEST_METADATA = 2**24
_CHECK_BYTES = 2**30  # that the first run may take beside the weights, and the seconds that it may last
_CHECK_SECONDS = 20.0
_THREAD_BYTES = 2**27 + 2**24  # of address space that each thread sets aside for its heap and its stack
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
    return seal(strip(model) + entry(METADATA_KEY, metadata.model_dump_json().encode()))


def seal(body: bytes) -> bytes:
    """Return `body` followed by its seal."""
    return body + entry(SEAL_KEY, hashlib.sha256(body).hexdigest().encode())


def strip(data: bytes) -> bytes:
    """Return the ONNX file that a bundle was made of, byte for byte, without metadata and seal.

    Raises BundleError if `data` is not a protocol buffer.
    """
    return b"".join(data[part.start : part.end] for part in parts(data) if part.key not in (METADATA_KEY, SEAL_KEY))


def read_metadata(data: bytes) -> Metadata:
    """Check the seal of a bundle's bytes and return its metadata.

    Raises BundleError if a byte is missing or altered, or the metadata is absent, invalid or of another schema.
    """
    seal_length = len(entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS))
    body, ending = data[:-seal_length], data[-seal_length:]
    if not ending.startswith(entry(SEAL_KEY, b"0" * _DIGEST_CHARACTERS)[:-_DIGEST_CHARACTERS]):
        raise BundleError("it does not end in the seal of a bundle: it was cut short, or is not a bundle; get it again")
    if ending != seal(body)[len(body) :]:
        raise BundleError("its bytes do not match its seal: it was altered or damaged; get it again")
    entries = [part.value for part in parts(body) if part.key == METADATA_KEY]
    if len(entries) != 1:
        raise BundleError(f"it has {len(entries)} entries of metadata and needs one; make the bundle again")
    if len(entries[0]) > _LARGEST_METADATA:
        raise BundleError(f"its metadata has {len(entries[0])} bytes, more than any bundle's; make the bundle again")
    return Metadata.read(entries[0])


def bundle_file(bundle: Path | str | None) -> Path:
    """Return the path of a bundle: of a file, of one that is shipped, by its name, or of the usual one for None.

    A file that is called as a name is goes before. Raises BundleError as `shipped_bundle` does.
    """
    if bundle is None:
        return shipped_bundle()
    path, beside = Path(bundle), BESIDE.get(str(bundle))
    return path if beside is None or path.exists() else shipped_bundle(beside)


def shipped_bundle(name: str = SHIPPED) -> Path:
    """Return the path of a bundle inside the package; BundleError if this installation has none."""
    path = Path(str(resources.files("retigrade"))) / "bundles" / name
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
        threads = threads or cpu_count()
        extra = _CHECK_BYTES + 4 * len(data) + threads * _THREAD_BYTES
        with _bounded_memory(extra) if device == "cpu" else nullcontext():
            session = _open(data, threads=threads, device=device)
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
    readers = [reader for reader in (metadata.out_of_distribution, metadata.quality_head) if reader is not None]
    for channels in [(reader.channels,) for reader in readers] or [tuple(outputs["features"][1][-1:])]:
        _check_shape("features", outputs["features"], "tensor(float)", channels)


def _check_shape(name: str, found: tuple[str, list[Any]], kind: str, sizes: tuple[Any, ...]) -> None:
    """Raise BundleError unless a tensor is of this kind and shape (N, *sizes) with N free and sizes fixed."""
    found_kind, found_shape = found
    batch, *rest = found_shape or [0]
    if found_kind != kind or isinstance(batch, int) or tuple(rest) != sizes or not all(map(_is_size, rest)):
        wanted = ", ".join(str(size) if _is_size(size) else "a fixed size" for size in sizes)
        raise BundleError(f"its {name} is {found_kind} {found_shape} and must be {kind} [N, {wanted}]; export it again")


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and size > 0
