"""`retigrade listen`: a DICOM node that grades what cameras send it and files the results in an archive."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import BundleFile, Command, Jobs, OperatingPointName, notice
from retigrade.errors import UsageError

if TYPE_CHECKING:
    from retigrade.dicom.node import NodeConfig

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, kw_only=True)
class Listen(Command):
    """Take DICOM photographs by C-STORE, grade them, and send a structured report and a thermal map to an archive.

    What was answered with success is graded even after a power cut: the queue is on disk. Ends with Ctrl-C or SIGTERM.
    """

    aet: Annotated[str, tyro.conf.arg(metavar="AET")] = "RETIGRADE"
    """This node's AE title; callers must name it."""

    host: Annotated[str, tyro.conf.arg(metavar="HOST")] = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is all of them."""

    port: Annotated[int, tyro.conf.arg(metavar="P")] = 11112
    """The port to listen on."""

    forward: Annotated[str | None, tyro.conf.arg(metavar="AET@HOST:PORT", help_behavior_hint="")] = None
    """The archive that results are sent to; without one they stay in the queue's folder."""

    allow: Annotated[str | None, tyro.conf.arg(metavar="AET,...", help_behavior_hint="(default: every caller)")] = None
    """The AE titles of the callers that are let in."""

    queue: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("retigrade-node")
    """The folder of the queue: what waits, what is done, and the dead letters."""

    keep_days: Annotated[int, tyro.conf.arg(metavar="N")] = 30
    """Days for which records of graded photographs are kept; one that comes again after that is graded again."""

    bundle: BundleFile = None
    """The network and all that belongs to it."""

    operating_point: OperatingPointName = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    jobs: Jobs = None
    """Photographs at work at once."""

    associations: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Callers at once; more are refused."""

    tls_certificate: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Listen with TLS only, with this PEM certificate and its key."""

    tls_key: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The key of the certificate, where it is in a file of its own."""

    tls_authority: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Let in only callers with a certificate of this authority, and trust it for the archive."""

    forward_tls: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Send to the archive with TLS."""

    dead_letters: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """List what could not be graded or delivered, and why, count what waits, and end."""

    retry: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Take up the dead letters again: deliver the documents, grade the photographs anew."""

    def run(self) -> int:
        """Listen until interrupted."""
        if find_spec("pynetdicom") is None:
            raise UsageError("listen needs packages that are not installed: install Retigrade with its extra dicom")
        from retigrade.dicom.spool import Spool

        if self.dead_letters:
            spool = Spool(self.queue)
            for path, reason in spool.dead():
                print(f"{path}: {reason}")
            waiting, outgoing = len(list(spool.waiting())), len(spool.outgoing())
            notice(f"waiting: {waiting} photographs to grade, {outgoing} documents to deliver")
            return 0
        config = self._config()

        from retigrade.dicom.node import Node
        from retigrade.grader import load

        grader = load(self.bundle, threads=1, operating_point=self.operating_point)
        node = Node(grader, self.queue, config)
        node.start(retry=self.retry)
        try:
            notice(f"{config.aet} listens on {config.host}:{node.port}; queue: {self.queue}; research use only")
            if config.host not in _LOOPBACK and not (config.allow and config.tls):
                notice("reachable from other machines without --allow and TLS: anyone there can send and be graded")
            if letters := len(list(node.spool.dead())):
                notice(f"{letters} dead letters; --dead-letters lists them, --retry takes them up")
            threading.Event().wait()
        except KeyboardInterrupt:
            notice("ends when the photographs under way are done; what waits is taken up at the next start")
        finally:
            node.stop()
        return 0

    def _config(self) -> NodeConfig:
        from retigrade.bundle import cpu_count
        from retigrade.dicom.forward import Peer
        from retigrade.dicom.node import NodeConfig

        if not 0 <= self.port < 65536:
            raise UsageError(f"--port must be from 0 to 65535, got {self.port}")
        if self.associations < 1 or (self.jobs is not None and self.jobs < 1):
            raise UsageError("--associations and --jobs must be 1 or more")
        return NodeConfig(
            aet=self.aet,
            host=self.host,
            port=self.port,
            allow=tuple(title.strip() for title in self.allow.split(",")) if self.allow is not None else (),
            forward=None if self.forward is None else Peer.of(self.forward),
            jobs=self.jobs or cpu_count(),
            associations=self.associations,
            keep_days=self.keep_days,
            tls=self._listener_tls(),
            forward_tls=self._sender_tls(),
        )

    def _listener_tls(self) -> ssl.SSLContext | None:
        if self.tls_certificate is None:
            if self.tls_key is not None:
                raise UsageError("--tls-key needs --tls-certificate FILE")
            if self.tls_authority is not None and not self.forward_tls:
                raise UsageError("--tls-authority needs --tls-certificate FILE, or --forward-tls")
            return None
        context = self._context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        if self.tls_authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sender_tls(self) -> ssl.SSLContext | None:
        if not self.forward_tls:
            return None
        context = self._context(ssl.Purpose.SERVER_AUTH)
        context.check_hostname = False  # archives go by AE title; their certificate must still be of the authority
        if self.tls_certificate is not None:
            self._load(context)
        return context

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        if self.tls_authority is not None and not self.tls_authority.is_file():
            raise UsageError(f"--tls-authority: there is no file {self.tls_authority}")
        try:
            return ssl.create_default_context(purpose, cafile=self.tls_authority)
        except OSError as error:  # SSLError is one
            raise UsageError(f"--tls-authority cannot be used as certificates in PEM: {error}") from None

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(str(self.tls_certificate), None if self.tls_key is None else str(self.tls_key))
        except (OSError, ssl.SSLError) as problem:
            raise UsageError(f"--tls-certificate and --tls-key cannot be used: {problem}") from None
