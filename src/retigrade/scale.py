"""The International Clinical Diabetic Retinopathy scale (ICDR, Wilkinson et al. 2003)."""

from enum import IntEnum


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
