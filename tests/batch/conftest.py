"""Small photographs, a small bundle, and an engine without Ray, for tests of many photographs."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from parquet_rows import rows_of
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle

if TYPE_CHECKING:
    from retigrade.batch.engine import RayEngine

for _package in ("fsspec", "pyarrow"):
    pytest.importorskip(_package, reason=f"{_package} is not installed (extra batch)")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx")


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    """Five small eyes as JPEG files, all different."""
    made = []
    for seed in range(5):
        eye = draw_eye(grade=Grade(seed), size=160, aspect=1.2, rng=np.random.default_rng(seed))
        made.append(cv2.imencode(".jpg", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
    return made


@pytest.fixture
def photographs(tmp_path: Path, jpegs: list[bytes]) -> Path:
    """A folder of five photographs in two folders, and a damaged one."""
    folder = tmp_path / "photos"
    for number, data in enumerate(jpegs):
        path = folder / ("right" if number % 2 else "left") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "right" / "damaged.jpg").write_bytes(jpegs[0][:300])
    return folder


@pytest.fixture
def here() -> RayEngine:
    """An engine that grades in this process, so that memory:// can be read."""
    from retigrade.batch.engine import RayEngine

    class Here(RayEngine):
        def check(self, *addresses: str) -> None:
            pass

        @contextmanager
        def started(self) -> Iterator[int]:
            yield self.workers or 2

        def run(self, parts: Any, config: Any, *, workers: int) -> Any:
            worker = self.worker(config)
            return map(worker.grade_part, parts)

    return Here()


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system memory://, empty before and after."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.rm("/", recursive=True)
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def rows() -> Callable[[Path | str], list[dict[str, Any]]]:
    return rows_of


def make_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def tar_of() -> Callable[[Path, dict[str, bytes]], Path]:
    return make_shard


@pytest.fixture
def shard(tmp_path: Path, jpegs: list[bytes]) -> Path:
    """Two samples, one that says whose eye it is, and what is no photograph."""
    folder = tmp_path / "shards"
    folder.mkdir()
    told = json.dumps({"patient": "P1", "eye": "OD", "date": "2024-05-02"}).encode()
    members = {"a/0.jpg": jpegs[0], "a/0.json": told, "a/1.jpg": jpegs[1], "a/1.cls": b"2", "._a": b"x"}
    return make_shard(folder / "shard-0.tar", members)


def copy_to_memory(folder: Path, system: Any, root: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def in_memory(memory: Any, photographs: Path) -> str:
    copy_to_memory(photographs, memory, "/photos")
    shutil.rmtree(photographs)
    return "memory://photos"
