"""`retigrade serve`: the web page, the REST API and the patient record."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from retigrade.cli.command import Command, notice
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

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the shipped one)")] = (
        None
    )
    """The network and all that belongs to it."""

    operating_point: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the bundle's own)")
    ] = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    jobs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: every core)")] = None
    """Photographs graded at once."""

    token_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Let in only who has a token of this file."""

    def run(self) -> int:
        """Serve until interrupted."""
        if find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("sqlalchemy") is None:
            raise UsageError("serve needs packages that are not installed: install Retigrade with its extra serve")
        from retigrade.serve.server import run

        config = self._config()
        notice("research use only, not a medical device")
        run(config)
        return 0

    def _config(self) -> ServeConfig:
        from retigrade.serve.config import ServeConfig

        return ServeConfig(
            host=self.host,
            port=self.port,
            database=self.database,
            bundle=self.bundle,
            operating_point=self.operating_point,
            jobs=self.jobs,
            token_file=self.token_file,
        )
