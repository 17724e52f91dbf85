"""A DICOM node: takes photographs by C-STORE, grades them, and sends what it makes of them to an archive.

Four kinds of threads hand the work on, so that none waits for disk or network while another could compute: those of
the associations receive, the workers grade and make documents, one files what is done, several images at once, and
one delivers.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from retigrade.dicom.forward import Peer, Sender, is_title
from retigrade.dicom.header import PHOTOGRAPHS
from retigrade.dicom.output import documents_of
from retigrade.dicom.photograph import list_dicom
from retigrade.dicom.pixels import READABLE
from retigrade.dicom.spool import Finished, Spool
from retigrade.errors import UnreadablePhoto, UsageError
from retigrade.fundus.decode import MAX_BYTES
from retigrade.grader import Grader
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.output.illustrate import HeatPictures, draw
from retigrade.output.rows import json_line
from retigrade.text import shown

_SUCCESS, _OUT_OF_RESOURCES, _REFUSED = 0x0000, 0xA700, 0x0124  # PS3.7, annex C; PS3.4, B.2.3
_FAILURES = 2  # internal errors with one image until it waits for the next start
_PICTURES = HeatPictures(format="jpeg")
_PDU_BYTES = 2**17  # that a caller may send at once: fewer pieces are sooner put together
_POLL = 0.02  # seconds between two looks of an association's threads for what has come
_DECODED = 0.001  # seconds from a message's arrival until pynetdicom has it in its queue
_SWEEP = 3600.0  # seconds between two looks for old records
_DAY = 86_400.0
_UNFILED = 32  # images graded and not filed yet, at most
_DISK_WAIT = 10.0  # seconds until a full disk is tried again
_config.LOG_HANDLER_LEVEL = "none"  # the text of messages that nobody reads takes as long as receiving an image
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """How a node listens. allow: the calling AE titles let in, all where empty. tls: of the listener and the sender.

    keep_days: for how long it remembers what it graded; an image that comes again after that is graded again.
    """

    aet: str = "RETIGRADE"
    host: str = "127.0.0.1"
    port: int = 11112
    allow: Sequence[str] = ()
    forward: Peer | None = None
    jobs: int = 1
    associations: int = 16
    max_bytes: int = MAX_BYTES
    keep_days: int = 30
    tls: ssl.SSLContext | None = None
    forward_tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise UsageError(f"records are kept for 1 day or more, got {self.keep_days}")
        for title in (self.aet, *self.allow):
            if not is_title(title):
                raise UsageError(
                    f"an AE title has 1 to 16 printable ASCII characters, no backslash, not only blanks; got {title!r}"
                )


class _Paced(threading.Event):
    """The event that pynetdicom asks a thousand times a second whether an association may go on.

    Here it lets the association look when a message has come, or `_POLL` after its last look.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as any event does, and then for a message, a moment at most."""
        is_set = super().wait(timeout)
        if self.came.wait(_POLL):
            self.came.clear()
            time.sleep(_DECODED)
        return is_set


class Node:
    """Listens, grades and delivers in threads of its own, from `start` to `stop`."""

    def __init__(self, grader: Grader, folder: Path, config: NodeConfig) -> None:
        """Open the spool in `folder`; UsageError where it cannot be written."""
        self.spool = Spool(folder)
        self._grader, self._config = grader, config
        self._keys: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._finished: queue.Queue[Finished | None] = queue.Queue(_UNFILED)
        self._stopping = threading.Event()
        self._owners = threading.Lock()
        self._received: dict[int, int] = {}
        self._patients: dict[str, tuple[str | None, float]] = {}  # of a study: its patient, and when it was last seen
        self._swept = 0.0
        self._failures: dict[str, int] = {}
        self._server: Any = None
        self._sender = (
            None
            if config.forward is None
            else Sender(self.spool, config.forward, aet=config.aet, tls=config.forward_tls)
        )
        self._workers = [
            threading.Thread(target=self._work, name=f"retigrade-grade-{number}", daemon=True)
            for number in range(config.jobs)
        ]
        self._filer = threading.Thread(target=self._file, name="retigrade-file", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self, *, retry: bool = False) -> None:
        """Take up what an earlier process left, and listen; retry: dead letters, too.

        Raises UsageError where queue or port are not to be had.
        """
        self.spool.claim()
        if retry:
            self.spool.revive()
        self._sweep()
        for record in self.spool.records():
            # One that says nothing of what was filed, and has a problem, may name a study that is another patient's.
            if record.get("study") and record.get("filed", not record.get("problem")):
                self._patients.setdefault(record["study"], (record.get("patient"), time.time()))
        for key in self.spool.waiting():
            self._keys.put(key)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._open),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_ECHO, lambda event: _SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_DIMSE_RECV, lambda event: self._forget(event)),
            (evt.EVT_CONN_CLOSE, lambda event: self._forget(event)),
        ]
        config = self._config
        try:
            self._server = self._entity().start_server(
                (config.host, config.port), block=False, ssl_context=config.tls, evt_handlers=handlers
            )
        except OSError as problem:
            self.spool.release()
            raise UsageError(f"cannot listen on {config.host}:{config.port}: {problem.strerror or problem}") from None
        for thread in (self._filer, *self._workers):
            thread.start()
        if self._sender is not None:
            self._sender.start()

    def stop(self) -> None:
        """Let nobody in any more, finish the photographs under way, and end; a new node takes up what waits."""
        server, self._server = self._server, None
        if server is None:
            return
        self._stopping.set()
        server.shutdown()
        while True:  # what waits lies in the spool
            try:
                self._keys.get_nowait()
            except queue.Empty:
                break
        for _ in self._workers:
            self._keys.put(None)
        for worker in self._workers:
            worker.join()
        self._finished.put(None)
        self._filer.join()
        if self._sender is not None:
            self._sender.stop()
        self.spool.release()

    def _entity(self) -> AE:
        config = self._config
        entity = AE(ae_title=config.aet)
        entity.require_called_aet = True
        entity.require_calling_aet = list(config.allow)
        entity.maximum_associations = config.associations
        entity.maximum_pdu_size = _PDU_BYTES
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = 30, 60, 60
        entity.add_supported_context(Verification)
        for sop_class in PHOTOGRAPHS:
            entity.add_supported_context(sop_class, [UID(syntax) for syntax in READABLE])
        return entity

    # Receiving, in the threads of the associations --------------------------------------------------------------------

    def _store(self, event: Event) -> int:
        """Answer a C-STORE: Success only once the image is on the disk."""
        try:
            key = self.spool.accept(event.encoded_dataset(include_meta=True))
        except UsageError as problem:
            _logger.warning("an image cannot be kept: %s", problem)
            return _OUT_OF_RESOURCES
        except Exception as error:
            _logger.warning("an image cannot be taken: %s: %s", type(error).__name__, error)
            return _REFUSED
        if key is not None:
            self._keys.put(key)
        return _SUCCESS

    def _open(self, event: Event) -> None:
        """Let an association's threads look for what has come 50 times a second, not 1,000 times: each look costs."""
        event.assoc.dul._run_loop_delay = _POLL
        event.assoc._reactor_checkpoint = _Paced()

    def _rejected(self, event: Event) -> None:
        """Say who was not let in, since the caller's own screen rarely does."""
        caller = event.assoc.requestor
        titles = [str(getattr(caller.primitive, f"{side}_ae_title", "")) for side in ("calling", "called")]
        calling, called = (shown(title.strip()) for title in titles)
        _logger.warning(
            "refused: %s from %s, which calls this node %s (it is %s; callers: %s; %d associations at once)",
            calling,
            caller.address,
            called,
            self._config.aet,
            ", ".join(self._config.allow) or "all",
            self._config.associations,
        )

    def _count(self, event: Event) -> None:
        """Break off an association whose message grows beyond the limit: it would be kept in memory whole."""
        pdu = event.pdu
        if not isinstance(pdu, P_DATA_TF):
            return
        name = id(event.assoc)
        self._received[name] = self._received.get(name, 0) + int(pdu.pdu_length)
        if self._received[name] > self._config.max_bytes:
            _logger.warning("an image of more than %d bytes is not taken", self._config.max_bytes)
            event.assoc.abort()

    def _forget(self, event: Event) -> None:
        """Count anew from the next message, and let the association look at the one that has come."""
        self._received.pop(id(event.assoc), None)
        checkpoint = event.assoc._reactor_checkpoint
        if isinstance(checkpoint, _Paced):
            checkpoint.came.set()

    # Grading, in the workers ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (key := self._keys.get()) is not None:
            try:
                self._finished.put(self._grade(key))
            except Exception as error:  # ours or the disk's; the other images must not pay for it
                _logger.warning("an image could not be graded: %s: %s", type(error).__name__, error)
                _logger.debug("grading %s failed", key, exc_info=True)
                self._failures[key] = self._failures.get(key, 0) + 1
                if self._failures[key] < _FAILURES:
                    self._keys.put(key)

    def _grade(self, key: str) -> Finished:
        path = self.spool.image(key)
        items = list(list_dicom(path, key, keep=True, nested=True))
        documents: dict[str, bytes] = {}
        rows: list[str] = []
        problem: str | None = None
        for item in items:
            grading = self._grader.grade(item)
            # The picture names no file: this one's name says nothing to who reads it.
            verdict = draw(replace(grading, path=""), item, heat=_PICTURES, thumbnail=False)
            rows.append(json_line(replace(verdict.row, path=grading.path)))
            if verdict.row.status == Status.ERROR:
                problem = "; ".join(verdict.row.reasons)
                continue
            try:
                made = documents_of(item, verdict)
                if made:  # what cannot be filed takes no study
                    self._check_owner(item)
            except UnreadablePhoto as error:
                problem = str(error)
                continue
            documents |= {f"{item.frame or 1}.{kind}": data for kind, data in made.items()}
        if problem is not None:
            _logger.warning("set aside: %s", problem)
            self.spool.keep_copy(path, problem)
        study, patient = (items[0].study, items[0].subject.patient) if documents else (None, None)
        record = {"rows": rows, "study": study, "patient": patient, "filed": bool(documents), "problem": problem}
        return Finished(key=key, documents=documents, record=record)

    def _check_owner(self, item: Input) -> None:
        if item.study is None:
            return
        with self._owners:
            owner, _ = self._patients.get(item.study, (item.subject.patient, 0.0))
            self._patients[item.study] = owner, time.time()
        if owner != item.subject.patient:
            raise UnreadablePhoto(f"{item.name}: its study names another patient already, no document is filed")

    # Filing, in a thread of its own -----------------------------------------------------------------------------------

    def _file(self) -> None:
        """Bring what is done to the disk: everything that waits, at once."""
        while True:
            self._sweep()
            try:
                first = self._finished.get(timeout=_SWEEP)
            except queue.Empty:
                continue
            if first is None:
                return
            images, ended = [first], False
            while not ended:
                try:
                    following = self._finished.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    images.append(following)
            self._keep(images)
            if ended:
                return

    def _sweep(self) -> None:
        """Forget what was graded long ago, once in a while."""
        now = time.time()
        if now - self._swept < _SWEEP:
            return
        self._swept, limit = now, now - self._config.keep_days * _DAY
        try:
            self.spool.forget(before=limit)
        except OSError as problem:
            _logger.warning("old records cannot be removed: %s", problem.strerror)
        with self._owners:
            self._patients = {study: owner for study, owner in self._patients.items() if owner[1] >= limit}

    def _keep(self, images: list[Finished]) -> None:
        """Write images' documents and records, again until the disk takes them or the node ends."""
        while True:
            try:
                written = self.spool.finish(images)
                break
            except Exception as problem:
                _logger.warning("%d graded images cannot be filed: %s", len(images), problem)
                if self._stopping.wait(_DISK_WAIT):
                    return  # they stay in the queue, and are graded at the next start
        if self._sender is not None and written:
            self._sender.wake()
