"""The command line: each subcommand is one dataclass, listed here."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import tyro

from retigrade import __version__
from retigrade.cli.batch import BatchCommand
from retigrade.cli.check import Check
from retigrade.cli.command import BROKEN_PIPE, Command, notice
from retigrade.cli.compare import Compare
from retigrade.cli.ensemble import Ensemble
from retigrade.cli.evaluate import Evaluate
from retigrade.cli.grade import GradeCommand
from retigrade.cli.info import Info
from retigrade.cli.listen import Listen
from retigrade.cli.paper import Paper
from retigrade.cli.quantize import Quantize
from retigrade.cli.serve import Serve
from retigrade.cli.train import Train
from retigrade.cli.tune import Tune
from retigrade.errors import RetigradeError, UsageError
from retigrade.signals import INTERRUPTED, interruptible

COMMANDS: dict[str, type[Command]] = {
    "grade": GradeCommand,
    "check": Check,
    "train": Train,
    "evaluate": Evaluate,
    "tune": Tune,
    "compare": Compare,
    "ensemble": Ensemble,
    "quantize": Quantize,
    "paper": Paper,
    "info": Info,
    "batch": BatchCommand,
    "listen": Listen,
    "serve": Serve,
}

_USAGE = 2
_DESCRIPTION = """Grades diabetic retinopathy in fundus photographs and shows where. Research use only.

Exit codes: 0, every input has a verdict; 1, some could not be read; 2, wrong usage, bundle or data set; 130,
interrupted (Ctrl-C, SIGTERM or SIGHUP); 141, whoever read the output left. --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process if not given."""
    debug = False
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        debug = command.debug
        with _log_to_stderr(debug=debug), nullcontext() if command.handles_signals else interruptible():
            code = command.run()
            sys.stdout.flush()
            return code
    except SystemExit as done:  # the parser has printed its help or what is wrong
        return done.code if isinstance(done.code, int) else _USAGE
    except KeyboardInterrupt:
        notice("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        from retigrade.output.stdout import abandon

        abandon(sys.stdout)
        return BROKEN_PIPE
    except RetigradeError as error:
        if debug:
            raise
        notice(f"retigrade: {error}")
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        notice(f"retigrade: internal error: {type(error).__name__}: {error}; --debug shows where")
        return _USAGE


def _parse(arguments: Sequence[str]) -> Command:
    if arguments and arguments[0] == "--version":
        print(f"retigrade {__version__}")
        raise SystemExit(0)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise UsageError(f"there is no command {arguments[0]!r}; {_nearest(arguments[0])}")
    return tyro.extras.subcommand_cli_from_dict(
        dict(COMMANDS),
        prog="retigrade",
        description=_DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _nearest(word: str) -> str:
    nearest = difflib.get_close_matches(word.lower(), COMMANDS, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(COMMANDS)}"


@contextmanager
def _log_to_stderr(*, debug: bool) -> Iterator[None]:
    """Show what the package logs: warnings, and with `debug` everything."""
    logger, handler = logging.getLogger("retigrade"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
