"""What the commands on labelled photographs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retigrade.errors import UsageError


@contextmanager
def needs_train() -> Iterator[None]:
    """Turn the lack of a package that only the extra `train` installs into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "retigrade":
            raise
        raise UsageError(f'this command needs {error.name}; install it with: pip install "retigrade[train]"') from error


def cores() -> int:
    """How many cores this process may use."""
    from retigrade.bundle import cpu_count

    return cpu_count()


def checked_jobs(jobs: int | None) -> int:
    """The photographs at work at once: as asked, or one a core; UsageError below 1."""
    if jobs is None:
        return cores()
    if jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {jobs}")
    return jobs
