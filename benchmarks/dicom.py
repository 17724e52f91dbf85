"""DICOM under stress: mutated files, the node's throughput against `grade_many`, and a node killed while it is sent to.

    python benchmarks/dicom.py mutate --count 5000
    python benchmarks/dicom.py throughput --count 200
    python benchmarks/dicom.py kill --count 500 --kills 5

Everything is drawn and seeded. `throughput` needs dcmtk, `kill` needs Orthanc (Debian: dcmtk, orthanc). Mutated files
are read in child processes, so that a crash of a decoder is counted and not suffered.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pynetdicom import AE

from retigrade.arrays import Pixels
from retigrade.dicom.photograph import list_dicom
from retigrade.dicom.spool import Spool
from retigrade.grader import load
from retigrade.icdr import GRADES, Grade, Status
from retigrade.synthetic import draw_eye

OP = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
ROOT = "1.2.826.0.1.3680043.8.498.77"
FALSE_FROM = 16.0  # mean difference, of 255, from which a picture is plainly another one than was stored
WARM = 12  # photographs that grader and node see before they are measured
CHUNK = 1250  # mutated files that one child reads


def dataset_of(pixels: Pixels, number: int, *, patient: str = "P1") -> FileDataset:
    """An uncompressed Ophthalmic Photography image."""
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=FileMetaDataset())
    values: dict[str, Any] = {
        "SOPClassUID": OP, "SOPInstanceUID": f"{ROOT}.{number}", "StudyInstanceUID": f"{ROOT}.1.{patient[1:]}",
        "SeriesInstanceUID": f"{ROOT}.2.{patient[1:]}", "StudyDate": "20240502", "StudyTime": "101500", "StudyID": "1",
        "AccessionNumber": "1", "Modality": "OP", "Manufacturer": "Maker", "PatientID": patient, "PatientName": "A^B",
        "PatientBirthDate": "", "PatientSex": "", "ReferringPhysicianName": "", "SeriesNumber": "1",
        "InstanceNumber": str(number), "ImageLaterality": "R", "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "Rows": pixels.shape[0],
        "Columns": pixels.shape[1], "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }  # fmt: skip
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = OP
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def as_jpeg(dataset: FileDataset, pixels: Pixels) -> FileDataset:
    """The same with its pixels as a JPEG."""
    data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    dataset.PixelData, dataset.PhotometricInterpretation = encapsulate([data]), "YBR_FULL_422"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return dataset


def bytes_of(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# Mutated files --------------------------------------------------------------------------------------------------------

BASES = ("plain", "implicit", "deflated", "jpeg", "jpeg2000", "jpegls", "rle")


def base(kind: str, pixels: Pixels) -> bytes:
    """The drawn eye in one transfer syntax."""
    dataset = dataset_of(pixels, 1)
    match kind:
        case "implicit":
            dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
        case "deflated":
            dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        case "jpeg":
            dataset = as_jpeg(dataset, pixels)
        case "jpeg2000":
            dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
        case "jpegls":
            dataset.compress(uid.JPEGLSLossless, generate_instance_uid=False)
        case "rle":
            dataset.compress(uid.RLELossless, generate_instance_uid=False)
    return bytes_of(dataset)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes: bytes, lengths, pieces lost, doubled or swapped, the end cut off; headers rather often."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        header = rng.random() < 0.6
        at = int(rng.integers(128, min(len(changed), 1500) if header else len(changed)))
        size = int(rng.integers(1, 64))
        match int(rng.integers(0, 7)):
            case 0:
                changed[at] = int(rng.integers(0, 256))
            case 1:
                changed[at] ^= 1 << int(rng.integers(0, 8))
            case 2:
                changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size]
            case 5:
                changed[at : at + size] = bytes(rng.integers(0, 256, size, dtype=np.uint8))
            case 6 if rng.random() < 0.3:
                del changed[at:]
        if len(changed) < 140:
            break
    return bytes(changed)


def examine(first: int, count: int, results: multiprocessing.Queue[Any]) -> None:
    """Read and grade files `first` to `first + count`; one result each, so that a crash shows which one it was."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pixels = draw_eye(grade=Grade.MODERATE, size=320, rng=np.random.default_rng(2)).pixels
    originals = {kind: base(kind, pixels) for kind in BASES}
    grader = load(threads=1)
    true_grade = grader.grade(pixels).grade
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        for number in range(first, first + count):
            rng = np.random.default_rng([77, number])
            path.write_bytes(mutated(originals[BASES[number % len(BASES)]], rng))
            started = time.perf_counter()
            try:
                for item in list_dicom(path, "a.dcm"):
                    grading = grader.grade(item)
                    verdict = str(grading.status)
                    if grading.status is Status.GRADED:
                        found = item.read().pixels
                        same = found.shape == pixels.shape
                        gap = float(np.abs(found.astype(float) - pixels).mean()) if same else 255.0
                        verdict = "graded" if grading.grade == true_grade else "graded, another grade"
                        verdict += f", mean difference above {FALSE_FROM:.0f}" if gap > FALSE_FROM else ""
                    if any("internal error" in reason for reason in grading.reasons):
                        verdict = f"internal error: {grading.reasons[0]}"
                    results.put((number, verdict, time.perf_counter() - started))
                    break
            except Exception as defect:
                results.put((number, f"traceback: {type(defect).__name__}: {defect}"[:200], 0.0))


