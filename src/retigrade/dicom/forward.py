"""Delivery of finished documents to an archive by C-STORE, again and again until it takes them."""

from __future__ import annotations

import logging
import re
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.sop_class import Comprehensive3DSRStorage, SecondaryCaptureImageStorage  # type: ignore[attr-defined]

from retigrade.dicom.dataset import hushed
from retigrade.dicom.documents import uncompressed
from retigrade.dicom.spool import Spool
from retigrade.errors import UsageError
from retigrade.text import shown

AE_TITLE = re.compile(r"[ -~]{1,16}")
_ADDRESS = re.compile(r"(?P<aet>[^@\\]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0  # seconds between tries
_REFUSALS = 3  # of one document by the archive until it is a dead letter
_TIMEOUT = 30
_IDLE = 5.0  # seconds that an association is kept for the next document
_CONTEXTS = (  # JPEG in a context of its own, so that an archive may refuse it and still take captures uncompressed
    (Comprehensive3DSRStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    (SecondaryCaptureImageStorage, [JPEGBaseline8Bit]),
    (SecondaryCaptureImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
)
_AS_WRITTEN = {
    (Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    (SecondaryCaptureImageStorage, JPEGBaseline8Bit),
}
_config.STORE_SEND_CHUNKED_DATASET = True  # a file is sent as it lies on the disk, not read and written anew
_config.LOG_HANDLER_LEVEL = "none"  # the text of messages that nobody reads takes as long as sending
_logger = logging.getLogger(__name__)


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
        if found is None or not AE_TITLE.fullmatch(found["aet"]) or not 0 < int(found["port"]) < 65536:
            raise UsageError(f"--forward needs AET@HOST:PORT, such as PACS@127.0.0.1:4242, got {text!r}")
        return cls(found["aet"].strip(), found["host"].strip("[]"), int(found["port"]))

    def __str__(self) -> str:
        return f"{self.aet}@{self.host}:{self.port}"


class Sender:
    """A thread that delivers what lies in the spool's `outgoing`; it backs off while the archive is away."""

    def __init__(self, spool: Spool, peer: Peer, *, aet: str, tls: ssl.SSLContext | None = None) -> None:
        """Prepare the thread; nothing is sent before `start`."""
        self._spool, self._peer, self._tls = spool, peer, tls
        self._ae = AE(ae_title=aet)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = _TIMEOUT
        self._ae.connection_timeout = _TIMEOUT
        for sop_class, syntaxes in _CONTEXTS:
            self._ae.add_requested_context(sop_class, syntaxes)
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
        if not paths:
            return True
        association = self._association
        if association is None or not association.is_established:
            association = self._ae.associate(
                self._peer.host,
                self._peer.port,
                ae_title=self._peer.aet,
                tls_args=(self._tls, self._peer.host) if self._tls else None,
            )
            if not association.is_established:
                _logger.warning("%s does not answer or refuses; %d documents wait", self._peer, len(paths))
                return False
            self._association = association
        left = [path for path in paths if not self._send(association, path)]  # one refused must not hold up others
        return not left

    def _release(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _send(self, association: Association, path: Path) -> bool:
        if self._stopped.is_set() or not association.is_established:
            return False
        try:
            with hushed():
                document = _as_accepted(path, association)
            status = association.send_c_store(document).get("Status")
        except (ValueError, RuntimeError) as problem:  # no context for its class, or the association broke off
            if not association.is_established:
                return False
            return self._refuse(path, str(problem))
        except (OSError, AttributeError, pydicom.errors.InvalidDicomError) as problem:
            return self._refuse(path, f"it is no DICOM file any more ({problem})")
        if status is None:
            return False
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


def _as_accepted(path: Path, association: Association) -> Path | FileDataset:
    """Return a document as the archive takes it: the file, or its data set in a syntax that was agreed on."""
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    if accepted >= _AS_WRITTEN:
        return path
    meta = pydicom.filereader.read_file_meta_info(path)
    syntaxes = {syntax for sop_class, syntax in accepted if sop_class == meta.MediaStorageSOPClassUID}
    if meta.TransferSyntaxUID in syntaxes or not syntaxes:  # where it takes none of this class, sending it says so
        return path
    dataset = pydicom.dcmread(path)
    return uncompressed(dataset) if meta.TransferSyntaxUID == JPEGBaseline8Bit else dataset
