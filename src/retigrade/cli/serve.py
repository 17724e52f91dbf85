"""`retigrade serve`: the web page, the REST API and the patient record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from retigrade.cli.command import BundleFile, Command, Jobs, OperatingPointName, notice
from retigrade.errors import UsageError

if TYPE_CHECKING:
    from retigrade.serve.config import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Serve(Command):
    """Serve the web page, the REST API and the patient record, at http://127.0.0.1:8000 by default.

    Photographs are graded in memory; gradings are kept in the database. Ends with Ctrl-C or SIGTERM, when what was
    accepted is done.
    """

    handles_signals: ClassVar[bool] = True

    host: Annotated[str, tyro.conf.arg(metavar="HOST")] = "127.0.0.1"
    """The address to listen on; any other than this machine's own needs --token-file."""

    port: Annotated[int, tyro.conf.arg(metavar="P")] = 8000
    """The port to listen on."""

    database: Annotated[str, tyro.conf.arg(metavar="URL")] = "sqlite:///retigrade.db"
    """Where the gradings are kept: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."""

    bundle: BundleFile = None
    """The network and all that belongs to it."""

    operating_point: OperatingPointName = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    jobs: Jobs = None
    """Photographs graded at once."""

    token_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Let in only who has a token of this file; needed on any host but this machine's own."""

    new_token: Annotated[str | None, tyro.conf.arg(metavar="NAME:ROLE", help_behavior_hint="")] = None
    """Add a token to --token-file, print it this once, and end; roles are read, write and admin."""

    keep_photos: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none is kept)")] = (
        None
    )
    """Keep the photographs in this folder, each under the SHA-256 of its bytes."""

    retention_days: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: no end)")] = None
    """Delete kept photographs after so many days."""

    origin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="URL", help_behavior_hint="(default: none)")] = ()
    """Other web sites that browsers may call the API from."""

    max_megabytes: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Of one photograph's file; a request may have four times as many."""

    max_megapixels: Annotated[int, tyro.conf.arg(metavar="N")] = 60
    """Of one photograph."""

    max_files: Annotated[int, tyro.conf.arg(metavar="N")] = 100
    """Photographs in one request."""

    max_waiting: Annotated[int, tyro.conf.arg(metavar="N")] = 128
    """Requests with photographs at once; more are asked to come again."""

    upload_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 60
    """In which a request must arrive."""

    verify_log: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Look for changed and missing lines in the database's audit log, and end: exit code 1 where there are any."""

    def run(self) -> int:
        """Serve until interrupted."""
        for package in (
            "fastapi",
            "fastapi_offline",
            "httptools",
            "prometheus_client",
            "python_multipart",
            "sqlalchemy",
        ):
            if find_spec(package) is None:
                raise UsageError(
                    f"serve needs the package {package}, which is not installed: install Retigrade with its extra serve"
                )
        if self.new_token is not None:
            return self._make_token()
        if self.verify_log:
            from retigrade.serve.server import verify

            sentence, is_whole = verify(self.database)
            print(sentence)
            return 0 if is_whole else 1
        config = self._config()
        with ThreadPoolExecutor(1) as pool:  # one core reads the network while the other imports the server's libraries
            loading = pool.submit(config.load_grader)
            from retigrade.serve import server
        notice("research use only, not a medical device")
        server.run(config, grader=loading.result())
        return 0

    def _make_token(self) -> int:
        from retigrade.serve.security import new_token

        if self.token_file is None:
            raise UsageError("--new-token needs --token-file FILE")
        name, _, role = str(self.new_token).rpartition(":")
        print(new_token(self.token_file, name, role))
        return 0

    def _config(self) -> ServeConfig:
        from retigrade.serve.config import ServeConfig

        for option, value in (("megabytes", self.max_megabytes), ("megapixels", self.max_megapixels)):
            if value <= 0:  # here, where it is still what was typed
                raise UsageError(f"--max-{option} must be more than 0, got {value}")
        return ServeConfig(
            host=self.host,
            port=self.port,
            database=self.database,
            bundle=self.bundle,
            operating_point=self.operating_point,
            jobs=self.jobs,
            token_file=self.token_file,
            keep_photos=self.keep_photos,
            retention_days=self.retention_days,
            origins=self.origin,
            max_bytes=self.max_megabytes * 2**20,
            max_request_bytes=4 * self.max_megabytes * 2**20,
            max_pixels=self.max_megapixels * 10**6,
            max_files=self.max_files,
            max_waiting=self.max_waiting,
            upload_seconds=self.upload_seconds,
        )
