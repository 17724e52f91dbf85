"""Grades diabetic retinopathy in fundus photographs, shows where, and says whether the answer may be trusted.

grader = retigrade.load()
grading = grader.grade("eye.jpg")
"""

import os

# Before ONNX Runtime is imported: some releases leave an identifier in the temporary folder and report their use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TYPE_CHECKING = False  # as typing has it, without the time that importing it takes: `__main__` listens to Ctrl-C soon
if TYPE_CHECKING:
    from typing import Any

    from retigrade.bundle import Bundle
    from retigrade.data.audit import check
    from retigrade.errors import (
        BundleError,
        DataError,
        LeakError,
        NotAFundus,
        PhotoError,
        RetigradeError,
        SeveralEyes,
        UnreadablePhoto,
        UsageError,
    )
    from retigrade.evaluation.evaluate import evaluate
    from retigrade.evaluation.tuning import tune
    from retigrade.experiments.compare import compare
    from retigrade.experiments.ensemble import ensemble
    from retigrade.experiments.run import train
    from retigrade.grader import Grader, load
    from retigrade.grading import Grading
    from retigrade.icdr import Grade, Status
    from retigrade.synthetic import write_eyes

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "BundleError",
    "DataError",
    "Grade",
    "Grader",
    "Grading",
    "LeakError",
    "NotAFundus",
    "PhotoError",
    "RetigradeError",
    "SeveralEyes",
    "Status",
    "UnreadablePhoto",
    "UsageError",
    "check",
    "compare",
    "ensemble",
    "evaluate",
    "load",
    "train",
    "tune",
    "write_eyes",
]

_HOMES = {
    "Bundle": "retigrade.bundle",
    "Grade": "retigrade.icdr",
    "Grader": "retigrade.grader",
    "Grading": "retigrade.grading",
    "Status": "retigrade.icdr",
    "check": "retigrade.data.audit",
    "compare": "retigrade.experiments.compare",
    "ensemble": "retigrade.experiments.ensemble",
    "evaluate": "retigrade.evaluation.evaluate",
    "load": "retigrade.grader",
    "train": "retigrade.experiments.run",
    "tune": "retigrade.evaluation.tuning",
    "write_eyes": "retigrade.synthetic",
}


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first asked for, so that importing the package costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES.get(name, "retigrade.errors")), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
