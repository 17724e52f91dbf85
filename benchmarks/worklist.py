"""The worklist page with thousands of rows in a real browser: its size, first paint, and the time of a filter.

    pip install '.[dev]' && apt install chromium
    python benchmarks/worklist.py [--rows 5000]

Rows are drawn at random: four photographs a patient, two eyes on two days.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import retigrade
from retigrade.icdr import GRADES
from retigrade.output.patients import visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import Row
from retigrade.output.worklist import Tile, worklist_page
from timing import machine

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
FILTER = """words => {
  const started = performance.now(), search = document.getElementById('search');
  search.value = words; search.dispatchEvent(new Event('input')); document.body.offsetHeight;
  return performance.now() - started;
}"""


def rows(count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(count):
        p = rng.dirichlet([0.6] * 5)
        grade, refers = int(p.argmax()), float(p[2:].sum())
        drawn.append(
            Row(
                path=f"clinic/P{number // 4:05d}_{number % 4}.jpg", status="graded", grade=grade,
                stage=GRADES[grade].stage, p0=p[0], p1=p[1], p2=p[2], p3=p[3], p4=p[4], p_referable=refers,
                referable=refers >= 0.5 or grade >= 2, quality=float(rng.random()), reasons=(), sha256="0" * 64,
                bundle="drawn", seconds=0.02, prediction_set=(grade,), patient=f"P{number // 4:05d}",
                eye=("right", "left")[number % 2], date=("2023-04-01", "2024-04-01")[number // 2 % 2],
            )
        )  # fmt: skip
    return drawn


def page_of(drawn: list[Row]) -> str:
    visits = list(visits_of(drawn))
    bundle = retigrade.load().bundle
    return "".join(
        worklist_page(
            [Tile(row=row) for row in drawn],
            rows=drawn,
            visits=visits,
            timelines=list(timelines_of(visits, noise=0.7)),
            metadata=bundle.metadata,
            bundle=bundle.identity,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(page_of(rows(count)), "utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        paints, filters = [], []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.as_uri())
            paints.append(page.evaluate("performance.getEntriesByType('paint')[0].startTime"))
            page.click("#tab-photographs")
            filters += [page.evaluate(FILTER, words) for words in ("P00123", "", "clinic 7", "")]
            page.close()
        browser.close()
        print(machine())
        print(f"{count} rows: {file.stat().st_size / 1e6:.2f} MB")
    for name, values in (("first paint", paints), ("filter", filters)):
        print(f"{name}: median {statistics.median(values):.0f} ms, {min(values):.0f} to {max(values):.0f}")


if __name__ == "__main__":
    main()
