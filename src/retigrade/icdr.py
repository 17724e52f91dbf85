"""What an input can come to: a grade of the International Clinical Diabetic Retinopathy scale, or why there is none.

ICDR: Wilkinson et al., Ophthalmology 110, 2003.
"""

from enum import IntEnum, StrEnum


class Grade(IntEnum):
    """Stage of diabetic retinopathy, 0 to 4, in order of severity."""

    NONE = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3
    PROLIFERATIVE = 4

    @property
    def stage(self) -> str:
        """The stage's name, in lower case."""
        return self.name.lower()


GRADES = tuple(Grade)
REFERABLE_FROM = Grade.MODERATE


class Status(StrEnum):
    """What became of one input."""

    GRADED = "graded"
    UNGRADABLE = "ungradable"
    NOT_FUNDUS = "not_fundus"
    ERROR = "error"
