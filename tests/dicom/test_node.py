"""The node: who is let in, what is answered, that nothing is lost, and that an archive gets its documents."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from dicom_files import STUDY, file_bytes, photograph, save
from retigrade.arrays import Pixels
from retigrade.dicom.forward import Peer
from retigrade.dicom.node import Node, NodeConfig
from retigrade.dicom.spool import Finished, Spool
from retigrade.errors import UsageError
from retigrade.grader import Grader, load
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
OP = "1.2.840.10008.5.1.4.1.1.77.1.5.1"


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return draw_eye(grade=Grade.MODERATE, size=320, rng=np.random.default_rng(2)).pixels


@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Grader:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx"), threads=1)


@pytest.fixture
def start(tmp_path: Path, grader: Grader) -> Iterator[Callable[..., Node]]:
    """Start a node on a free port in the test's folder; it ends with the test."""
    nodes: list[Node] = []

    def make(**config: Any) -> Node:
        node = Node(grader, tmp_path / "node", NodeConfig(port=0, **config))
        node.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()


class Archive:
    """An archive that keeps what it is sent, and answers with a status of the test's choice."""

    def __init__(self, *, port: int = 0, status: int = 0) -> None:
        self.kept: list[pydicom.Dataset] = []
        self.status = status
        entity = AE("PACS")
        entity.add_supported_context(Comprehensive3DSRStorage)
        entity.add_supported_context(SecondaryCaptureImageStorage)
        self.server: Any = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.store)]
        )
        self.port = self.server.server_address[1]

    def store(self, event: Any) -> int:
        if self.status == 0:
            self.kept.append(event.dataset)
        return self.status

    @property
    def peer(self) -> Peer:
        return Peer("PACS", "127.0.0.1", self.port)

    def classes(self) -> list[str]:
        return sorted(dataset.SOPClassUID.name.split()[0] for dataset in self.kept)


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.server.shutdown()


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def send(port: int, *datasets: pydicom.Dataset, calling: str = "CAMERA", called: str = "RETIGRADE") -> list[int | None]:
    entity = AE(calling)
    entity.add_requested_context(Verification)
    for sop_class in {str(dataset.SOPClassUID) for dataset in datasets}:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return [None] * max(1, len(datasets))
    try:
        if not datasets:
            return [association.send_c_echo().Status]
        return [association.send_c_store(dataset).get("Status") for dataset in datasets]
    finally:
        association.release()


def done(node: Node) -> list[dict[str, Any]]:
    return list(node.spool.records())


def test_echo(start: Callable[..., Node]) -> None:
    assert send(start().port) == [0]


def test_image_is_graded_and_its_documents_reach_the_archive(
    start: Callable[..., Node], archive: Archive, pixels: Pixels
) -> None:
    node = start(forward=archive.peer)
    assert send(node.port, photograph(pixels), photograph(pixels, number=2)) == [0, 0]
    until(lambda: len(archive.kept) == 4)
    assert archive.classes() == ["Comprehensive", "Comprehensive", "Secondary", "Secondary"]
    assert {dataset.StudyInstanceUID for dataset in archive.kept} == {STUDY}
    until(lambda: not node.spool.outgoing())
    assert len(done(node)) == 2
    assert json.loads(done(node)[0]["rows"][0])["status"] == "graded"
    assert node.spool.waiting() == []


def test_the_same_image_twice_is_graded_once(start: Callable[..., Node], archive: Archive, pixels: Pixels) -> None:
    node = start(forward=archive.peer)
    assert send(node.port, photograph(pixels)) == [0]
    until(lambda: len(archive.kept) == 2)
    assert send(node.port, photograph(pixels), photograph(pixels)) == [0, 0]
    assert send(node.port, photograph(pixels, number=2)) == [0]
    until(lambda: len(archive.kept) == 4)
    assert len({dataset.SOPInstanceUID for dataset in archive.kept}) == 4


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "RETIGRADE"), ("CAMERA", "OTHER")])
def test_wrong_title_is_refused_and_said(
    start: Callable[..., Node], pixels: Pixels, caplog: pytest.LogCaptureFixture, calling: str, called: str
) -> None:
    node = start(allow=("CAMERA", "OTHER-CAMERA"))
    assert send(node.port, photograph(pixels), calling=calling, called=called) == [None]
    until(lambda: f"refused: {calling} from 127.0.0.1, which calls this node {called}" in caplog.text)
    assert send(node.port, photograph(pixels)) == [0]


