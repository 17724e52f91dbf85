"""The server under load: throughput, latency, a soak with hostile uploads, kill -9, and the start.

    python benchmarks/serve.py throughput|latency|soak|kill|start|batch
                               [--count N] [--clients 50] [--size 1024] [--rounds 3] [--minutes 10] [--kills 10]

Photographs are drawn eyes as JPEG; each upload has a comment of its own, so that none is the repetition of another. The
server is a process of its own, with SQLite in a new folder; clients are connections that stay open, in this process.
`grade_many` grades the same files in this process, with as many threads as the server has, just before. The time that
processors spend on one photograph is printed too: it says the same on a machine that is busy with something else.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from retigrade import load
from retigrade.icdr import GRADES
from retigrade.serve.database import Database
from retigrade.serve.server import verify
from retigrade.serve.tables import GradingRecord
from retigrade.synthetic import draw_eye
from timing import in_turn, machine

BOUNDARY = b"--------retigrade"
JOBS = len(os.sched_getaffinity(0))


def photographs(size: int) -> list[bytes]:
    """JPEG files of five drawn eyes, as large as a page or a telephone sends them."""
    made = []
    for grade in GRADES:
        eye = draw_eye(grade=grade, size=size, aspect=1.5, rng=np.random.default_rng([9, grade]))
        made.append(cv2.imencode(".jpg", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
    return made


def distinct(photograph: bytes, number: int, run: str) -> bytes:
    """The same pixels in another file: a comment of its own follows the start of the image."""
    text = f"{run} {number}".encode()
    return photograph[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + photograph[2:]


def multipart(data: bytes, **fields: str) -> bytes:
    """One whole request to grade one photograph."""
    parts = [
        b"--" + BOUNDARY + f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'\r\nContent-Disposition: form-data; name="files"; filename="eye.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"".join([*parts, b"--", BOUNDARY, head, data, b"\r\n--", BOUNDARY, b"--\r\n"])
    return request("POST", b"multipart/form-data; boundary=" + BOUNDARY, body)


def request(method: str, kind: bytes, body: bytes) -> bytes:
    start = f"{method} /v1/gradings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nContent-Type: "
    return start.encode() + kind + b"\r\n\r\n" + body


def hostile(number: int, photograph: bytes, rng: random.Random) -> bytes:
    """An upload that means no good, or went wrong."""
    cut = photograph[: rng.randrange(10, len(photograph))]
    changed = bytearray(photograph)
    for _ in range(20):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    bomb = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452") + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    many = b"".join(
        b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n'
        for _ in range(300)
    )
    kinds = [
        multipart(cut),
        multipart(bytes(changed)),
        multipart(bomb),
        multipart(rng.randbytes(200_000)),
        multipart(b"PK\x03\x04" + rng.randbytes(50_000)),
        multipart(photograph, patient="\x00\x1b[2J" + "A" * 10_240),
        multipart(photograph, date="2999-01-01"),
        multipart(photograph, csrf="1", eye="../../etc/passwd"),
        request("POST", b"multipart/form-data; boundary=x", b"--y\r\n" + rng.randbytes(2_000)),
        request("POST", b"application/x-www-form-urlencoded", b"files=1"),
        request("POST", b"multipart/form-data; boundary=" + BOUNDARY, many + b"--" + BOUNDARY + b"--\r\n"),
        request("POST", b"image/jpeg", b""),
    ]
    return kinds[number % len(kinds)]


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Send one request and return status, body and headers of the answer."""
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        reader, writer = self.reader, self.writer
        assert reader is not None
        try:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.casefold(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            self.writer = None
            raise
        if headers.get("connection", "").casefold() == "close":
            writer.close()
            self.writer = None
        return int(head[0].split()[1]), body, headers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "retigrade", "serve", "--port", str(port), "--database",
               f"sqlite:///{folder / 'record.db'}", *options]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not at every start
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, cwd=folder, env=environment)


def wait_ready(port: int) -> float:
    """Seconds until the server answers that it can grade."""
    started = time.perf_counter()
    while time.perf_counter() - started < 120:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                if answer.status == 200:
                    return time.perf_counter() - started
        except OSError:
            time.sleep(0.02)
    sys.exit("the server did not start")


@contextmanager
def server(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "tmp").mkdir()
        process = start(folder, port, *options)
        try:
            wait_ready(port)
            yield process, port, folder
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            print(f"SIGTERM: exit code {code}")


