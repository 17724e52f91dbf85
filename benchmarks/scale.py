"""What millions of photographs take: measured rates, the overhead of Ray, a cluster simulated, a price.

    pip install '.[batch]'
    python benchmarks/scale.py rates [--json FILE]
    python benchmarks/scale.py photographs FOLDER --count 20000 [--data ../shared/data/aptos2019 ...]
    python benchmarks/scale.py ray FOLDER [--workers 1 2 4 8]
    python benchmarks/scale.py simulate [--json FILE] [--workers 1000] [--photographs 1e8]
    python benchmarks/scale.py price --seconds 0.03 --core-hour 0.04

`rates` grades drawn eyes as JPEG of several sizes, and writes the processor seconds of each photograph; `simulate`
draws from them. `photographs` makes a folder; `ray` grades it by `grade_many` and on Ray, and watches the driver's
memory.
"""

from __future__ import annotations

import heapq
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import tyro

from retigrade import Grader, UnreadablePhoto, load
from retigrade.bundle import cpu_count
from retigrade.fundus.decode import decode
from retigrade.icdr import GRADES
from retigrade.inputs import expand
from retigrade.synthetic import draw_eye
from timing import machine

if TYPE_CHECKING:
    from retigrade.batch.run import BatchOutcome

SIZES = {"0.07 Mpx": 224, "0.8 Mpx": 712, "3 Mpx": 1424, "7 Mpx": 2136, "12 Mpx": 2848}
"""Shorter sides, at the aspect 1.5 of most cameras."""
_EYES = 2


@dataclass(frozen=True)
class Rates:
    """Processor seconds and bytes of a photograph, by its size."""

    rounds: int = 8
    json: Path | None = None

    def run(self) -> None:
        print(machine())
        grader = load(threads=1)
        print(f"{'size':>9} {'MiB':>6} {'ms, median':>11} {'range':>15} {'a second':>9}")
        written: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, side in SIZES.items():
                files = [path.read_bytes() for path in draw(Path(folder, name), side, _EYES)]
                grader.grade(files[0])
                seconds = [timed(grader, data) for _ in range(self.rounds) for data in files]
                written[name] = seconds
                middle, size = statistics.median(seconds), statistics.mean(map(len, files)) / 2**20
                span = f"{min(seconds) * 1e3:.1f}-{max(seconds) * 1e3:.1f}"
                print(f"{name:>9} {size:6.2f} {middle * 1e3:11.1f} {span:>15} {1 / middle:9.1f}")
        if self.json is not None:
            self.json.write_text(json.dumps(written))


def timed(grader, data: bytes) -> float:
    """Seconds of processor time, which other work on the machine does not change much."""
    started = time.process_time()
    next(iter(grader.grade_many([data], heat=False)))
    return time.process_time() - started