def test_other_classes_are_not_taken(start: Callable[..., Node]) -> None:
    entity = AE("CAMERA")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", start().port, ae_title="RETIGRADE")
    assert association.is_rejected or not association.accepted_contexts
    association.abort()


def test_too_large_an_image_ends_the_association(start: Callable[..., Node], pixels: Pixels) -> None:
    node = start(max_bytes=100_000)
    assert send(node.port, photograph(pixels)) == [None]
    assert node.spool.waiting() == []
    assert done(node) == []


def test_image_that_cannot_be_read_is_a_dead_letter(
    start: Callable[..., Node], archive: Archive, pixels: Pixels
) -> None:
    node = start(forward=archive.peer)
    assert send(node.port, photograph(pixels, PixelData=b"\0\0")) == [0]
    until(lambda: len(done(node)) == 1)
    ((path, reason),) = node.spool.dead()
    assert "has 2 bytes where its header declares" in reason
    assert pydicom.dcmread(path).PatientID == "P001"
    assert archive.kept == []


def test_second_patient_in_one_study_is_not_filed(start: Callable[..., Node], archive: Archive, pixels: Pixels) -> None:
    node = start(forward=archive.peer, jobs=1)
    assert send(node.port, photograph(pixels), photograph(pixels, number=2, PatientID="P002")) == [0, 0]
    until(lambda: len(done(node)) == 2 and not node.spool.outgoing())
    assert {dataset.PatientID for dataset in archive.kept} == {"P001"}
    ((_, reason),) = node.spool.dead()
    assert "names another patient" in reason


def test_study_stays_its_patients_after_a_start(start: Callable[..., Node], pixels: Pixels) -> None:
    """Also where the record of an image that was refused is the first to be read."""
    node = start()
    assert send(node.port, photograph(pixels)) == [0]
    until(lambda: len(done(node)) == 1)
    assert send(node.port, photograph(pixels, number=2, PatientID="P002")) == [0]
    until(lambda: len(done(node)) == 2)
    node.stop()
    folder = node.spool.folder / "done"
    (refused,) = (path for path in folder.iterdir() if json.loads(path.read_text())["problem"])
    refused.rename(folder / f"{'0' * 40}.json")
    again = start()
    assert send(again.port, photograph(pixels, number=3), photograph(pixels, number=4, PatientID="P002")) == [0, 0]
    until(lambda: len(done(again)) == 4)
    assert sum(record["filed"] for record in done(again)) == 2
    assert len(again.spool.outgoing()) == 4
    assert {pydicom.dcmread(path).PatientID for path in again.spool.outgoing()} == {"P001"}


def test_records_of_refused_images_name_no_owner(start: Callable[..., Node], pixels: Pixels, tmp_path: Path) -> None:
    """Nor do those that say nothing of what was filed, as earlier versions wrote them."""
    spool = Spool(tmp_path / "node")
    record = {"rows": [], "study": STUDY, "patient": "P002", "problem": "its study names another patient already"}
    spool.finish([Finished(key="0" * 40, documents={}, record=record)])
    node = start()
    assert send(node.port, photograph(pixels)) == [0]
    until(lambda: len(done(node)) == 2)
    assert len(node.spool.outgoing()) == 2


def test_image_that_cannot_be_filed_takes_no_study(start: Callable[..., Node], pixels: Pixels) -> None:
    node = start()
    assert send(node.port, photograph(pixels, PatientID="P" * 65)) == [0]
    until(lambda: len(done(node)) == 1)
    assert send(node.port, photograph(pixels, number=2)) == [0]
    until(lambda: len(done(node)) == 2)
    assert len(node.spool.outgoing()) == 2
    ((_, reason),) = node.spool.dead()
    assert "longer than DICOM allows" in reason


def test_frame_that_cannot_be_read_leaves_the_study_its_patients(tmp_path: Path, grader: Grader) -> None:
    spool = Spool(tmp_path / "node")
    record = {"rows": [], "study": STUDY, "patient": "P001", "filed": True, "problem": "frame 2 is damaged"}
    spool.finish([Finished(key="0" * 40, documents={}, record=record)])
    node = Node(grader, tmp_path / "node", NodeConfig(port=0))
    node.start()
    node.stop()
    assert node._patients[STUDY][0] == "P001"


