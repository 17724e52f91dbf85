"""An association with an archive, for C-STORE alone (PS3.8, 9.3; PS3.7, 9.1.1 and 9.3.1).

pynetdicom, which receives for the node, takes some 10 ms of CPU time to send the two documents of a photograph, a third
of the time of grading it, in threads that look for work a thousand times a second. Here it is less than one.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from retigrade.dicom.dataset import hushed
from retigrade.dicom.documents import uncompressed
from retigrade.dicom.encoding import IMPLEMENTATION, IMPLEMENTATION_NAME

_ASSOCIATE_RQ, _ASSOCIATE_AC, _ASSOCIATE_RJ, _DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = range(1, 8)
_APPLICATION = b"1.2.840.10008.3.1.1.1"
_PDU_BYTES = 2**16  # that we take at once; of answers, which are short
_LARGEST_ANSWER = 2**20
_SMALLEST_SENT, _LARGEST_SENT = 2**7, 2**17  # bytes of one of our PDUs, whatever the other side says
_COMMAND, _LAST = 1, 2  # bits of a fragment's header
_C_STORE_RQ, _C_STORE_RSP, _WITH_DATA = 0x0001, 0x8001, 0x0001
_REJECTIONS = {  # PS3.8, 9.3.4: source and reason
    (1, 3): "it does not know our AE title",
    (1, 7): "it does not go by the AE title that we call it",
    (3, 1): "it is busy",
    (3, 2): "it lets nobody in at present, its limit is reached",
}


class AssociationError(Exception):
    """The other side cannot be reached, refuses or broke off; finishes the sentence "PACS@host:port: ..."."""


class Context(NamedTuple):
    """What an association may carry: instances of one class in one of the transfer syntaxes."""

    sop_class: str
    syntaxes: Sequence[str]


class Association:
    """An established association; see `associate`. Not to be shared between threads."""

    def __init__(self, connection: socket.socket, accepted: dict[int, tuple[str, str]], largest: int) -> None:
        """Take over an association that was agreed on. accepted: class and syntax of each context; largest: PDU."""
        self._connection, self._accepted, self._largest = connection, accepted, largest
        self._message = 0

    def store(self, file: bytes) -> int:
        """Send the instance in a DICOM file and return the answer's status.

        Raises ValueError where the file cannot be read or the other side does not take its class, AssociationError
        where the association broke off; it is then closed.
        """
        meta, body = _split(file)
        sop_class, sop_instance, syntax = meta[0x0002], meta[0x0003], meta[0x0010]
        contexts = {agreed: number for number, (kind, agreed) in self._accepted.items() if kind == sop_class}
        if not contexts:
            raise ValueError("it takes no instances of this class")
        if syntax not in contexts:
            syntax, body = _converted(file, contexts)
        self._message = self._message % 0xFFFF + 1
        command = _command(
            (0x0002, _text(sop_class)),
            (0x0100, struct.pack("<H", _C_STORE_RQ)),
            (0x0110, struct.pack("<H", self._message)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", _WITH_DATA)),
            (0x1000, _text(sop_instance)),
        )
        number = contexts[syntax]
        pieces = [*self._pieces(number, command, _COMMAND), *self._pieces(number, body, 0)]
        try:
            with _translated():
                self._connection.sendall(b"".join(pieces))
                return self._status()
        except AssociationError:
            self.close()
            raise

    def release(self) -> None:
        """End the association in an orderly way, if the other side still answers."""
        with suppress(AssociationError), _translated():
            self._connection.sendall(_pdu(_RELEASE_RQ, b"\0" * 4))
            _receive(self._connection)
        self.close()

    def close(self) -> None:
        """End the connection at once."""
        self._connection.close()

    def _pieces(self, number: int, data: bytes, kind: int) -> Iterator[bytes]:
        """Cut a message into PDUs that the other side takes."""
        room = self._largest - 6
        for start in range(0, max(len(data), 1), room):
            part = data[start : start + room]
            flags = kind | (_LAST if start + room >= len(data) else 0)
            yield _pdu(_DATA, struct.pack(">IBB", len(part) + 2, number, flags) + part)

    def _status(self) -> int:
        """Read the answer to a C-STORE."""
        command = b""
        while True:
            kind, body = _receive(self._connection)
            if kind == _ABORT:
                raise AssociationError("it broke off the association")
            if kind != _DATA:
                raise AssociationError(f"it answers out of turn (PDU {kind})")
            while body:
                length, _, flags = struct.unpack_from(">IBB", body)
                if not 2 <= length <= len(body) - 4 or not flags & _COMMAND or len(command) > _LARGEST_ANSWER:
                    raise AssociationError("its answer cannot be understood")
                command, body = command + body[6 : 4 + length], body[4 + length :]
                if flags & _LAST:
                    return self._read_status(command)

    def _read_status(self, command: bytes) -> int:
        values, at = {}, 0
        while at + 8 <= len(command):
            group, element, length = struct.unpack_from("<HHI", command, at)
            values[group, element] = command[at + 8 : at + 8 + length]
            at += 8 + length
        numbers = [values.get((0, element), b"") for element in (0x0100, 0x0120, 0x0900)]
        if any(len(number) != 2 for number in numbers):
            raise AssociationError("its answer cannot be understood")
        field, message, status = (int.from_bytes(number, "little") for number in numbers)
        if field != _C_STORE_RSP or message != self._message:
            raise AssociationError("it answers another message than was sent")
        return status


def associate(
    host: str,
    port: int,
    *,
    called: str,
    calling: str,
    contexts: Sequence[Context],
    timeout: float,
    tls: ssl.SSLContext | None = None,
) -> Association:
    """Propose an association and return it once it is accepted.

    timeout: seconds that each step may take. Raises AssociationError where that fails.
    """
    with _translated():
        connection = socket.create_connection((host, port), timeout=timeout)
    try:
        with _translated():
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_hostname=host)
            connection.sendall(_proposal(called, calling, contexts))
            kind, body = _receive(connection)
        if kind == _ASSOCIATE_RJ and len(body) >= 4:
            why = _REJECTIONS.get((body[2], body[3]), f"source {body[2]}, reason {body[3]}")
            raise AssociationError(f"it refuses the association: {why}")
        if kind != _ASSOCIATE_AC:
            raise AssociationError("it speaks no DICOM, or broke off")
        accepted, largest = _agreed(body, contexts)
        return Association(connection, accepted, largest)
    except BaseException:
        connection.close()
        raise


def _proposal(called: str, calling: str, contexts: Sequence[Context]) -> bytes:
    items = [_item(0x10, _APPLICATION)]
    for place, context in enumerate(contexts):
        syntaxes = b"".join(_item(0x40, syntax.encode()) for syntax in context.syntaxes)
        head = struct.pack(">BBBB", 2 * place + 1, 0, 0, 0)
        items.append(_item(0x20, head + _item(0x30, context.sop_class.encode()) + syntaxes))
    user = (
        _item(0x51, struct.pack(">I", _PDU_BYTES))
        + _item(0x52, IMPLEMENTATION.encode())
        + _item(0x55, IMPLEMENTATION_NAME.encode())
    )
    titles = called.ljust(16).encode("ascii") + calling.ljust(16).encode("ascii")
    return _pdu(_ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + b"\0" * 32 + b"".join(items) + _item(0x50, user))


def _agreed(body: bytes, contexts: Sequence[Context]) -> tuple[dict[int, tuple[str, str]], int]:
    """Return what the other side accepted: class and syntax of each context, and the bytes of its largest PDU."""
    accepted: dict[int, tuple[str, str]] = {}
    largest = 0
    for kind, item in _items(body[68:]):
        if kind == 0x21 and len(item) >= 4 and item[2] == 0:
            syntax = next((value for inner, value in _items(item[4:]) if inner == 0x40), b"")
            place = item[0] // 2
            if place < len(contexts):
                accepted[item[0]] = contexts[place].sop_class, syntax.rstrip(b"\0 ").decode("ascii", "replace")
        elif kind == 0x50:
            largest = next((int.from_bytes(value, "big") for inner, value in _items(item) if inner == 0x51), 0)
    return accepted, max(min(largest or _LARGEST_SENT, _LARGEST_SENT), _SMALLEST_SENT)  # 0 is no limit


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, _, length = struct.unpack_from(">BBH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    _acknowledge_at_once(connection)
    kind, _, length = struct.unpack(">BBI", _exactly(connection, 6))
    if length > _LARGEST_ANSWER:
        raise AssociationError("its answer cannot be understood")
    return kind, _exactly(connection, length)


def _acknowledge_at_once(connection: socket.socket) -> None:
    """Keep the kernel from waiting 40 ms before it acknowledges.

    Archives send an answer in two small pieces, the second only once the first has been acknowledged (RFC 896).
    """
    if hasattr(socket, "TCP_QUICKACK"):  # Linux forgets it with the next bytes that we send
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = connection.recv(count)
        if not part:
            raise AssociationError("it closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _command(*values: tuple[int, bytes]) -> bytes:
    """Return a command set: implicit VR little endian (PS3.7, 6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in values)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _text(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _split(file: bytes) -> tuple[dict[int, str], bytes]:
    """Return the UIDs of a file's meta group by their elements, and its data set; raises ValueError."""
    if file[128:136] != b"DICM\2\0\0\0" or file[136:138] != b"UL":
        raise ValueError("it is no DICOM file")
    end = 144 + int.from_bytes(file[140:144], "little")
    found, at = {}, 144
    while at + 8 <= end:
        _, element, vr, length = struct.unpack_from("<HH2sH", file, at)
        at += 8
        if vr == b"OB":
            length = int.from_bytes(file[at : at + 4], "little")
            at += 4
        found[element] = file[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    if not {0x0002, 0x0003, 0x0010} <= set(found):
        raise ValueError("it is no DICOM file")
    return found, file[end:]


def _converted(file: bytes, contexts: dict[str, int]) -> tuple[str, bytes]:
    """Return syntax and data set in one of the syntaxes that the other side takes; raises ValueError."""
    syntax = next((known for known in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) if known in contexts), None)
    if syntax is None:
        raise ValueError("it takes no transfer syntax that we write")
    with hushed():
        dataset = dcmread(io.BytesIO(file))
        if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
            dataset = uncompressed(dataset)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, syntax.is_implicit_VR
        write_dataset(buffer, dataset)
        return str(syntax), buffer.getvalue()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what goes wrong with a connection into AssociationError."""
    try:
        yield
    except ssl.SSLCertVerificationError as problem:
        raise AssociationError(f"its certificate is not trusted ({problem.verify_message})") from problem
    except TimeoutError as problem:
        raise AssociationError("it does not answer in time") from problem
    except (OSError, struct.error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise AssociationError(f"it cannot be reached ({reason})") from problem
