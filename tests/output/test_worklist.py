from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser import open_browser
from gradings import graded, refused
from retigrade.icdr import GRADES, Status
from retigrade.output.patients import visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import Row, as_row
from retigrade.output.worklist import Pair, Tile, worklist_page
from tiny_bundle import tiny_card

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def row(path: str, grade: int | None, **changes: Any) -> Row:
    plain = as_row(refused(Status.UNGRADABLE) if grade is None else graded())
    if grade is not None:
        p = [0.05] * 5
        p[grade] = 0.8
        named = dict(zip(("p0", "p1", "p2", "p3", "p4"), p, strict=True))
        refers = sum(p[2:])
        plain = replace(
            plain, grade=grade, stage=GRADES[grade].stage, p_referable=refers, referable=grade >= 2, reasons=(), **named
        )  # type: ignore[arg-type]
    return replace(plain, path=path, **changes)


def page_of(rows: list[Row], *, total: int | None = None, comparisons: Sequence[Pair] = ()) -> str:
    visits = list(visits_of(rows))
    return "".join(
        worklist_page(
            [Tile(row=one) for one in rows],
            rows=rows,
            visits=visits,
            timelines=list(timelines_of(visits, noise=0.5)),
            comparisons=comparisons,
            metadata=tiny_card(),
            bundle="tiny@000000000000",
            total=total,
            skipped=["notes.txt: not a picture"],
        )
    )


def programme() -> list[Row]:
    """Three patients: one healthy, one referable, one whose left eye has no grade."""
    return [
        row("p1_r.jpg", 0, patient="P1", eye="right", date="2024-05-02"),
        row("p1_l.jpg", 0, patient="P1", eye="left", date="2024-05-02"),
        row("p2_r.jpg", 0, patient="P2", eye="right", date="2023-05-02"),
        row("p2_l.jpg", 0, patient="P2", eye="left", date="2023-05-02"),
        row("p2_r2.jpg", 3, patient="P2", eye="right", date="2024-05-02"),
        row("p2_l2.jpg", 0, patient="P2", eye="left", date="2024-05-02"),
        row("p3_r.jpg", 1, patient="P3", eye="right", date="2024-05-03"),
        row("p3_l.jpg", None, patient="P3", eye="left", date="2024-05-03"),
    ]


def data_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def test_the_page_holds_every_row_and_visit() -> None:
    data = data_in(page_of(programme()))
    assert [one["path"] for one in data["rows"]][:2] == ["p1_r.jpg", "p1_l.jpg"]
    assert {(one["patient"], one["date"]): one["action"] for one in data["visits"]} == {
        ("P1", "2024-05-02"): "rescreen",
        ("P2", "2023-05-02"): "rescreen",
        ("P2", "2024-05-02"): "refer",
        ("P3", "2024-05-03"): "rephotograph",
    }
    assert data["timelines"]["P2"][0]["words"] == "worse since 2024-05-02"


def test_an_interrupted_run_and_what_was_skipped_are_said() -> None:
    page = page_of(programme(), total=20)
    assert "8 of 20 inputs were finished" in page
    assert "notes.txt: not a picture" in page


def test_five_thousand_rows_stay_under_five_megabytes() -> None:
    rows = [
        row(f"clinic/{number:05d}_left.jpg", number % 5, patient=f"P{number // 2}", eye="left")
        for number in range(5000)
    ]
    assert len(page_of(rows).encode()) < 5_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The programme's page, open, with one row whose names attack the page; no script may fail."""
    dot = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    whose = {"patient": "P2", "date": "2024-05-02"}
    pairs = [
        Pair(words="right eye: <b>laid</b> over each other", picture=dot, file="aligned/p2_r2.jpg", **whose),
        Pair(words="left eye: too little in common", **whose),
    ]
    (tmp_path / "report.html").write_text(page_of([*programme(), row(HOSTILE, 4)], comparisons=pairs), "utf-8")
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    yield page
    page.close()
    assert errors == []


@pytest.mark.slow
def test_patients_come_by_urgency_and_open_their_photographs(shown: Any) -> None:
    assert shown.locator("article.patient h3").first.inner_text() == "P2"
    assert shown.locator("article.patient .action").first.inner_text() == "refer"
    assert shown.locator("#count").inner_text() == "3 of 3 latest visits"


@pytest.mark.slow
def test_filters_and_search_narrow_the_list(shown: Any) -> None:
    shown.select_option("#action", "rephotograph")
    assert shown.locator("#count").inner_text() == "1 of 3 latest visits"
    shown.click("#clear")
    shown.fill("#search", "p3")
    assert shown.locator("#count").inner_text() == "1 of 3 latest visits"
    shown.click("#clear")
    shown.click("#tab-photographs")
    shown.select_option("#stage", "3")
    assert shown.locator("#list article h3").all_inner_texts() == ["p2_r2.jpg"]


@pytest.mark.slow
def test_earlier_visits_are_shown_where_they_are_asked_for(shown: Any) -> None:
    shown.check("#earlier")
    assert shown.locator("#count").inner_text() == "4 of 4 visits"
    assert shown.get_by_text("2023-05-02, seen again 2024-05-02").count() == 1
    shown.click("#clear")
    shown.fill("#to", "2023-12-31")
    shown.dispatch_event("#to", "change")
    assert shown.locator("#count").inner_text() == "1 of 4 visits"


@pytest.mark.slow
def test_aligned_photographs_stand_with_the_later_visit_alone(shown: Any) -> None:
    shown.check("#earlier")
    captions = shown.locator("figure.aligned figcaption")
    assert captions.all_inner_texts() == ["right eye: <b>laid</b> over each other", "left eye: too little in common"]
    assert shown.locator("article.patient", has=captions).locator("header .small").all_inner_texts() == ["2024-05-02"]
    picture = shown.locator("figure.aligned img")
    assert picture.count() == 1
    assert picture.get_attribute("alt") == "right eye: <b>laid</b> over each other"
    assert picture.evaluate("image => image.naturalWidth") == 1
    assert shown.locator("figure.aligned a").get_attribute("href") == "aligned/p2_r2.jpg"


@pytest.mark.slow
def test_a_printed_page_of_a_patient_holds_the_photographs_and_says_what_it_is(shown: Any) -> None:
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.locator("details:not([open])").count() == 0
    assert shown.locator("article.patient .printed").first.is_visible()
    assert "Research use only" in shown.locator("article.patient .printed").first.inner_text()
    assert not shown.locator("#filters").is_visible()


@pytest.mark.slow
def test_names_that_attack_the_page_are_text(shown: Any) -> None:
    shown.click("#tab-photographs")
    shown.fill("#search", "onerror")
    assert shown.locator("#list article h3").inner_text() == HOSTILE
    assert "taken" not in shown.title()


@pytest.mark.slow
def test_the_keyboard_reaches_everything(shown: Any) -> None:
    shown.focus("#tab-patients")
    shown.keyboard.press("Tab")
    shown.keyboard.press("Enter")
    assert shown.locator("#count").inner_text() == "9 of 9 photographs"