def test_image_that_calls_itself_a_directory_is_refused(start: Callable[..., Node], pixels: Pixels) -> None:
    node = start()
    directory = photograph(pixels, SOPClassUID=MediaStorageDirectoryStorage)
    key = node.spool.accept(file_bytes(directory))
    assert key is not None
    node._keys.put(key)
    until(lambda: node.spool.is_done(key))
    ((path, reason),) = node.spool.dead()
    assert path.stem == key
    assert "a DICOM directory where a picture should be" in reason
    assert node.spool.outgoing() == []


def test_what_waited_when_the_process_died_is_graded_after_the_start(
    start: Callable[..., Node], archive: Archive, pixels: Pixels, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "node")
    key = spool.accept(file_bytes(photograph(pixels)))
    assert key is not None
    (tmp_path / "node/incoming/.half.tmp").write_bytes(b"half")
    spool.finish(
        [Finished(key="k" * 40, documents={}, record={"rows": []})]
    )  # one that died between its record and its removal
    spool.image("k" * 40).write_bytes(b"rest")
    node = start(forward=archive.peer)
    until(lambda: len(archive.kept) == 2)
    until(lambda: node.spool.is_done(key))
    assert list((tmp_path / "node/incoming").iterdir()) == []


def test_documents_wait_for_the_archive(start: Callable[..., Node], pixels: Pixels) -> None:
    with socket.socket() as held:  # a port that nobody listens on
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    node = start(forward=Peer("PACS", "127.0.0.1", port))
    assert send(node.port, photograph(pixels)) == [0]
    until(lambda: len(node.spool.outgoing()) == 2)
    archive = Archive(port=port)
    try:
        until(lambda: len(archive.kept) == 2)
        until(lambda: not node.spool.outgoing())
    finally:
        archive.server.shutdown()
    assert list(node.spool.dead()) == []


def test_document_that_the_archive_refuses_is_a_dead_letter(start: Callable[..., Node], pixels: Pixels) -> None:
    archive = Archive(status=0xC000)
    try:
        node = start(forward=archive.peer)
        assert send(node.port, photograph(pixels)) == [0]
        until(lambda: len(list(node.spool.dead())) == 2)
        assert "status 0xC000" in next(iter(node.spool.dead()))[1]
    finally:
        archive.server.shutdown()


def test_dead_letters_are_taken_up_again(start: Callable[..., Node], pixels: Pixels) -> None:
    archive = Archive(status=0xC000)
    try:
        node = start(forward=archive.peer)
        assert send(node.port, photograph(pixels), photograph(pixels, number=2, PixelData=b"\0\0")) == [0, 0]
        until(lambda: len(list(node.spool.dead())) == 3)
        node.stop()
        archive.status = 0
        node.spool.revive()
        assert len(node.spool.outgoing()) == 2
        assert len(node.spool.waiting()) == 1
        again = start(forward=archive.peer)
        until(lambda: len(archive.kept) == 2 and len(list(again.spool.dead())) == 1)  # what cannot be read stays so
        until(lambda: not again.spool.waiting())  # its record is filed after it is set aside
        assert len(done(again)) == 2
    finally:
        archive.server.shutdown()


