"""An ONNX file as the protocol buffer that it is: its fields, its metadata, and the operators that its network uses.

Read by hand, so that a file is judged before any library allocates what it declares
(protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from retigrade.errors import BundleError
from retigrade.text import shown

# Field numbers of ModelProto and GraphProto (onnx.proto).
_GRAPH, _METADATA, _TRAINING, _FUNCTIONS = 7, 14, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_BYTES = 2  # the wire type of texts, byte strings and messages

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


class Part(NamedTuple):
    """One field of a protocol buffer, data[start:end]; key and value where it is an entry of the metadata."""

    start: int
    end: int
    key: bytes | None = None
    value: bytes = b""


def parts(data: bytes) -> Iterator[Part]:
    """Walk over a ModelProto's own fields, without looking into them (protobuf.dev/programming-guides/encoding)."""
    start = 0
    for number, wire, body, end in _fields(data, 0, len(data)):
        if number == _METADATA and wire == _BYTES:
            pair = _strings(data, body, end)
            yield Part(start, end, pair.get(1), pair.get(2, b""))
        else:
            yield Part(start, end)
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


def entry(key: bytes, value: bytes) -> bytes:
    """Return one metadata entry as a field of ModelProto."""
    pair = b"".join(
        bytes([number << 3 | _BYTES]) + _packed(len(text)) + text for number, text in ((1, key), (2, value))
    )
    return bytes([_METADATA << 3 | _BYTES]) + _packed(len(pair)) + pair