def draw(folder: Path, side: int, count: int) -> list[Path]:
    """JPEG files of drawn eyes whose frame has this shorter side; small ones are drawn large enough and shrunk."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = draw_eye(grade=GRADES[number % 5], size=max(side, 320), aspect=1.5, rng=rng).pixels
        if side < 320:
            pixels = cv2.resize(pixels, (round(side * 1.5), side), interpolation=cv2.INTER_AREA)
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Photographs:
    """Many small photographs, all different: those of labelled folders and drawn eyes, encoded again."""

    folder: Annotated[Path, tyro.conf.Positional]
    data: tuple[Path, ...] = ()
    """Folders of photographs; without any, all are drawn eyes."""
    count: int = 20000
    side: int = 512
    """Shorter side at most; none is enlarged."""
    drawn: int = 50
    """Eyes that are drawn."""

    def run(self) -> None:
        if self.folder.exists():
            raise SystemExit(f"{self.folder} is there already")
        sources: list[Path] = []
        if self.data:
            sources = [item.path for item in expand(list(self.data)).items]
            sources = sources[:: max(1, len(sources) // (self.count - self.drawn))]
        with tempfile.TemporaryDirectory() as folder:
            sources += draw(Path(folder, "drawn"), self.side, self.drawn)
            for number in range(self.count):
                path = self.folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._again(sources[number % len(sources)], turn=number // len(sources)))
        print(f"{self.count} photographs made of {len(sources)} in {self.folder}")

    def _again(self, path: Path, *, turn: int) -> bytes:
        """Encode a photograph, a little smaller and at another quality each turn."""
        try:
            pixels = decode(path, min_side=self.side).pixels
        except UnreadablePhoto:
            return path.read_bytes()
        scale = min(1.0, self.side / min(pixels.shape[:2])) * (1 - 0.01 * (turn % 20))
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92 - turn % 8]
        return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)[1].tobytes()


@dataclass(frozen=True)
class OnRay:
    """The same photographs by `grade_many` and on Ray with several numbers of workers.

    `grade_many` has a sample of them, half before and half after Ray, so that a drifting machine does for both.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    workers: tuple[int, ...] = (0,)
    """0: one a core."""
    sample: int = 4000

    def run(self) -> None:
        paths = sorted(self.folder.rglob("*.jpg"))
        rng = np.random.default_rng(0)
        sample = [paths[index] for index in rng.permutation(len(paths))[: self.sample]]
        cores = cpu_count()
        print(f"{machine()}, {cores} of them used, load {os.getloadavg()[0]:.1f}; {len(paths)} photographs", flush=True)
        grader = load(threads=1)
        alone = [grading_rate(grader, sample[::2], cores)]
        runs = {workers or cores: self._run(workers or cores) for workers in self.workers}
        alone.append(grading_rate(grader, sample[1::2], cores))
        rate = statistics.mean(alone)
        print(f"grade_many, {cores} jobs: {alone[0]:.1f} and {alone[1]:.1f} a second")
        for workers, (outcome, whole, memory) in runs.items():
            note = " (more workers than cores)" if workers > cores else ""
            counts = ", ".join(f"{count} {status}" for status, count in outcome.counts.items())
            print(f"Ray, {workers} workers{note}: {outcome.rate:.1f} a second, {outcome.rate / rate:.2f} x grade_many")
            print(f"  {whole:.0f} s with Ray's start and end, {outcome.seconds:.0f} s of them grading; {counts}")
            quarters = [memory[round(share * (len(memory) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
            print(f"  driver's memory by quarters of the run: {', '.join(f'{mib:.0f}' for mib in quarters)} MiB")

    def _run(self, workers: int) -> tuple[BatchOutcome, float, list[float]]:
        from retigrade.batch.engine import RayEngine
        from retigrade.batch.run import run_batch

        memory: list[float] = []
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            outcome = run_batch(
                str(self.folder),
                out=f"{out}/results",
                engine=RayEngine(workers=workers),
                plan=lambda _planned: memory.append(resident()),
                watch=lambda _outcome: memory.append(resident()),
            )
        return outcome, time.perf_counter() - started, memory


def grading_rate(grader: Grader, paths: list[Path], jobs: int) -> float:
    """Photographs a second."""
    for _ in grader.grade_many(paths[:20], jobs=jobs, heat=False):
        pass
    started = time.perf_counter()
    count = sum(1 for _ in grader.grade_many(paths, jobs=jobs, heat=False))
    return count / (time.perf_counter() - started)


def resident() -> float:
    """MiB of memory that this process holds."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Simulate:
    """A cluster of workers that take parts one after another, some of them slow, all of them mortal.

    json: what `rates` wrote; without it one size is measured now. straggler: the share of workers that are slow, and by
    how much. hours_between_failures: of one worker, on average; it loses its part and is back after `restart` seconds.
    """

    photographs: float = 1e8
    workers: int = 1000
    part: int = 1000
    size: str = "3 Mpx"
    json: Path | None = None
    stragglers: float = 0.02
    slowness: float = 3.0
    hours_between_failures: float = 24.0
    restart: float = 120.0
    fetch: float = 0.0
    """Seconds of a photograph that its store takes and that are not hidden behind grading."""
    seed: int = 0

    def run(self) -> None:
        seconds = self._seconds()
        mean, deviation = float(seconds.mean()) + self.fetch, float(seconds.std())
        rng = np.random.default_rng(self.seed)
        parts = round(self.photographs / self.part)
        speed = np.exp(rng.normal(0, 0.05, self.workers))
        speed[rng.random(self.workers) < self.stragglers] *= self.slowness
        free = [(0.0, worker) for worker in range(self.workers)]
        heapq.heapify(free)
        lost = busy = failures = 0.0
        ends = np.zeros(self.workers)
        rate = self.hours_between_failures * 3600
        for _ in range(parts):
            # A part's time is the sum of many photographs': normal, by the central limit theorem.
            work = max(rng.normal(mean * self.part, deviation * np.sqrt(self.part)), mean * self.part / 2)
            while True:
                now, worker = heapq.heappop(free)
                takes, lives = work * speed[worker], rng.exponential(rate)
                if lives >= takes:
                    break
                lost, failures = lost + lives, failures + 1
                heapq.heappush(free, (now + lives + self.restart, worker))
            busy += takes
            ends[worker] = now + takes
            heapq.heappush(free, (now + takes, worker))
        wall = float(ends.max())
        ideal = mean * self.photographs / self.workers
        print(f"{self.photographs:.3g} photographs of {self.size}, {mean * 1e3:.1f} ms each, {self.workers} workers")
        print(f"without stragglers and failures  {ideal / 3600:8.2f} h")
        print(f"simulated                        {wall / 3600:8.2f} h, {wall / ideal:.3f} x")
        print(f"failures {failures:.0f}, work done twice {lost / busy:.3%}")
        print(f"the last part ends {(wall - float(np.median(ends))) / 60:.1f} min after the median worker's last")

    def _seconds(self):
        if self.json is not None:
            return np.array(json.loads(self.json.read_text())[self.size])
        with tempfile.TemporaryDirectory() as folder:
            grader = load(threads=1)
            files = [path.read_bytes() for path in draw(Path(folder, "eyes"), SIZES[self.size], _EYES)]
            grader.grade(files[0])
            return np.array([timed(grader, data) for _ in range(6) for data in files])


@dataclass(frozen=True)
class Price:
    """What a million photographs cost; all prices are inputs, in one currency."""

    seconds: float
    """Of one core for a photograph."""
    core_hour: float
    """Price of a core for an hour: of the machine, over its cores."""
    requests: float = 0.0
    """Price of a million read requests; each photograph is one."""
    gigabyte: float = 0.0
    """Price of a gigabyte read, where the store is elsewhere."""
    megabytes: float = 1.0
    """Of a photograph."""
    overhead: float = 1.1
    """Simulated hours over ideal ones."""

    def run(self) -> None:
        cores = 1e6 * self.seconds / 3600 * self.core_hour * self.overhead
        read = self.requests + 1e6 * self.megabytes / 1e3 * self.gigabyte
        print(f"{1e6 * self.seconds / 3600:.1f} core hours x {self.core_hour:g} x {self.overhead:g} = {cores:.2f}")
        print(f"reading {read:.2f}; together {cores + read:.2f} a million photographs")


COMMANDS = {"rates": Rates, "photographs": Photographs, "ray": OnRay, "simulate": Simulate, "price": Price}

if __name__ == "__main__":
    sys.exit(tyro.extras.subcommand_cli_from_dict(dict(COMMANDS), prog="scale").run())
