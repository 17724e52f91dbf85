"""What `python -m retigrade.ROOM.MODULE` shares: one sentence and an exit code for what the user can mend."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from retigrade.errors import RetigradeError
from retigrade.text import shown

_Arguments = TypeVar("_Arguments")


def run_module(main: Callable[[_Arguments], None], arguments: type[_Arguments]) -> NoReturn:
    """Read the process's arguments as a dataclass of this type, call `main`, which may log, and leave."""
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main(tyro.cli(arguments))
    except RetigradeError as error:
        sys.stderr.write(f"{shown(str(error))}\n")
        sys.exit(error.exit_code)
    sys.exit(0)