def mutate(first: int, count: int) -> None:
    """Print what became of `count` mutated files, from number `first`."""
    found: dict[int, tuple[str, float]] = {}
    begin, end, crashes = first, first + count, 0
    while first < end:
        results: multiprocessing.Queue[Any] = multiprocessing.Queue()
        child = multiprocessing.Process(target=examine, args=(first, min(CHUNK, end - first), results))
        child.start()
        last = time.monotonic()
        while child.is_alive() or not results.empty():
            try:
                number, verdict, seconds = results.get(timeout=1)
                found[number] = verdict, seconds
                last = time.monotonic()
            except Exception:  # nothing yet
                if time.monotonic() - last > 120:
                    child.kill()
        child.join()
        if child.exitcode != 0:
            crashed = max((number for number in found if number >= first), default=first - 1) + 1
            found[crashed] = f"crash or hang ({child.exitcode})", 0.0
            crashes += 1
            first = crashed + 1
        else:
            first += min(CHUNK, end - first)
    for verdict, number in Counter(verdict for verdict, _ in found.values()).most_common():
        print(f"{number:6d}  {verdict}  e.g. file {next(n for n, (v, _) in found.items() if v == verdict)}")
    slowest = max(seconds for _, seconds in found.values())
    print(f"{len(found)} files from number {begin}, {crashes} crashes, slowest {slowest:.2f} s")


# The node -------------------------------------------------------------------------------------------------------------


def images(count: int, size: int) -> list[FileDataset]:
    """JPEG photographs of ten eyes, each under an identity of its own, two to a patient."""
    eyes = [
        draw_eye(grade=grade, size=size, rng=np.random.default_rng([5, number])).pixels
        for number, grade in enumerate(2 * GRADES)
    ]
    made = []
    for number in range(count):
        pixels = eyes[number % len(eyes)]
        dataset = as_jpeg(dataset_of(pixels, number + 1, patient=f"P{number // 2 + 1}"), pixels)
        made.append(dcmread(io.BytesIO(bytes_of(dataset))))
    return made


def send_all(datasets: list[FileDataset], port: int) -> None:
    """Send every image until it is answered Success, over new associations where the node has died."""
    left = list(datasets)
    while left:
        entity = AE("CAMERA")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.add_requested_context(OP, uid.JPEGBaseline8Bit)
        association = entity.associate("127.0.0.1", port, ae_title="RETIGRADE")
        if not association.is_established:
            time.sleep(0.2)
            continue
        while left and association.is_established:
            try:
                status = association.send_c_store(left[0]).get("Status")
            except (RuntimeError, ValueError):
                break
            if status == 0:
                left.pop(0)
            else:
                break
        association.release() if association.is_established else association.abort()


def in_threads(datasets: list[FileDataset], port: int, senders: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=send_all, args=(datasets[start::senders], port)) for start in range(senders)]
    for thread in threads:
        thread.start()
    return threads


