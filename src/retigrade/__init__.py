"""Grades diabetic retinopathy in fundus photographs, shows where, and says whether the answer may be trusted.

grader = retigrade.load()
grading = grader.grade("eye.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retigrade.grader import Grader, load
    from retigrade.grading import Grading
    from retigrade.icdr import Grade, Status

__all__ = ["Grade", "Grader", "Grading", "Status", "load"]
__version__ = "0.2.0"

_HOMES = {
    "Grade": "retigrade.icdr",
    "Grader": "retigrade.grader",
    "Grading": "retigrade.grading",
    "Status": "retigrade.icdr",
    "load": "retigrade.grader",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
