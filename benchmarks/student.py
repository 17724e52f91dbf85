"""How long a student takes from a checkout to a finished small reproduction: the commands of docs/student.md, timed.

    python benchmarks/student.py

Runs them as they stand there, after the installation, in a folder of its own, and looks at the report that they
leave.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import machine

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    text = (ROOT / "docs" / "student.md").read_text(encoding="utf-8")
    commands = [
        line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    print(machine())
    total = worked = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            words = command.replace("retigrade paper", f"{sys.executable} -m retigrade paper").split()
            words[0] = sys.executable if words[0] == "python" else words[0]
            began, before = time.perf_counter(), _cpu_seconds()
            subprocess.run(words, cwd=folder, env=environment, check=True)
            seconds, cpu = time.perf_counter() - began, _cpu_seconds() - before
            total, worked = total + seconds, worked + cpu
            print(f"{seconds:6.1f} s, {cpu:6.1f} s of a core  {command}", flush=True)
        report = Path(folder, "out", "small", "report.md").read_text(encoding="utf-8")
    if "## In one page" not in report or "so far" in report:
        sys.exit("the report is not finished")
    print(f"{total:6.1f} s, {worked:6.1f} s of a core  {len(commands)} commands, from the installation to the report")


def _cpu_seconds() -> float:
    """Of the processes started so far: on a busy machine, what the wall clock does not tell."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