def throughput(count: int, size: int, jobs: int, work: Path) -> None:
    """Print photographs a second of `grade_many` and of the node, on the same files.

    Senders and archive are dcmtk's, in processes of their own; they take their share of the same cores. The node's time
    runs from the first association to the last report in the archive.
    """
    folder, paths = work / "images", []
    folder.mkdir()
    for number, dataset in enumerate(images(WARM + count, size)):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(bytes_of(dataset))
    warm, paths = paths[:WARM], paths[WARM:]  # what is loaded once is no part of either
    grader = load(threads=1)
    items = [item for path in paths for item in list_dicom(path, path.name)]
    list(grader.grade_many(items[:WARM], jobs=jobs))
    started, busy = time.perf_counter(), time.process_time()
    for _ in grader.grade_many(items, jobs=jobs):
        pass
    alone, busy = count / (time.perf_counter() - started), time.process_time() - busy

    archive, queue = work / "archive", work / "queue"
    archive_port, port = free_ports(2)
    archive.mkdir()
    with ExitStack() as stack:
        run = partial(start, stack, work)
        kept = run(dcmtk("storescp"), "+xa", "-aet", "PACS", "-od", str(archive), str(archive_port))
        node = run(
            sys.executable, "-m", "retigrade", "listen", "--port", str(port), "--queue", str(queue),
            "--forward", f"PACS@127.0.0.1:{archive_port}", "--jobs", str(jobs),
        )  # fmt: skip
        kept.until_listening(archive_port)
        node.until_listening(port)

        def send(files: list[Path]) -> None:
            run(dcmtk("storescu"), "-xy", "-aec", "RETIGRADE", "127.0.0.1", str(port), *map(str, files))

        def wait(condition: Callable[[], bool]) -> float:
            """Return the time once it holds."""
            end = time.perf_counter() + 60 + 10 * count / alone
            while not condition():
                time.sleep(0.02)
                if time.perf_counter() > end:
                    sys.exit(f"the node did not come to an end: {files_in(archive, 'SR')} reports; {node.said()}")
            return time.perf_counter()

        send(warm)
        wait(lambda: files_in(archive, "SR") >= WARM and not files_in(queue / "outgoing", ""))
        started, busy_before = time.perf_counter(), cpu_seconds(node.pid)
        for first in range(4):
            send(paths[first::4])
        graded = count / (wait(lambda: files_in(queue / "done", "") >= WARM + count) - started)
        delivered = count / (wait(lambda: files_in(archive, "SR") >= WARM + count) - started)
        node_busy = cpu_seconds(node.pid) - busy_before
    print(f"{count} photographs of {size} px, {jobs} jobs: grade_many {alone:.1f}/s, node {graded:.1f}/s graded,")
    print(f"{delivered:.1f}/s with report and capture in the archive: ratio {delivered / alone:.2f}")
    print(f"CPU time for each: grade_many {1000 * busy / count:.1f} ms, node {1000 * node_busy / count:.1f} ms", end="")
    print(f", ratio {busy / node_busy:.2f} (what an idle machine comes to, unless threads wait for each other)")


def dcmtk(name: str) -> str:
    """A program of dcmtk, not the one of the same name that pynetdicom installs beside this Python."""
    folders = [folder for folder in os.get_exec_path() if Path(folder) != Path(sys.executable).parent]
    return shutil.which(name, path=os.pathsep.join(folders)) or sys.exit(f"{name} is not installed (Debian: dcmtk)")


def files_in(folder: Path, prefix: str) -> int:
    return sum(path.name.startswith(prefix) for path in folder.iterdir())


