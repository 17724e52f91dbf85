"""The record of a training run, `run.json`: what ran, with what, on what and where, to be repeated and cited."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import retigrade
from retigrade.bundle import cpu_count
from retigrade.errors import DataError, UsageError
from retigrade.files import write_whole
from retigrade.metrics.estimate import Estimate
from retigrade.text import first_problem, shown

RUN = "run.json"
_PACKAGES = ("torch", "timm", "lightning-fabric", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "scipy")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFound(_Part):
    """The photographs of a run; grades: photographs of each grade; sources: of each data set."""

    folders: tuple[str, ...]
    photographs: int
    grades: tuple[int, ...]
    sources: dict[str, int]
    fingerprint: str
    left_out: tuple[str, ...]


class Machine(_Part):
    """Where a run ran; memory in bytes, None where the system does not say; accelerators by their names."""

    system: str
    processor: str
    cpus: int
    memory: int | None
    accelerators: tuple[str, ...]


class ExternalSet(_Part):
    """Photographs that were measured and never learned from or chosen on, and the figures of the graded ones."""

    data: str
    photographs: int
    graded: int
    fingerprint: str
    figures: dict[str, Estimate]


class RunRecord(_Part):
    """What `run.json` says.

    status: `running` until everything is written. options: as given to `retigrade.train`. recipe: with what the options
    changed in it. commit: of the checkout that ran, followed by `-dirty` where files were changed; None outside one.
    figures: of the graded test photographs, or of all out of fold, as in evaluation.json. mlflow: the run there.
    """

    format: Literal[1] = 1
    status: Literal["running", "finished"]
    started: str
    finished: str | None = None
    options: dict[str, Any]
    recipe: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    seed: int
    data: DataFound
    machine: Machine
    bundle: str | None = None
    figures: dict[str, Estimate] = Field(default_factory=dict)
    external: dict[str, ExternalSet] = Field(default_factory=dict)
    mlflow: str | None = None

    def write(self, folder: Path) -> None:
        """Write it whole; UsageError where that fails."""
        write_whole(folder / RUN, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's record; DataError where the folder holds none or it is not one."""
        path = folder / RUN
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{shown(str(folder))}: is not the folder of a training run: {RUN} cannot be read ({error.strerror})"
            ) from error
        except ValidationError as error:
            raise DataError(f"{path}: not the record of a training run ({first_problem(error)})") from error

    def check_same(self, other: RunRecord, folder: Path) -> None:
        """Raise UsageError, naming the first difference, where another record is of another run."""
        ours = {"data set": self.data.fingerprint, **self.options}
        theirs = {"data set": other.data.fingerprint, **other.options}
        for key, value in theirs.items():
            if ours.get(key) != value and key not in _FREE:
                name = key if key == "data set" else f"--{key.replace('_', '-')}"
                raise UsageError(
                    f"{shown(str(folder))} is of another {name}: {ours.get(key)}, this run has {value}; repeat that "
                    "run's options, or use another --out"
                )


_FREE = frozenset({"data", "external", "mlflow", "accelerator", "name", "license", "intended_use"})
"""Options that may differ when a run goes on: they change nothing that is learned."""


def versions() -> dict[str, str]:
    """The versions of Python, Retigrade and the packages that a training's numbers hang on."""
    found = {"python": platform.python_version(), "retigrade": retigrade.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with `-dirty` where tracked files differ from it."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", Path(__file__).name):  # a checkout of something else, with Retigrade inside it
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine(*, accelerators: Sequence[str]) -> Machine:
    """This machine."""
    memory = None
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(os.sysconf_names):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cpus=cpu_count(),
        memory=memory,
        accelerators=tuple(accelerators),
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
