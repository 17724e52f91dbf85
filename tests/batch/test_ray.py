"""With Ray itself: an actor pool on this machine, S3 as moto's server plays it, and what dies in the middle."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retigrade.batch.engine import RayEngine
from retigrade.batch.run import run_batch
from retigrade.batch.worker import PartWorker
from retigrade.grader import load
from retigrade.output.rows import as_row, json_line

pytest.importorskip("ray", reason="Ray is not installed (extra batch)")
# Ray warns of its own: of what it leaves running, and of what it calls itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)

Rows = Callable[[Path | str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server of this machine, told to everybody by the environment; Ray's workers inherit it."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    yield environment["AWS_ENDPOINT_URL"]
    running.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def engine(s3: str) -> Iterator[RayEngine]:
    """Ray with two workers, started once for all tests that do not kill it."""
    engine = RayEngine(workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves its processes to themselves
        with engine.started():
            yield engine
        gc.collect()


def answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def expected(paths: list[Path], bundle: Path) -> list[dict[str, Any]]:
    return answers([json.loads(json_line(as_row(grading))) for grading in load(bundle).grade_many(paths)])


def without_file(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("size", "etag")} for row in answers(rows)]


def test_a_folder(engine: RayEngine, photographs: Path, bundle: Path, tmp_path: Path, rows: Rows) -> None:
    outcome = run_batch(str(photographs), out=str(tmp_path / "out"), bundle=bundle, engine=engine, part_size=2)
    assert (outcome.graded_now, outcome.planned.parts, outcome.planned.workers) == (6, 3, 2)
    assert without_file(rows(tmp_path / "out")) == expected(sorted(photographs.rglob("*.jpg")), bundle)


def test_an_object_store(engine: RayEngine, photographs: Path, bundle: Path, tmp_path: Path, rows: Rows) -> None:
    import fsspec

    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("eyes")
    for path in photographs.rglob("*.jpg"):
        system.pipe_file(f"eyes/photos/{path.relative_to(photographs).as_posix()}", path.read_bytes())
    out = "s3://eyes/out"
    outcome = run_batch("s3://eyes/photos", out=out, bundle=bundle, engine=engine, part_size=2, heat="files")
    assert outcome.graded_now == 6
    found = rows(out)
    assert [row["path"].removeprefix("s3://eyes/photos/") for row in found] == [
        path.relative_to(photographs).as_posix() for path in sorted(photographs.rglob("*.jpg"))
    ]
    for row, grading in zip(found, expected(sorted(photographs.rglob("*.jpg")), bundle), strict=True):
        assert {name: row[name] for name in ("status", "grade", "p0", "p4", "sha256", "quality")} == {
            name: grading[name] for name in ("status", "grade", "p0", "p4", "sha256", "quality")
        }
        assert (row["heat"] is not None) == (row["status"] == "graded")
    assert run_batch("s3://eyes/photos", out=out, bundle=bundle, engine=engine, heat="files").graded_now == 0


class DiesOnce(PartWorker):
    """A worker whose process ends in the middle of its first part."""

    def _verdicts(self, photographs: Any, read: Any) -> Any:
        mark = Path(self._config.destination).parent / "died"
        for number, verdict in enumerate(super()._verdicts(photographs, read)):
            if number == 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield verdict


def test_a_worker_that_is_killed(
    engine: RayEngine, photographs: Path, bundle: Path, tmp_path: Path, rows: Rows
) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        dying = RayEngine(workers=2, worker=DiesOnce)
        outcome = run_batch(str(photographs), out=str(tmp_path / "out"), bundle=bundle, engine=dying, part_size=3)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (tmp_path / "died").exists()
    assert outcome.graded_now == 6
    assert without_file(rows(tmp_path / "out")) == expected(sorted(photographs.rglob("*.jpg")), bundle)


def many(folder: Path, jpegs: list[bytes], count: int) -> list[Path]:
    """Photographs that differ in bytes behind the end of the picture alone."""
    folder.mkdir()
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(jpegs[number % len(jpegs)] + number.to_bytes(4, "big"))
    return paths


@pytest.mark.slow
def test_a_driver_that_is_killed_five_times(bundle: Path, jpegs: list[bytes], tmp_path: Path, rows: Rows) -> None:
    paths, out, part = many(tmp_path / "photos", jpegs, 600), tmp_path / "out", 10
    command = [sys.executable, "-m", "retigrade", "batch", str(tmp_path / "photos"), "--out", str(out)]
    command += ["--bundle", str(bundle), "--part-size", str(part), "--workers", "2"]
    kept = 0
    for _ in range(5):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while driver.poll() is None and len(list(out.glob("*.parquet"))) < kept + 3:
            time.sleep(0.02)
        assert driver.poll() is None, "it came to its end before it could be killed"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(2)  # its workers write what they are at, and end
        kept = len(list(out.glob("*.parquet")))
    written = {row["path"] for row in rows(out)}
    assert len(written) >= 15 * part
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "_summary.json").read_text())
    assert (summary["kept"], summary["graded_now"]) == (len(written), len(paths) - len(written))
    found = rows(out)
    assert [row["path"] for row in found] == [str(path) for path in paths]
    assert without_file(found) == expected(paths, bundle)


@pytest.mark.slow
def test_a_node_that_is_killed(bundle: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    """In a process of its own: the cluster is another than the one that the tests share."""
    many(tmp_path / "photos", jpegs, 400)
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(bundle)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"rows": 400, "different": 0, "killed": True}


def kill_a_node(folder: Path, bundle: Path) -> dict[str, Any]:
    """Grade on two nodes of one processor each, and kill one in the middle."""
    from ray.cluster_utils import Cluster

    from parquet_rows import rows_of

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    killed = False

    def watch(_outcome: object) -> None:
        nonlocal killed
        if not killed and len(list((folder / "out").glob("*.parquet"))) > 10:
            cluster.remove_node(second, allow_graceful=False)
            killed = True

    engine = RayEngine(address=cluster.address)
    run_batch(str(folder / "photos"), out=str(folder / "out"), bundle=bundle, engine=engine, part_size=10, watch=watch)
    cluster.shutdown()
    found = without_file(rows_of(folder / "out"))
    wanted = expected(sorted((folder / "photos").glob("*.jpg")), bundle)
    shutil.rmtree(folder / "out")
    return {"rows": len(found), "different": sum(a != b for a, b in zip(found, wanted, strict=True)), "killed": killed}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    print(json.dumps(kill_a_node(Path(sys.argv[1]), Path(sys.argv[2]))))