def resident(process: subprocess.Popen[bytes]) -> float:
    """MB of memory that a process holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What processors have spent on a process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def grade_alone(files: list[bytes]) -> tuple[float, float]:
    """Photographs a second of `grade_many` on the same files in this process, and processor seconds for each."""
    grader = load(threads=1)
    for _ in grader.grade_many(files[: 2 * JOBS], jobs=JOBS):
        pass
    started, spent = time.perf_counter(), time.process_time()
    for _ in grader.grade_many(files, jobs=JOBS):
        pass
    return len(files) / (time.perf_counter() - started), (time.process_time() - spent) / len(files)


async def load_with(port: int, requests: list[bytes], clients: int) -> Counter[int]:
    """Send all requests over so many connections; return how many answers of each status there were."""
    statuses: Counter[int] = Counter()
    queue = iter(requests)

    async def work() -> None:
        client = Client(port)
        for data in queue:
            status, _, _ = await client.send(data)
            statuses[status] += 1
        if client.writer is not None:
            client.writer.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    return statuses


def throughput(count: int, clients: int, size: int, rounds: int) -> None:
    """Print photographs a second of `grade_many` and of the server on the same files, in turn."""
    photos = photographs(size)
    print(
        f"{machine()}; {count} JPEG files of {len(photos[0]) // 1024} KiB, {size * 3 // 2} x {size}; {clients} clients"
    )
    ratios, costs = [], []
    with server() as (process, port, _):
        asyncio.run(load_with(port, [multipart(distinct(photos[0], n, "warm")) for n in range(20)], clients))
        for number in range(rounds):
            files = [distinct(photos[n % len(photos)], n, f"round {number}") for n in range(count)]
            requests = [multipart(data) for data in files]
            alone, alone_cost = grade_alone(files)
            started, spent, spent_here = time.perf_counter(), cpu_seconds(process), time.process_time()
            statuses = asyncio.run(load_with(port, requests, clients))
            served = count / (time.perf_counter() - started)
            cost, clients_cost = (cpu_seconds(process) - spent) / count, (time.process_time() - spent_here) / count
            ratios.append(served / alone)
            costs.append(alone_cost / cost)
            print(f"grade_many {alone:.1f}/s, served {served:.1f}/s: {served / alone:.2f}; statuses {dict(statuses)}")
            print(f"  processor ms a photograph: grade_many {alone_cost * 1e3:.1f}, server {cost * 1e3:.1f}, ", end="")
            print(f"clients {clients_cost * 1e3:.1f}: {alone_cost / cost:.2f} without the clients")
    print(f"served / grade_many, median of {rounds}: {statistics.median(ratios):.2f}, ", end="")
    print(f"by processor time {statistics.median(costs):.2f}")


def sync_seconds(folder: Path) -> float:
    """What the disk takes to make one small change safe, the median of twenty: no answer can come sooner."""
    seconds = []
    with (folder / "tmp" / "sync").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(bytes(32 * 1024))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def latency(count: int, size: int) -> None:
    """Print the milliseconds of one photograph in this process and through the server, one client, warm, in turn."""
    photos = photographs(size)
    grader = load(threads=1)
    alone, served = [], []
    costs = [0.0, 0.0]
    with server() as (process, port, folder):

        async def run() -> None:
            client = Client(port)
            for number in range(count + 10):
                data = distinct(photos[number % len(photos)], number, "latency")
                whole = multipart(data)
                if number == 10:
                    costs[1] = cpu_seconds(process)
                started, spent = time.perf_counter(), time.process_time()
                grader.grade(data)
                between = time.perf_counter()
                costs[0] += time.process_time() - spent if number >= 10 else 0
                status, _, _ = await client.send(whole)
                ended = time.perf_counter()
                assert status == 201, status
                if number >= 10:
                    alone.append(between - started)
                    served.append(ended - between)

        asyncio.run(run())
        costs[1] = cpu_seconds(process) - costs[1]
        sync = sync_seconds(folder)
    added = [(b - a) * 1e3 for a, b in zip(alone, served, strict=True)]
    print(f"{machine()}; {count} photographs of {size} px, one client")
    print(f"in process {statistics.median(alone) * 1e3:.1f} ms, served {statistics.median(served) * 1e3:.1f} ms")
    print(f"added: median {statistics.median(added):.1f} ms, 95 % {sorted(added)[int(0.95 * len(added))]:.1f} ms")
    print(f"of which the disk's fdatasync of 32 KiB takes about {sync * 1e3:.1f} ms")
    print(f"processor ms a photograph: in process {costs[0] / count * 1e3:.1f}, server {costs[1] / count * 1e3:.1f}")


def soak(minutes: float, clients: int, size: int) -> None:
    """Print statuses, memory, files and gradings of a server under load with one hostile upload in ten."""
    photos = photographs(size)
    statuses: Counter[tuple[bool, int]] = Counter()
    without_retry, identities, memory = 0, set[str](), list[float]()
    with server() as (process, port, folder):
        end = time.monotonic() + minutes * 60
        numbers, rng = itertools.count(), random.Random(5)

        async def work() -> None:
            nonlocal without_retry
            client = Client(port)
            while time.monotonic() < end:
                number = next(numbers)
                is_hostile = number % 10 == 0
                data = distinct(photos[number % len(photos)], number, "soak")
                whole = hostile(number // 10, data, rng) if is_hostile else multipart(data, patient=f"P{number % 500}")
                try:
                    status, body, headers = await client.send(whole)
                except (OSError, asyncio.IncompleteReadError):  # closed before the whole request was read: refused
                    statuses[is_hostile, 0] += 1
                    continue
                statuses[is_hostile, status] += 1
                if status == 503 and "retry-after" not in headers:
                    without_retry += 1
                if status == 201:
                    identities.update(grading["id"] for grading in json.loads(body)["gradings"])

        async def watch() -> None:
            while time.monotonic() < end:
                memory.append(resident(process))
                await asyncio.sleep(min(5.0, minutes * 6))

        async def run() -> None:
            await asyncio.gather(watch(), *(work() for _ in range(clients)))

        asyncio.run(run())
        left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        log = (folder / "log").read_text()
        kept = _kept(folder)
        sentence, _ = verify(f"sqlite:///{folder / 'record.db'}")
    for (is_hostile, status), number in sorted(statuses.items()):
        print(f"{'hostile ' if is_hostile else 'ordinary'} {status or 'connection closed'}: {number}")
    settled = memory[len(memory) // 4 :]
    failures = sum(number for (_, status), number in statuses.items() if status >= 500 and status != 503)
    print(f"5xx but 503: {failures}; 503 without Retry-After: {without_retry}")
    print(f"memory: {memory[0]:.0f} MB at first, then {min(settled):.0f} to {max(settled):.0f} MB")
    print(f"files beside the database: {[name for name in left if not name.startswith('record.db') and name != 'log']}")
    print(f"answered 201: {len(identities)} gradings, not in the database: {len(identities - kept)}")
    print(f"names of files or patients in the log: {log.count('eye.jpg') + log.count('P1')}; {sentence}")


def _kept(folder: Path) -> set[str]:
    from sqlalchemy import select

    database = Database(f"sqlite:///{folder / 'record.db'}")
    with database.reading() as session:
        kept = set(session.scalars(select(GradingRecord.id)))
    database.close()
    return kept


def kill(kills: int, clients: int, size: int) -> None:
    """Print how many gradings that were answered 201 are lost after a server was killed again and again under load."""
    photos = photographs(size)
    identities: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "tmp").mkdir()
        numbers, rng = itertools.count(), random.Random(6)
        broken = 0
        for _ in range(kills):
            process = start(folder, port)
            wait_ready(port)
            moment = time.monotonic() + rng.uniform(1, 3)
            before = len(identities)

            async def work() -> None:
                client = Client(port)
                while True:
                    number = next(numbers)
                    try:
                        status, body, _ = await client.send(
                            multipart(distinct(photos[number % len(photos)], number, "kill"), patient=f"P{number % 50}")
                        )
                    except (OSError, asyncio.IncompleteReadError):
                        return
                    if status == 201:
                        identities.update(grading["id"] for grading in json.loads(body)["gradings"])

            async def strike(process: subprocess.Popen[bytes], moment: float, before: int) -> None:
                while time.monotonic() < moment or len(identities) < before + 5:
                    await asyncio.sleep(0.01)
                process.kill()

            async def run(process: subprocess.Popen[bytes], moment: float, before: int) -> None:
                await asyncio.gather(strike(process, moment, before), *(work() for _ in range(clients)))

            asyncio.run(run(process, moment, before))
            process.wait()
            sentence, is_whole = verify(f"sqlite:///{folder / 'record.db'}")
            broken += not is_whole
        lost = identities - _kept(folder)
    print(f"killed {kills} times under {clients} clients; answered 201: {len(identities)}; lost: {len(lost)}")
    print(f"audit log broken after {broken} of {kills}; at the end: {sentence}")


def batch(rounds: int) -> None:
    """Print the milliseconds that the network takes for one photograph, alone and in batches, with one thread."""
    bundle = load(threads=1).bundle
    side = bundle.metadata.input_size
    rng = np.random.default_rng(0)
    sizes = (1, 2, 4, 8, 16)
    batches = {count: rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8) for count in sizes}
    seconds = in_turn({str(count): partial(bundle.run, photos) for count, photos in batches.items()}, rounds=rounds)
    for count in sizes:
        print(f"batch of {count:2d}: {seconds[str(count)] / count * 1e3:.2f} ms a photograph")


def begin(rounds: int) -> None:
    """Print the seconds from the command to the first grading."""
    photograph = photographs(600)[0]
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder, port = Path(name), free_port()
            (folder / "tmp").mkdir()
            started = time.perf_counter()
            process = start(folder, port)
            wait_ready(port)
            ready, cost = time.perf_counter() - started, cpu_seconds(process)
            status, _, _ = asyncio.run(Client(port).send(multipart(photograph)))
            seconds.append(time.perf_counter() - started)
            print(f"ready after {ready:.2f} s, first grading ({status}) after {seconds[-1]:.2f} s, ", end="")
            print(f"processor time until ready {cost:.2f} s")
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    print(f"start to first answer, median of {rounds}: {statistics.median(seconds):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "latency", "soak", "kill", "start", "batch"])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=1024, help="height of the photographs in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    match arguments.what:
        case "throughput":
            throughput(arguments.count, arguments.clients, arguments.size, arguments.rounds)
        case "latency":
            latency(arguments.count, arguments.size)
        case "soak":
            soak(arguments.minutes, arguments.clients, arguments.size)
        case "kill":
            kill(arguments.kills, arguments.clients, arguments.size)
        case "start":
            begin(arguments.rounds)
        case "batch":
            batch(10 * arguments.rounds)


if __name__ == "__main__":
    main()