def test_dead_letter_is_not_done_when_it_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is gone on the disk, too, before the image lies where one that is done is cleared away."""
    spool = Spool(tmp_path / "node")
    key = "a" * 40
    spool.finish([Finished(key=key, documents={}, record={"rows": []})])
    (tmp_path / f"node/dead/{key}.dcm").write_bytes(b"image")
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        "retigrade.dicom.spool.sync_folder", lambda folder: synced.append((folder.name, spool.image(key).exists()))
    )
    assert spool.revive() == 1
    assert synced == [("done", False), ("incoming", True)]
    assert not spool.is_done(key)


def test_reasons_are_read_in_any_locale(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "node")
    path = tmp_path / "node/outgoing/a.dcm"
    path.write_bytes(b"document")
    spool.bury(path, "Müller's archive refuses it")
    program = (
        "import sys; from pathlib import Path; from retigrade.dicom.spool import Spool\n"
        "(letter,) = Spool(Path(sys.argv[1])).dead(); print(ascii(letter[1]))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program, str(tmp_path / "node")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.strip() == ascii("Müller's archive refuses it"), told.stderr


def test_records_are_forgotten_after_some_days(tmp_path: Path, grader: Grader) -> None:
    spool = Spool(tmp_path / "node")
    keys = [name * 40 for name in "abcd"]
    for key in keys:
        spool.finish([Finished(key=key, documents={}, record={"rows": [], "study": key, "patient": "P"})])
    for folder, key in (("outgoing", "b"), ("dead", "c")):  # needed for what has not arrived
        (tmp_path / "node" / folder / f"{key * 40}.1.sr.dcm").write_bytes(b"")
    long_ago = time.time() - 31 * 86_400
    for key in keys[:3]:
        os.utime(tmp_path / f"node/done/{key}.json", (long_ago, long_ago))
    node = Node(grader, tmp_path / "node", NodeConfig(port=0, keep_days=30))
    node.start()
    node.stop()
    assert [spool.is_done(key) for key in keys] == [False, True, True, True]


def test_two_nodes_on_one_queue(start: Callable[..., Node], tmp_path: Path) -> None:
    node = start()
    half = tmp_path / "node/outgoing/.half.tmp"
    half.write_bytes(b"half")
    with pytest.raises(UsageError, match="another node works on the queue"):
        start()
    assert list(Spool(tmp_path / "node").dead()) == []
    assert half.exists()  # which the first node is writing
    assert send(node.port) == [0]


def test_full_disk_is_answered_as_such(
    start: Callable[..., Node], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()

    def full(data: bytes) -> str:
        raise UsageError("cannot write: no space left on device")

    monkeypatch.setattr(node.spool, "accept", full)
    assert send(node.port, photograph(pixels)) == [0xA700]


def test_four_senders_at_once(start: Callable[..., Node], archive: Archive, pixels: Pixels) -> None:
    node = start(forward=archive.peer, jobs=2)
    answers: list[int | None] = []
    threads = [
        threading.Thread(
            target=lambda first=first: answers.extend(
                send(node.port, *(photograph(pixels, number=first * 10 + step) for step in range(3)))
            )
        )
        for first in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 12
    until(lambda: len(archive.kept) == 24)
    assert len({dataset.SOPInstanceUID for dataset in archive.kept}) == 24
    assert len(done(node)) == 12


def test_garbage_on_the_port_hurts_nobody(start: Callable[..., Node], pixels: Pixels) -> None:
    node = start()
    for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\0\xff\xff\xff\xff" + b"\0" * 100, b"\x04" * 4096):
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(garbage)
    assert send(node.port) == [0]


@pytest.mark.parametrize(
    "text", ["  @host:1", "PACS", "PACS@host", "@host:1", "PACS@host:0", "PACS@host:99999", "A" * 17 + "@h:1"]
)
def test_forward_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="AET@HOST:PORT"):
        Peer.of(text)


@pytest.mark.parametrize("title", ["", "   ", "A" * 17, "É", "A\\B"])
def test_title_that_is_none(title: str) -> None:
    with pytest.raises(UsageError, match="AE title"):
        NodeConfig(aet=title)
    with pytest.raises(UsageError, match="AE title"):
        NodeConfig(allow=("CAMERA", title))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls(start: Callable[..., Node], tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=node"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    node = start(tls=context)
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False
    entity = AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.port, ae_title="RETIGRADE", tls_args=(trusting, "node"))
    assert association.send_c_echo().Status == 0
    association.release()
    assert send(node.port) == [None]  # without TLS


@pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
def test_dcmtk(start: Callable[..., Node], archive: Archive, pixels: Pixels, tmp_path: Path) -> None:
    node = start(forward=archive.peer)
    where = ["-aec", "RETIGRADE", "127.0.0.1", str(node.port)]
    subprocess.run(["echoscu", *where], check=True, capture_output=True, timeout=60)
    path = save(tmp_path / "a.dcm", photograph(pixels))
    subprocess.run(["storescu", *where, str(path)], check=True, capture_output=True, timeout=60)
    until(lambda: len(archive.kept) == 2)
