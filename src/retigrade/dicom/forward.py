"""Delivery of finished documents to an archive by C-STORE, again and again until it takes them."""

from __future__ import annotations

import logging
import re
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from retigrade.dicom.association import Association, AssociationError, Context, associate
from retigrade.dicom.spool import Spool
from retigrade.errors import UsageError
from retigrade.text import shown

_AE_TITLE = re.compile(r"[ -~]{1,16}")
_ADDRESS = re.compile(r"(?P<aet>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0  # seconds between tries
_REFUSALS = 3  # of one document by the archive until it is a dead letter
_TIMEOUT = 30
_IDLE = 5.0  # seconds that an association is kept for the next document
_CONTEXTS = (  # JPEG in a context of its own, so that an archive may refuse it and still take captures uncompressed
    Context(Comprehensive3DSRStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    Context(SecondaryCaptureImageStorage, [JPEGBaseline8Bit]),
    Context(SecondaryCaptureImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
)
_logger = logging.getLogger(__name__)


def is_title(text: str) -> bool:
    """Whether a text is an AE title (PS3.5, 6.2): blanks alone are none, and a backslash would make two of it."""
    return _AE_TITLE.fullmatch(text) is not None and text.strip() != "" and "\\" not in text


@dataclass(frozen=True, slots=True)
class Peer:
    """Another DICOM node: its AE title, host and port."""

    aet: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Peer:
        """Read `AET@HOST:PORT`; raises UsageError where it is not that."""
        found = _ADDRESS.fullmatch(text)
        if found is None or not is_title(found["aet"]) or not 0 < int(found["port"]) < 65536:
            raise UsageError(f"--forward needs AET@HOST:PORT, such as PACS@127.0.0.1:4242, got {text!r}")
        return cls(found["aet"].strip(), found["host"].strip("[]"), int(found["port"]))

    def __str__(self) -> str:
        return f"{self.aet}@{self.host}:{self.port}"


class Sender:
    """A thread that delivers what lies in the spool's `outgoing`; it backs off while the archive is away."""

    def __init__(self, spool: Spool, peer: Peer, *, aet: str, tls: ssl.SSLContext | None = None) -> None:
        """Prepare the thread; nothing is sent before `start`."""
        self._spool, self._peer, self._aet, self._tls = spool, peer, aet, tls
        self._association: Association | None = None
        self._refused: dict[Path, int] = {}
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="retigrade-forward", daemon=True)

    def start(self) -> None:
        """Begin to deliver, with what an earlier process left."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new to deliver."""
        self._wake.set()

    def stop(self) -> None:
        """End after the document under way."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        wait = _FIRST_WAIT
        while not self._stopped.is_set():
            if not self._wake.wait(_IDLE if self._association else None):
                self._release()  # nothing came for a while: the archive need not keep a place for us
                continue
            self._wake.clear()
            if self._stopped.is_set():
                break
            try:
                delivered = self._deliver()
            except Exception as error:  # an internal error must not end delivery for good
                _logger.warning("delivery failed: %s: %s", type(error).__name__, error)
                _logger.debug("delivery failed", exc_info=True)
                delivered = False
            if delivered:
                wait = _FIRST_WAIT
            else:
                self._release()
                self._stopped.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                self._wake.set()
        self._release()

    def _deliver(self) -> bool:
        """Send everything that waits; False where something is left."""
        paths = self._spool.outgoing()
        kept = self._association is not None
        left = []  # one that is refused must not hold up the others
        for path in paths:
            if self._stopped.is_set():
                return False
            try:
                if not self._send(path):
                    left.append(path)
            except AssociationError as problem:
                self._close()
                if kept:  # the archive may have ended an association that was idle: that is no failure yet
                    return self._deliver()
                _logger.warning("%s: %s; %d documents wait", self._peer, problem, len(self._spool.outgoing()))
                return False
            kept = False
        return not left

    def _opened(self) -> Association:
        if self._association is None:
            self._association = associate(
                self._peer.host,
                self._peer.port,
                called=self._peer.aet,
                calling=self._aet,
                contexts=_CONTEXTS,
                timeout=_TIMEOUT,
                tls=self._tls,
            )
        return self._association

    def _release(self) -> None:
        if self._association is not None:
            self._association.release()
        self._association = None

    def _close(self) -> None:
        if self._association is not None:
            self._association.close()
        self._association = None

    def _send(self, path: Path) -> bool:
        """Send one document; True where it needs no further try. Raises AssociationError."""
        association = self._opened()
        try:
            status = association.store(path.read_bytes())
        except (ValueError, OSError) as problem:
            return self._refuse(path, str(problem))
        if status == 0 or status & 0xF000 == 0xB000:  # success, or stored with a warning (PS3.4, B.2.3)
            self._spool.delivered(path)
            self._refused.pop(path, None)
            return True
        if status & 0xFF00 == 0xA700:  # out of resources: it may have some later
            _logger.warning("%s is out of resources", self._peer)
            return False
        return self._refuse(path, f"status 0x{status:04X}")

    def _refuse(self, path: Path, reason: str) -> bool:
        """Count a refusal; the last makes a dead letter, so that one document does not hold up the others for ever."""
        self._refused[path] = self._refused.get(path, 0) + 1
        _logger.warning("%s refuses %s: %s", self._peer, shown(path.name), reason)
        if self._refused[path] < _REFUSALS:
            return False
        del self._refused[path]
        self._spool.bury(path, f"refused by {self._peer} {_REFUSALS} times: {reason}")
        return True
