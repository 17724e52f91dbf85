"""`retigrade`, as a command or as `python -m retigrade`.

Nothing but the interpreter's own modules is imported at first: an interrupt while the program starts must end it
without a word of Python, and a closed stream must be opened before a file can take its number.
"""

import os
import sys

# pydantic would look for plug-ins in every installed package, which takes as long as grading a photograph.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from retigrade.signals import ignore_interrupts, leave_on_interrupt


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process if not given."""
    leave_on_interrupt()
    _open_streams()
    from retigrade.cli import main as run

    code = run(arguments)
    ignore_interrupts()  # Python shows a traceback for one that comes this late
    return code


def _open_streams() -> None:
    """Lead a closed standard stream nowhere; the next file that is opened would take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