class Started:
    """A process of the benchmark's own; what it says goes to a file in the work folder."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log, self._name = log, Path(command[0]).name
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        self.pid = self._process.pid

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def said(self) -> str:
        """Its last words."""
        return self._log.read_text(errors="replace").strip()[-2000:] or "it says nothing"

    def until_listening(self, port: int) -> None:
        """Wait until it takes connections; end the benchmark with its last words where it does not."""
        for _ in range(600):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))  # or a connection may come from the very port that it goes to
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if (code := self._process.poll()) is not None:
                sys.exit(f"{self._name} ended with exit code {code} before it listened on port {port}: {self.said()}")
            time.sleep(0.1)
        sys.exit(f"{self._name} does not listen on port {port} after a minute: {self.said()}")


def start(stack: ExitStack, work: Path, *command: str) -> Started:
    """Start a process that ends with the stack."""
    process = Started(command, work / f"{Path(command[0]).name}.log")
    stack.callback(process.end)
    return process


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken, in its own code and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, all different, and out of the range that the system deals from.

    One of that range may be given to any connection's near end before the program that it is meant for has started.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in np.random.default_rng().permutation(np.arange(10_000, low)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))) != 0:
                found.append(int(port))
        if len(found) == count:
            return found
    sys.exit(f"there are no {count} free ports from 10000 to {low}")


class Orthanc:
    """A real archive, in a folder of its own."""

    def __init__(self, stack: ExitStack, work: Path) -> None:
        self.http, self.dicom = free_ports(2)
        folder = work / "orthanc"
        folder.mkdir()
        settings = {
            "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": self.http,
            "DicomPort": self.dicom, "DicomAet": "PACS", "DicomCheckCalledAet": True, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "Plugins": [], "OverwriteInstances": False, "MaximumPduLength": 131072,
        }  # fmt: skip
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        process = start(stack, work, "Orthanc", str(config))
        process.until_listening(self.http)
        process.until_listening(self.dicom)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", data, timeout=60) as answer:
            return json.load(answer)

    def instances(self, modality: str) -> int:
        """How many instances it holds in the series of a modality."""
        found = self.ask("/tools/find", {"Level": "Series", "Expand": True, "Query": {"Modality": modality}})
        return sum(len(series["Instances"]) for series in found)

    def references(self) -> Counter[str]:
        """How many reports there are of each photograph."""
        found: Counter[str] = Counter()
        series = self.ask("/tools/find", {"Level": "Series", "Expand": True, "Query": {"Modality": "SR"}})
        for name in (name for one in series for name in one["Instances"]):
            (study,) = self.ask(f"/instances/{name}/simplified-tags")["CurrentRequestedProcedureEvidenceSequence"]
            found[study["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"][0]["ReferencedSOPInstanceUID"]] += 1
        return found


def kill(count: int, size: int, kills: int, jobs: int, work: Path) -> None:
    """Print what is left in queue and archive after a node was killed `kills` times while four senders sent."""
    datasets, queue, (port,) = images(count, size), work / "queue", free_ports(1)
    with ExitStack() as stack:
        archive = Orthanc(stack, work)
        log = stack.enter_context((work / "node.log").open("ab"))
        command = [
            sys.executable, "-m", "retigrade", "listen", "--port", str(port), "--queue", str(queue),
            "--forward", f"PACS@127.0.0.1:{archive.dicom}", "--jobs", str(jobs),
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        threads = in_threads(datasets, port, 4)
        rng = np.random.default_rng(3)
        under_way = []
        for number in range(kills):  # spread over the run by what has been graded, not by the clock
            while not queue.exists() or files_in(queue / "done", "") < (number + 1) * count // (kills + 1):
                time.sleep(0.05)
            time.sleep(float(rng.uniform(0, 0.3)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            under_way.append(files_in(queue / "incoming", "") + files_in(queue / "outgoing", ""))
            process = subprocess.Popen(command, stdout=log, stderr=log)
        for thread in threads:
            thread.join()
        spool = Spool(queue)
        while (spool.waiting() or spool.outgoing()) and time.perf_counter() - started < 3600:
            time.sleep(0.5)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        print(f"{count} images from 4 senders, node killed {kills} times, {time.perf_counter() - started:.0f} s")
        print(f"in the queue at each kill: {under_way} files")
        print(f"graded {len(list(spool.records()))}, waiting {len(spool.waiting())}, ", end="")
        print(f"to deliver {len(spool.outgoing())}, dead letters {len(list(spool.dead()))}; SIGTERM: exit code {code}")
        reports = archive.references()
        expected = {str(dataset.SOPInstanceUID) for dataset in datasets}
        print(f"Orthanc holds {archive.instances('SR')} reports and {archive.instances('OT')} captures, ", end="")
        print(f"of {len(reports)} photographs: without one {len(expected - set(reports))}, ", end="")
        print(f"with more than one {sum(number > 1 for number in reports.values())}")
        print(f"sent again with the same UID: {(work / 'Orthanc.log').read_text().count('already stored')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mutate", "throughput", "kill"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first mutated file")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, help="a folder on a real disk for queue and archive (default: the system's)"
    )
    arguments = parser.parse_args()
    match arguments.what:
        case "mutate":
            mutate(arguments.first, arguments.count)
        case "throughput":
            with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
                throughput(arguments.count, arguments.size, arguments.jobs, Path(folder))
        case "kill":
            with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
                kill(arguments.count, arguments.size, arguments.kills, arguments.jobs, Path(folder))


if __name__ == "__main__":
    main()
