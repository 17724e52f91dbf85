"""Servers for tests: in this process, with a network of a few kilobytes, on SQLite or a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from retigrade.grader import Grader, load
from retigrade.icdr import Grade
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig
from retigrade.synthetic import Phantom
from servers import BASE, on_a_socket
from tiny_bundle import write_tiny_bundle

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx", retest_noise=0.5)


@pytest.fixture(scope="session")
def grader(bundle: Path) -> Grader:
    return load(bundle, threads=1)


@pytest.fixture(scope="session")
def photographs(eyes: Mapping[Grade, Phantom]) -> dict[Grade, bytes]:
    """A PNG file of an eye of each grade."""
    return {
        grade: cv2.imencode(".png", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
        for grade, eye in eyes.items()
    }


@pytest.fixture(scope="session")
def photograph(photographs: dict[Grade, bytes]) -> bytes:
    return photographs[Grade.MODERATE]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the tests' own, on a socket in a folder; yields an address to put a database's name in."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    as_user: list[str] = []
    folder = Path(f"/tmp/retigrade-{uuid.uuid4().hex[:8]}")  # the path of a socket has to be short
    folder.mkdir()
    if os.geteuid() == 0:  # as root it refuses to run
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL cannot run as root, and there is no runuser")
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")

    def call(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, _BINARIES[-1] / program, *arguments], check=True, capture_output=True, cwd="/")

    data = folder / "data"
    try:
        call("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -k {folder} -c fsync=off"
        call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@/{{}}?host={folder}"
        finally:
            call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def page_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, for all tests of a module."""
    return empty_database(request, request.param, tmp_path_factory.mktemp("record"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of either kind."""
    return empty_database(request, request.param, tmp_path)


def empty_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    """Make a database, `sqlite` or `postgresql`, and return its address; the test is skipped where there is none."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'record.db'}"
    psycopg = pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")

    address: str = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address.replace("+psycopg", "").format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.format(name)


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tmp_path: Path, grader: Grader) -> Iterator[Serve]:
    """Start a server in this process: `serve(**config)`, on SQLite unless told otherwise."""
    with ExitStack() as stack:

        def start(*, headers: dict[str, str] | None = None, **config: Any) -> TestClient:
            values = {"database": f"sqlite:///{tmp_path / 'record.db'}", "jobs": 1, **config}
            app = create_app(ServeConfig(**values), grader=grader)
            return stack.enter_context(TestClient(app, base_url=BASE, headers=headers, raise_server_exceptions=False))

        yield start


@pytest.fixture
def live(tmp_path: Path, grader: Grader) -> Iterator[Callable[..., int]]:
    """Start a server on a real socket: `live(**config)` returns its port."""
    with ExitStack() as stack:

        def start(**config: Any) -> int:
            values = {"database": f"sqlite:///{tmp_path / 'record.db'}", "jobs": 1, **config}
            return stack.enter_context(on_a_socket(create_app(ServeConfig(**values), grader=grader)))

        yield start
