"""A real archive: photographs go to the node, their reports and captures are found in Orthanc."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_files import STUDY, photograph, save
from retigrade.dicom.forward import Peer
from retigrade.dicom.node import Node, NodeConfig
from retigrade.grader import load
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed (Debian: orthanc)"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed (Debian: dcmtk)"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.http, self.dicom = free_port(), free_port()
        settings = {
            "Name": "TEST",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": "PACS",
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
        }
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        self.process = subprocess.Popen(["Orthanc", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", data, timeout=10) as answer:
            return json.load(answer)

    def instances(self) -> list[dict[str, Any]]:
        found = self.ask("/tools/find", {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": STUDY}})
        return [self.ask(f"/instances/{entry['ID']}/simplified-tags") for entry in found]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    archive = Orthanc(tmp_path / "orthanc")
    for _ in range(150):
        try:
            archive.ask("/system")
            break
        except OSError:
            time.sleep(0.2)
    yield archive
    archive.process.terminate()
    archive.process.wait(30)


def test_study_with_its_report_and_capture(tmp_path: Path, orthanc: Orthanc) -> None:
    pixels = draw_eye(grade=Grade.MODERATE, size=320, rng=np.random.default_rng(2)).pixels
    path = save(tmp_path / "a.dcm", photograph(pixels, PatientName="Müller^Jürgen"))
    grader = load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)
    config = NodeConfig(port=0, forward=Peer("PACS", "127.0.0.1", orthanc.dicom))
    for _ in range(2):  # the second time from an empty queue, as on a new machine: the archive holds no double
        node = Node(grader, tmp_path / "node", config)
        node.start()
        try:
            for called, port in (("PACS", orthanc.dicom), ("RETIGRADE", node.port)):
                command = ["storescu", "-aec", called, "127.0.0.1", str(port), str(path)]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
            end = time.monotonic() + 60
            while not list(node.spool.records()) or node.spool.outgoing():
                assert time.monotonic() < end
                time.sleep(0.1)
        finally:
            node.stop()
        shutil.rmtree(tmp_path / "node")
        found = orthanc.instances()
        assert sorted(tags["Modality"] for tags in found) == ["OP", "OT", "SR"]
        assert {tags["PatientID"] for tags in found} == {"P001"}
        assert {tags["PatientName"] for tags in found} == {"Müller^Jürgen"}
        assert len({tags["SeriesInstanceUID"] for tags in found}) == 3
