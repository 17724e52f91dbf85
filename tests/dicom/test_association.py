"""An association with an archive: what is sent where it takes less than we have, and what it may answer instead."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, CTImageStorage, SecondaryCaptureImageStorage

from dicom_files import STUDY
from gradings import graded
from retigrade.dicom.association import AssociationError, associate
from retigrade.dicom.documents import secondary_capture, structured_report
from retigrade.dicom.forward import _CONTEXTS
from retigrade.dicom.source import Source
from retigrade.output.overlay import as_jpeg
from retigrade.output.rows import as_row

ROW = as_row(graded("a.dcm", bundle="tiny@0123456789ab"))
SOURCE = Source(
    subject={"StudyInstanceUID": STUDY, "PatientID": "P001", "PatientName": "Müller^Jürgen"},
    sop_class="1.2.840.10008.5.1.4.1.1.77.1.5.1",
    sop_instance=f"{STUDY}.2.1",
    series=f"{STUDY}.1",
    modality="OP",
    rows=40,
    columns=48,
    frame=1,
    frames=1,
)
PIXELS = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 1, 3))
REPORT, CAPTURE = structured_report(SOURCE, ROW), secondary_capture(SOURCE, ROW, as_jpeg(PIXELS))
WANTED = {"called": "PACS", "calling": "RETIGRADE", "contexts": _CONTEXTS, "timeout": 5}


@contextmanager
def archive(*contexts: tuple[str, list[str]], status: int = 0, largest: int = 16382) -> Iterator[tuple[int, list[Any]]]:
    """An archive by pynetdicom that takes these contexts: its port, and what it was sent."""
    kept: list[Any] = []
    entity = AE("PACS")
    entity.require_called_aet = True
    entity.maximum_pdu_size = largest
    for sop_class, syntaxes in contexts:
        entity.add_supported_context(sop_class, syntaxes)

    def store(event: Any) -> int:
        kept.append(event.dataset)
        kept[-1].file_meta = event.file_meta
        return status

    server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], kept
    finally:
        server.shutdown()


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that answers each thing it is told with the next of these bytes, whatever it was, and then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as connection:
            for answer in answers:
                connection.recv(2**16)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(5)
    listener.close()


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def accepted(*, largest: int = 16384) -> bytes:
    item = struct.pack(">BBH", 0x40, 0, 19) + ExplicitVRLittleEndian.encode()
    context = struct.pack(">BBHBBBB", 0x21, 0, 4 + len(item), 1, 0, 0, 0) + item
    user = struct.pack(">BBHBBHI", 0x50, 0, 8, 0x51, 0, 4, largest)
    return pdu(2, b"\0" * 68 + context + user)


@pytest.mark.parametrize("largest", [0, 256, 16382])
def test_documents_arrive_as_they_are(largest: int) -> None:
    taken = (Comprehensive3DSRStorage, [ExplicitVRLittleEndian]), (SecondaryCaptureImageStorage, [JPEGBaseline8Bit])
    with archive(*taken, largest=largest) as (port, kept):
        association = associate("127.0.0.1", port, **WANTED)
        assert [association.store(REPORT), association.store(CAPTURE), association.store(REPORT)] == [0, 0, 0]
        association.release()
    report, capture, again = kept
    assert report == again == pydicom.dcmread(io.BytesIO(REPORT))
    assert capture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert np.abs(capture.pixel_array.astype(int) - PIXELS).mean() < 2


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_archive_that_takes_no_jpeg_gets_the_capture_uncompressed(syntax: str) -> None:
    taken = (Comprehensive3DSRStorage, [syntax]), (SecondaryCaptureImageStorage, [syntax])
    with archive(*taken) as (port, kept):
        association = associate("127.0.0.1", port, **WANTED)
        assert [association.store(REPORT), association.store(CAPTURE)] == [0, 0]
        association.release()
    report, capture = kept
    assert report.file_meta.TransferSyntaxUID == capture.file_meta.TransferSyntaxUID == syntax
    assert report.ContentSequence == pydicom.dcmread(io.BytesIO(REPORT)).ContentSequence
    assert report.PatientName == "Müller^Jürgen"
    assert capture.PhotometricInterpretation == "RGB"
    assert capture.LossyImageCompression == "01"
    assert np.abs(capture.pixel_array.astype(int) - PIXELS).mean() < 2


def test_status_is_the_archives() -> None:
    with archive((Comprehensive3DSRStorage, [ExplicitVRLittleEndian]), status=0xA700) as (port, _):
        association = associate("127.0.0.1", port, **WANTED)
        assert association.store(REPORT) == 0xA700
        with pytest.raises(ValueError, match="takes no instances of this class"):
            association.store(CAPTURE)
        with pytest.raises(ValueError, match="is no DICOM file"):
            association.store(b"nonsense")
        association.release()


def test_refusal_says_why() -> None:
    why = "refuses the association: it does not go by the AE title"
    with archive((CTImageStorage, [ExplicitVRLittleEndian])) as (port, _), pytest.raises(AssociationError, match=why):
        associate("127.0.0.1", port, **{**WANTED, "called": "OTHER"})


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ((), "closed the connection|cannot be reached"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "cannot be understood"),
        ((pdu(7, b"\0" * 4),), "speaks no DICOM, or broke off"),
        ((pdu(3, b"\0\1\3\2"),), "lets nobody in at present"),
        ((accepted(), b""), "closed the connection|cannot be reached"),
        ((accepted(), pdu(7, b"\0" * 4)), "broke off the association"),
        ((accepted(), pdu(5, b"\0" * 4)), "answers out of turn"),
        ((accepted(), pdu(4, b"\0" * 7)), "cannot be understood"),
        ((accepted(), pdu(4, struct.pack(">IBB", 2, 1, 3))), "cannot be understood"),
        ((accepted(largest=1), pdu(4, struct.pack(">IBB", 99, 1, 3))), "cannot be understood"),
    ],
)
def test_other_side_that_answers_anything_else(answers: tuple[bytes, ...], reason: str) -> None:
    with answering(*answers) as port, pytest.raises(AssociationError, match=reason):
        associate("127.0.0.1", port, **WANTED).store(REPORT)


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(AssociationError, match="cannot be reached"):
            associate("127.0.0.1", held.getsockname()[1], **WANTED)
