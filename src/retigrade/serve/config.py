"""What a server is given at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import cpu_count
from retigrade.errors import UsageError
from retigrade.grader import Grader, load

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
DATABASE = "sqlite:///retigrade.db"


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens, what it keeps, and what it refuses.

    host, port: the address. database: its URL. bundle, operating_point: as `retigrade.load` takes them. jobs:
    photographs graded at once, None for every core. token_file: who may do what; needed on any host but loopback.
    keep_photos: the folder that photographs are kept in, None for none; retention_days: for how long, None for ever.
    max_bytes, max_pixels: of one photograph. max_request_bytes, max_files: of one request. max_waiting: requests with
    photographs at once; max_waiting_bytes: all of theirs together. upload_seconds: for one request to arrive.
    origins: web sites beside the server's own that browsers may call it from (CORS).

    Raises UsageError where these cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    database: str = DATABASE
    bundle: Path | None = None
    operating_point: str | None = None
    jobs: int | None = None
    token_file: Path | None = None
    keep_photos: Path | None = None
    retention_days: int | None = None
    max_bytes: int = 64 * 2**20
    max_pixels: int = 60_000_000
    max_request_bytes: int = 256 * 2**20
    max_files: int = 100
    max_waiting: int = 128
    max_waiting_bytes: int = 2**30
    upload_seconds: float = 60.0
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UsageError(f"--port must be from 0 to 65535, got {self.port}")
        for name in ("jobs", "retention_days", "max_bytes", "max_pixels", "max_request_bytes", "max_files",
                     "max_waiting", "max_waiting_bytes", "upload_seconds"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:  # so put, no NaN is let through
                raise UsageError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
        if self.retention_days is not None and self.keep_photos is None:
            raise UsageError("--retention-days needs --keep-photos DIR: without it no photograph is kept")
        if self.host not in LOOPBACK and self.token_file is None:
            raise UsageError(
                f"on {self.host} other machines reach this server, so it needs --token-file FILE; make one with "
                "--new-token NAME:ROLE --token-file FILE, or leave out --host"
            )

    @property
    def workers(self) -> int:
        """Photographs graded at once."""
        return self.jobs or cpu_count()

    def load_grader(self) -> Grader:
        """Return the grader that the server's threads share; raises BundleError or UsageError as `retigrade.load`."""
        return load(self.bundle, threads=1, operating_point=self.operating_point)
