"""Parts on Ray Data: an actor pool of workers, each with the bundle open, on this machine or on a cluster."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from retigrade.batch.plan import Part
from retigrade.batch.worker import PartOutcome, PartWorker, WorkerConfig
from retigrade.bundle import cpu_count
from retigrade.errors import UsageError, needs_extra
from retigrade.text import shown

_MOST_ROUNDS = 3  # over the parts whose task Ray gave up
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
# Of a core, that Ray counts for a worker, though it keeps one busy. Ray fills a node to one half before it takes the
# next, so that there are as many workers as cores; and those of a node that was lost find room on the others.
_CPUS = 0.5
_MOST_STARTS = 3
_STORE_BYTES = 128 * 2**20  # of Ray's object store here: places of parts and outcomes are small


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Runs parts on Ray.

    address: of a cluster (auto, HOST:PORT or ray://HOST:PORT), None starts Ray on this machine. workers: actors, None
    one a core. gpus: of each actor. worker: its class.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0
    worker: type[PartWorker] = PartWorker

    def check(self, *addresses: str) -> None:
        """Raise UsageError on an address that only this process knows."""
        for address in addresses:
            if address.startswith("memory:"):
                raise UsageError(
                    f"{shown(address)}: memory is of one process alone, and workers are others; name a store"
                )

    @contextmanager
    def started(self) -> Iterator[int]:
        """Start or join Ray, yield the number of workers, and leave it.

        Raises UsageError where Ray is not installed or cannot be reached.
        """
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        with needs_extra("batch"):
            import ray
            import ray.data
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        own = not ray.is_initialized()
        if own:
            self._init(ray)
        try:
            resources = ray.cluster_resources()
            possible = int(resources.get("GPU", 0) / self.gpus) if self.gpus else int(resources.get("CPU", 1))
            if possible < 1:
                raise UsageError("the cluster has no GPU; leave the device to be the cpu")
            yield min(self.workers or possible, possible)
        finally:
            if own:
                ray.shutdown()

    def _init(self, ray: Any) -> None:
        quiet = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        local: dict[str, Any] = {} if self.address is not None else {"num_cpus": self.workers or cpu_count(), **quiet}
        address = "local" if self.address is None else self.address
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            for attempt in range(_MOST_STARTS):
                try:
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
                    return
                except (
                    Exception
                ) as error:  # Ray's own have no common base; a busy machine may need longer than it waits
                    ray.shutdown()
                    if self.address is not None or attempt == _MOST_STARTS - 1:
                        raise UsageError(self._unreachable(error)) from error
        finally:
            if threading.current_thread() is threading.main_thread() and terminate is not None:
                signal.signal(signal.SIGTERM, terminate)  # Ray takes it; an interrupt means the same to every command

    def _unreachable(self, error: Exception) -> str:
        reason = shown(str(error).partition("\n")[0])
        if self.address is None:
            return f"Ray cannot be started on this machine: {reason}"
        return (
            f"Ray cannot be reached at {shown(self.address)}: {reason}; start it there with `ray start --head`, or "
            "leave --address out"
        )

    def run(self, parts: Sequence[Part], config: WorkerConfig, *, workers: int) -> Iterator[PartOutcome]:
        """Yield the outcome of each part, as it is ready.

        A part whose worker died is graded again. Raises UsageError where parts are lost again and again.
        """
        left = {part.number: part for part in parts}
        for _ in range(_MOST_ROUNDS):
            for outcome in self._round(list(left.values()), config, workers=workers):
                if left.pop(outcome.number, None) is not None:
                    yield outcome
            if not left:
                return
        raise UsageError(
            f"{len(left)} parts could not be graded: their workers died each time; the same command goes on"
        )

    def _round(self, parts: Sequence[Part], config: WorkerConfig, *, workers: int) -> Iterator[PartOutcome]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        context.print_on_execution_start = False
        workers = min(workers, len(parts))
        dataset = ray.data.from_items(
            [{"part": json.dumps(asdict(part))} for part in parts], override_num_blocks=len(parts)
        ).map_batches(
            self.worker,
            fn_constructor_args=(config,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=None if self.gpus else _CPUS,
            num_gpus=self.gpus or None,
        )
        try:
            for row in dataset.iter_rows():
                yield PartOutcome(**json.loads(row["outcome"]))
        except ray.exceptions.RayError as error:  # a worker that cannot start, most often
            reason = str(error.cause if isinstance(error, ray.exceptions.RayTaskError) else error).strip()
            raise UsageError(
                f"Ray has given up: {shown(reason.splitlines()[-1] if reason else repr(error))}"
            ) from error
