"""The exception tree: every error a user can cause, and the exit code that goes with it.

RetigradeError
├── PhotoError            one input cannot be used; the others go on (exit code 1 at the end)
│   ├── UnreadablePhoto   the file is missing, empty, truncated, too large or not a picture
│   └── NotAFundus        the picture holds no retinal field that can be graded
│       └── SeveralEyes   it holds more than one
├── BundleError           the bundle file is missing, altered, or does not fit (exit code 2)
├── DataError             the labelled folder, CSV or split cannot be used (exit code 2)
│   └── LeakError         two parts of a split share a photograph, a duplicate or a patient
└── UsageError            a wrong option, name or output folder (exit code 2)
"""

from collections.abc import Iterator
from contextlib import contextmanager


class RetigradeError(Exception):
    """Base of all errors that are the input's doing; its text is one sentence for the user."""

    exit_code = 2


class PhotoError(RetigradeError):
    """One photo cannot be used; the others go on."""

    exit_code = 1


class UnreadablePhoto(PhotoError):
    """The file is missing, empty, truncated, too large, or not a picture."""


class NotAFundus(PhotoError):
    """The picture holds no retinal field that can be graded."""


class SeveralEyes(NotAFundus):
    """The picture holds more than one retinal field, which one verdict cannot cover."""


class BundleError(RetigradeError):
    """The bundle file is missing, altered, or does not fit this program."""


class DataError(RetigradeError):
    """The labelled folder, CSV or split cannot be used."""


class LeakError(DataError):
    """Two parts of a split share a photograph, a near-duplicate or a patient."""


class UsageError(RetigradeError):
    """A wrong option, name or output folder."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the lack of a package that only the optional dependencies `extra` install into a UsageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "retigrade":
            raise
        raise UsageError(
            f"this needs the package {error.name}, which is not installed; in a checkout of Retigrade, install it "
            f"with: pip install '.[{extra}]'"
        ) from error
