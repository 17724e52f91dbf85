from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from retigrade.output.patients import visits_of
from retigrade.serve import record
from retigrade.serve.page import statistics
from retigrade.serve.page.listing import WorklistQuery, list_page, visits_found
from retigrade.serve.page.words import words
from retigrade.serve.record import rows_of
from retigrade.serve.security import new_token
from retigrade.serve.statistics import drift_of
from retigrade.serve.tables import GradingRecord, PatientRecord
from served import HOSTILE, add, csrf_in, make_app, programme, record_of, verdict
from servers import BASE

PAGES = ("/", "/worklist", "/statistics", "/about")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, page_url: str) -> Iterator[FastAPI]:
    made = make_app(tmp_path_factory.mktemp("page"), database=page_url)
    add(made, *programme())
    yield made
    made.state.service.close()


@pytest.fixture(scope="module")
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=BASE, headers={"Accept": "text/html"})


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[TestClient]:
    made = make_app(tmp_path)
    yield TestClient(made, base_url=BASE, headers={"Accept": "text/html"})
    made.state.service.close()


def rows(client: TestClient, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/worklist/rows?{urlencode(query)}")
    assert answer.status_code == 200, answer.text
    listed: dict[str, Any] = answer.json()
    return listed


class Outline(HTMLParser):
    """What a screen reader and the content policy ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.labelled: set[str] = set()
        self.controls: list[tuple[str, dict[str, str | None]]] = []
        self._label = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "script" and "src" not in known and known.get("type") != "application/json":
            self.inline.append("script")
        if known.get("id"):
            self.ids.append(str(known["id"]))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self._label += tag == "label"
        if tag in ("input", "select", "textarea") and known.get("type") != "hidden" and not self._label:
            self.controls.append((tag, known))
        if tag == "img" and "alt" not in known:
            self.controls.append((tag, known))

    def handle_endtag(self, tag: str) -> None:
        self._label -= tag == "label"


@pytest.mark.parametrize("address", [*PAGES, "/patient?id=P2", "/nothing"])
def test_pages_keep_the_policy_and_name_what_they_hold(client: TestClient, address: str) -> None:
    answer = client.get(address)
    outline = Outline(answer.text)
    assert outline.inline == []
    assert outline.controls == [], "controls without a label or pictures without words"
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings.count(1) == 1
    assert "unsafe" not in answer.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert client.get(name).status_code == 200
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//', answer.text) == []


@pytest.mark.parametrize("address", PAGES)
def test_an_empty_record_says_what_to_do(empty: TestClient, address: str) -> None:
    answer = empty.get(address)
    assert answer.status_code == 200
    expected = {"/worklist": "worklist.empty", "/statistics": "statistics.empty", "/": "grade.step_1_more"}
    assert words()(expected.get(address, "about.research")) in answer.text.replace("&#39;", "'")


def test_every_word_is_used_and_every_use_has_words() -> None:
    folder = Path(statistics.__file__).parent
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".j2", ".js")]
    text = "\n".join(path.read_text("utf-8") for path in files)
    called = set(re.findall(r"\bt(?:\.n)?\(\s*['\"]([a-z_0-9.]+)['\"]", text))
    called |= set(re.findall(r'words\(\)\("([a-z_.]+)"', text))
    said = re.findall(r'\bsay\(\s*(?:\w+ \? "(\w+)" : )?"(\w+)"', text)
    called |= {f"script.{key}" for keys in said for key in keys if key}
    known = {re.sub(r"\.(one|other)$", "", key) for key in words().sentences}
    beginnings = ("stage.", "status.", "eye.", "eye_status.", "action.", "advice.", "pattern.", "nav.", "about.stage.",
                  "error.", "statistics.drift_")  # fmt: skip
    assert {key for key in called if not key.endswith((".", "_"))} - known == set()
    assert {key for key in known - called if not key.startswith(beginnings)} == set()


def test_names_that_attack_the_page_are_text(client: TestClient) -> None:
    for address in (f"/patient?{urlencode({'id': HOSTILE})}", f"/?{urlencode({'patient': HOSTILE})}"):
        text = client.get(address).text
        assert "<img src=x" not in text
        assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)
    assert HOSTILE in [visit["patient"] for visit in rows(client)["items"]]


def test_the_worklist_comes_by_urgency(client: TestClient) -> None:
    listed = rows(client, sort="urgency")
    assert (listed["found"], listed["all"]) == (5, 5)
    assert [visit["action"] for visit in listed["items"]] == ["refer"] * 2 + ["rephotograph"] + ["rescreen"] * 2
    assert listed["items"][0]["patient"] in ("P2", HOSTILE)
    second = rows(client, sort="urgency", offset=1, limit=2)
    assert second["items"] == listed["items"][1:3]


@pytest.mark.parametrize(
    ("query", "patients"),
    [
        ({"action": "rephotograph"}, {"P3"}),
        ({"search": "p2_r2"}, {"P2"}),
        ({"search": "P2 2023"}, {"P2"}),
        ({"search": "TOO DARK"}, {"P3"}),
        ({"search": "100%"}, set()),
        ({"status": "ungradable"}, {"P3"}),
        ({"stage": "3"}, {"P2"}),
        ({"set": "0", "stage": "1"}, {"P3"}),
        ({"referable": "on"}, {"P2", HOSTILE}),
        ({"from": "2024-05-03"}, {"P3"}),
        ({"to": "2023-12-31"}, {"P2"}),
        ({"patient": "P1"}, {"P1"}),
        ({"reading": "changed"}, set()),
        ({"eye": "unknown"}, set()),
    ],
)
def test_filters_narrow_the_visits(client: TestClient, query: dict[str, str], patients: set[str]) -> None:
    listed = rows(client, **query)
    assert {visit["patient"] for visit in listed["items"]} == patients
    assert listed["found"] == len(listed["items"])


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"search": "nobody"}, ["nobody.jpg"]),
        ({"stage": "4"}, ["nobody.jpg"]),
        ({"eye": "unknown"}, ["nobody.jpg"]),
        ({"sort": "severity", "limit": 1}, ["p2_r2.jpg", "nobody.jpg", HOSTILE]),
        ({"status": "ungradable", "sort": "quality"}, ["p3_l.jpg"]),
    ],
)
def test_filters_narrow_the_photographs(client: TestClient, query: dict[str, Any], paths: list[str]) -> None:
    listed = rows(client, view="photographs", **query)
    assert {row["path"] for row in listed["items"]} <= set(paths)
    assert len(listed["items"]) >= 1
    assert listed["all"] == len(programme())


def test_a_control_that_cannot_be_is_a_problem(client: TestClient) -> None:
    for query in ({"stage": "7"}, {"limit": 1000}, {"from": "yesterday"}, {"view": "secrets"}):
        assert client.get(f"/worklist/rows?{urlencode(query)}").status_code == 422


def test_the_database_decides_on_actions_as_the_rule_does(tmp_path: Path, url: str) -> None:
    made = make_app(tmp_path, database=url)
    answers = (None, 0, 2)
    for number, (right, left, unknown) in enumerate(itertools.product((*answers, "missing"), repeat=3)):
        eyes = (("right", right), ("left", left), (None, unknown))
        add(
            made,
            *(
                verdict(grade, f"{number}.jpg", patient=f"P{number}", eye=eye, date="2024-05-02")  # type: ignore[arg-type]
                for eye, grade in eyes
                if grade != "missing"
            ),
        )
    with made.state.service.database.reading() as session:
        by_rule = {visit.patient: visit for visit in visits_of(rows_of(session.query(GradingRecord).all()))}
        for action in ("refer", "rephotograph", "rescreen"):
            query = WorklistQuery(action=action)  # type: ignore[arg-type]
            listed = {visit.patient for visit in visits_found(session, query)}
            assert listed == {name for name, visit in by_rule.items() if visit.action == action}
        second = {visit.patient for visit in visits_found(session, WorklistQuery(second="on"))}
        assert second == {name for name, visit in by_rule.items() if visit.second_reader}
    made.state.service.close()


@pytest.fixture
def regraded(tmp_path: Path, url: str) -> Iterator[tuple[TestClient, list[str]]]:
    """A photograph of one eye that two bundles graded, severe first and mild later; the ids in that order."""
    made = make_app(tmp_path, database=url)
    ids = []
    for grade, bundle in ((3, "old@1"), (1, "new@2")):
        grading = replace(verdict(grade, "a.jpg", patient="P1", eye="right", date="2024-05-02"), bundle=bundle)
        ids += add(made, grading, sha256="cd" * 32)
    yield TestClient(made, base_url=BASE, headers={"Accept": "text/html"}), ids
    made.state.service.close()


def test_the_latest_grading_of_a_photograph_counts(regraded: tuple[TestClient, list[str]]) -> None:
    client, (earlier, latest) = regraded
    (visit,) = rows(client)["items"]
    assert [row["address"] for row in visit["rows"]] == [f"/gradings/{latest}"]
    assert [row["grade"] for row in visit["rows"]] == [1]
    assert rows(client, action="refer")["found"] == 0
    assert rows(client, view="photographs") | {"items": []} == {"found": 1, "all": 1, "items": []}
    text = client.get("/patient?id=P1").text
    assert f'data-grading="{latest}"' in text
    assert earlier not in text
    counted = client.get("/v1/statistics").json()
    assert (counted["gradings"], counted["grades"]) == (1, [0, 1, 0, 0, 0])
    of_old = client.get("/statistics?bundle=old@1").text
    assert re.search(r'severe</th>(?:(?!</tr>).)*1 <span class="small">100 %', of_old)
    line = client.get("/v1/export?format=patients").text.splitlines()[1]
    assert line.startswith("P1,2024-05-02,graded,1,missing,")


def test_earlier_gradings_are_kept_and_shown_as_such(regraded: tuple[TestClient, list[str]]) -> None:
    client, (earlier, latest) = regraded
    assert client.get("/v1/gradings?patient=P1").json()["total"] == 2
    assert len(client.get("/v1/export?format=jsonl").text.splitlines()) == 2
    text = client.get(f"/gradings/{earlier}").text
    assert words()("grading.superseded") in text
    assert f'href="/gradings/{latest}"' in text
    text = client.get(f"/gradings/{latest}").text
    assert words()("grading.superseded") not in text
    assert f'<a href="/gradings/{earlier}">' in text


def test_moments_are_in_utc_on_every_database(regraded: tuple[TestClient, list[str]]) -> None:
    client, _ = regraded
    created = [json.loads(line)["created"] for line in client.get("/v1/export?format=jsonl").text.splitlines()]
    assert [datetime.datetime.fromisoformat(moment).utcoffset() for moment in created] == [datetime.timedelta(0)] * 2
    assert client.get("/v1/patients/P1").json()["created"].endswith(("Z", "+00:00"))


def test_thousands_of_rows_are_paged(tmp_path: Path, url: str) -> None:
    made = make_app(tmp_path, database=url)
    service = made.state.service
    with service.database.transaction() as session:  # without the audit log, which has a line for each
        session.add_all(
            PatientRecord(id=f"P{number:04d}", alias=str(number), created=record.now()) for number in range(600)
        )
        session.flush()
        for number in range(1200):
            eye = ("right", "left")[number % 2]
            made_of = verdict(number % 5, f"{number}.jpg", patient=f"P{number // 2:04d}", eye=eye, date="2024-05-02")
            session.add(record_of(made_of, content=str(number)))
    with service.database.reading() as session:
        query = WorklistQuery(sort="name")
        seen = [list_page(session, service, query, start=start, count=60) for start in (0, 60, 540)]
    assert [len(listed.items) for listed in seen] == [60, 60, 60]
    assert [listed.found for listed in seen] == [600] * 3
    names = [visit["patient"] for listed in seen for visit in listed.items]
    assert names == [f"P{number:04d}" for number in (*range(120), *range(540, 600))]
    service.close()


def test_a_visit_shows_both_eyes_side_by_side(client: TestClient) -> None:
    text = client.get("/visit?patient=P2&date=2024-05-02").text
    right, left = (text.index(f'class="eye-column {side}"') for side in ("right", "left"))
    assert right < text.index("p2_r2.jpg") < left < text.index("p2_l2.jpg")
    assert "p2_r.jpg" not in text
    alone = client.get(f"/visit?{urlencode({'patient': HOSTILE})}").text
    assert words()("visit.missing") in alone
    assert "eye=right" in alone


def test_the_patients_page_has_timeline_and_visits(client: TestClient) -> None:
    text = client.get("/patient?id=P2").text
    assert "worse since 2024-05-02" in text
    assert text.count('<svg class="timeline"') == 2
    assert text.index('datetime="2024-05-02"') < text.index('datetime="2023-05-02"')
    missing = client.get("/patient?id=nobody")
    assert missing.status_code == 404
    assert words()("error.seen") in missing.text


def first_id(client: TestClient, **query: Any) -> str:
    address: str = rows(client, view="photographs", **query)["items"][0]["address"]
    return address.rpartition("/")[2]


@pytest.fixture(scope="module")
def twice_read(client: TestClient) -> tuple[str, str]:
    """A grading that two readers have read, and its page after the first."""
    grading = first_id(client, search="p1_r.jpg")
    csrf = csrf_in(client.get(f"/gradings/{grading}").text)
    form = {"csrf_token": csrf, "grade": "0", "reader": "Dr A", "reason": ""}
    assert client.post(f"/gradings/{grading}/readings", data=form).status_code == 200
    once_read = client.get(f"/gradings/{grading}").text
    form |= {"grade": "2", "reader": "Dr B", "reason": "haemorrhages below"}
    client.post(f"/gradings/{grading}/readings", data=form)
    return grading, once_read


def test_a_reading_is_kept_beside_the_machines_grade(client: TestClient, twice_read: tuple[str, str]) -> None:
    grading, text = twice_read
    assert words()("reading.confirmed") in text
    text = client.get(f"/gradings/{grading}/card?level=5").text
    assert "Dr A" in text
    assert "haemorrhages below" in text
    row = rows(client, view="photographs", reading="changed")["items"][0]
    assert (row["grade"], row["reading"]) == (0, {"reader": "Dr B", "grade": 2})
    assert {visit["patient"] for visit in rows(client, reading="changed")["items"]} == {"P1"}
    assert client.get("/patient?id=P1").text.count("Dr B") == 1


@pytest.mark.parametrize(
    ("change", "status", "seen"),
    [
        ({"grade": ""}, 422, "without a grade"),
        ({"grade": "9"}, 422, "without a grade"),
        ({"reader": " "}, 422, "without a name"),
        ({"grade": "4"}, 422, "without a reason"),
        ({"grade": "ungradable"}, 422, "without a reason"),
        ({"reason": "x" * 2001}, 422, "a reason of 2001 characters"),
        ({"reason": "bleeding\x00"}, 422, "a reason with control characters"),
        ({"reader": "x" * 201}, 422, "a reader of 201 characters"),
        ({"reader": "Dr\x07A"}, 422, "a reader with control characters"),
        ({"csrf_token": "0" * 64}, 403, "without the page"),
        ({"reader": "x" * 70_000}, 413, "bytes in a form"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(
    client: TestClient, change: dict[str, str], status: int, seen: str
) -> None:
    grading = first_id(client, search="p2_l2.jpg")
    csrf = csrf_in(client.get("/").text)
    form = {"csrf_token": csrf, "grade": "0", "reader": "Dr A", "reason": ""} | change
    answer = client.post(f"/gradings/{grading}/readings", data=form)
    assert answer.status_code == status
    assert seen in answer.text
    assert "Dr A" not in client.get(f"/gradings/{grading}").text


def test_a_reading_is_one_line(empty: TestClient) -> None:
    (grading,) = add(empty.app, verdict(0, "a.jpg", patient=None, eye=None, date=None))  # type: ignore[arg-type]
    form = {
        "csrf_token": csrf_in(empty.get("/").text),
        "grade": "2",
        "reader": " Dr\tA ",
        "reason": "dots\r\nbelow\u2028",
    }
    assert empty.post(f"/gradings/{grading}/readings", data=form).status_code == 200
    (reading,) = empty.get(f"/v1/gradings/{grading}/readings").json()["readings"]
    assert (reading["reader"], reading["reason"]) == ("Dr A", "dots below")


def test_a_reader_may_confirm_that_there_is_no_grade(empty: TestClient) -> None:
    (grading,) = add(empty.app, verdict(None, "a.jpg", patient=None, eye=None, date=None))  # type: ignore[arg-type]
    form = {"csrf_token": csrf_in(empty.get("/").text), "grade": "ungradable", "reader": "Dr A"}
    for change, word in (({}, "reading.confirmed"), ({"grade": "1", "reason": "clear enough"}, "reading.changed")):
        assert empty.post(f"/gradings/{grading}/readings", data=form | change).status_code == 200
        last = re.findall(r"<li><b>.*?</li>", empty.get(f"/gradings/{grading}").text)[-1]
        assert f"</b> {words()(word)} <" in last


def date_field(client: TestClient, **query: str) -> str:
    (found,) = re.findall(r'<input type="date" name="date"[^>]*>', client.get(f"/?{urlencode(query)}").text)
    return str(found)


def test_the_day_of_a_visit_is_the_browsers_unless_a_visit_is_named(client: TestClient) -> None:
    for query in ({}, {"patient": "P1"}):
        field = date_field(client, **query)
        assert "data-today" in field
        assert 'value=""' in field
    dated = date_field(client, patient="P2", eye="left", date="2024-05-02")
    assert 'value="2024-05-02"' in dated
    undated = date_field(client, patient=HOSTILE, eye="right")  # a visit that has no date gets none
    assert 'value=""' in undated
    assert "data-today" not in dated + undated


def test_a_visit_without_a_date_says_that_others_have_one(empty: TestClient) -> None:
    eyes = (("2024-05-02", "a.jpg", "right"), (None, "b.jpg", "left"))
    add(empty.app, *(verdict(0, path, patient="P1", eye=eye, date=date) for date, path, eye in eyes))  # type: ignore[arg-type]
    add(empty.app, verdict(0, "c.jpg", patient="P2", eye="left", date=None))  # type: ignore[arg-type]
    sentence = "it may be earlier or later than the patient&#39;s dated visits"
    for address in ("/patient?id=P1", "/visit?patient=P1", "/?patient=P1"):
        assert empty.get(address).text.count(sentence) == 1, address
    for address in ("/patient?id=P2", "/visit?patient=P1&date=2024-05-02"):
        assert sentence not in empty.get(address).text
    for format in ("csv", "json", "fhir"):  # the search finds the undated visit alone
        for patient, count in (("b.jpg", 1), ("P1", 1), ("c.jpg", 0)):
            text = empty.get(f"/worklist/export?format={format}&search={patient}").text
            assert text.count("earlier or later than the patient's dated visits") == count, (format, patient)


def test_another_web_site_sends_no_form(client: TestClient) -> None:
    grading = first_id(client, search="p2_l2.jpg")
    form = {"csrf_token": csrf_in(client.get("/").text), "grade": "0", "reader": "Dr A"}
    answer = client.post(f"/gradings/{grading}/readings", data=form, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.usefixtures("twice_read")
def test_exports_hold_what_is_listed(client: TestClient) -> None:
    visits = client.get("/worklist/export?format=csv&action=refer").text.splitlines()
    assert visits[0].startswith("patient,date,right_status")
    assert len(visits) == 3
    lines = client.get("/worklist/export?format=json&view=photographs&patient=P2").text.splitlines()
    assert [json.loads(line)["patient"] for line in lines] == ["P2"] * 4
    photographs = client.get("/worklist/export?format=csv&view=photographs&search=p1_r.jpg").text.splitlines()
    assert photographs[0].endswith("reader,reader_grade,reader_reason,read_at")
    assert "Dr B,2,haemorrhages below" in photographs[1]
    answer = client.get("/worklist/export?format=fhir&patient=P2")
    bundle = answer.json()
    addresses = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(addresses) == len(set(addresses))
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert (kinds.count("Patient"), kinds.count("DiagnosticReport")) == (1, 2)
    assert "attachment" in answer.headers["content-disposition"]
    assert client.get("/worklist/export?format=pdf").status_code == 422


def test_statistics_count_the_record(client: TestClient) -> None:
    text = client.get("/statistics").text
    assert "90 %" in text  # 9 of 10 with a grade
    assert "too dark" in text
    assert client.get("/statistics?days=30&bundle=none@0").text.count(words()("statistics.empty_title")) == 1
    assert client.get("/statistics?days=soon").status_code == 422


@pytest.mark.parametrize(
    ("grades", "word"),
    [
        ((3, 1, 1, 0, 0), "few"),
        ((70, 10, 12, 5, 3), "none"),
        ((7600, 1000, 900, 300, 200), "small"),
        ((0, 0, 0, 50, 50), "large"),
    ],
)
def test_drift_is_told_from_chance(grades: tuple[int, ...], word: str) -> None:
    drift = drift_of(grades, (700, 100, 120, 50, 30))
    assert statistics.drift_word(drift, graded=sum(grades)) == word
    assert statistics.drift_word(drift_of(grades, (1, 1, 1, 1, 0)), graded=1000) == "unknown"


def test_names_say_whose_eye_it_is(client: TestClient) -> None:
    names = ["P001_OD_2026-05-02.jpg", "P001_OS_2026-05-02.jpg", "holiday.jpg", "P1_OD_2026-99-99.jpg"]
    answer = client.post("/subjects", json={"pattern": "patient-eye-date", "names": names})
    assert answer.json() == [
        {"patient": "P001", "eye": "right", "date": "2026-05-02"},
        {"patient": "P001", "eye": "left", "date": "2026-05-02"},
        None,
        None,
    ]
    for given in ({"pattern": "(?P<patient>x+)+", "names": names}, {"pattern": "eyepacs"}, [], "x"):
        assert client.post("/subjects", json=given).status_code == 422


def test_static_files_are_kept_by_their_version(client: TestClient) -> None:
    address = re.findall(r'href="(/static/page.css[^"]*)"', client.get("/").text)[0]
    assert "immutable" in client.get(address).headers["cache-control"]
    assert client.get("/static/page.css?v=old").headers["cache-control"] == "no-cache"
    for name in ("..%2Fpages.py", "pages.py", "words.toml", "%00"):
        assert client.get(f"/static/{name}").status_code == 404


def test_a_problem_is_a_page_for_people_and_json_for_programs(client: TestClient) -> None:
    page = client.get("/gradings/none")
    assert page.status_code == 404
    assert words()("error.try") in page.text
    program = client.get("/gradings/none", headers={"Accept": "*/*"})
    assert program.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("accept", "kind"), [("text/html", "text/html"), ("*/*", "application/problem+json")])
def test_a_fault_of_the_server_has_a_page_and_a_number(empty: TestClient, accept: str, kind: str) -> None:
    client = TestClient(empty.app, base_url=BASE, headers={"Accept": accept}, raise_server_exceptions=False)

    def broken() -> None:
        raise RuntimeError("secret")

    client.app.add_api_route("/broken", broken)  # type: ignore[attr-defined]
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-request-id"] in answer.text
    assert "secret" not in answer.text


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, str]]]:
    file = tmp_path / "tokens"
    tokens = {role: new_token(file, role, role) for role in ("read", "write")}
    made = make_app(tmp_path, token_file=file)
    add(made, *programme())
    yield TestClient(made, base_url=BASE, headers={"Accept": "text/html"}, follow_redirects=False), tokens
    made.state.service.close()


def sign_in(client: TestClient, token: str, next: str = "/worklist") -> Any:
    return client.post("/login", data={"token": token, "next": next})


def test_who_is_not_signed_in_signs_in_and_goes_on(guarded: tuple[TestClient, dict[str, str]]) -> None:
    client, tokens = guarded
    answer = client.get("/patient?id=P2")
    assert answer.headers["location"] == "/login?next=%2Fpatient%3Fid%3DP2"
    assert "P2" not in client.get("/login").text
    failed = sign_in(client, "wrong")
    assert failed.status_code == 401
    assert "does not know" in failed.text
    done = sign_in(client, tokens["write"], "/patient?id=P2")
    assert (done.status_code, done.headers["location"]) == (303, "/patient?id=P2")
    assert "samesite=strict" in done.headers["set-cookie"].casefold()
    text = client.get("/patient?id=P2").text
    copied, other = dict(client.cookies), TestClient(client.app, base_url=BASE, follow_redirects=False)
    other.cookies.update(copied)
    assert sign_in(client, tokens["write"]).status_code == 303  # a second session of the same person
    second = dict(client.cookies)
    out = other.post("/logout", data={"csrf_token": csrf_in(text)})
    assert out.headers["location"] == "/login"
    assert other.get("/patient?id=P2").status_code == 401
    other.cookies.update(copied)  # the cookie is gone from the browser; a copy of it is worth nothing
    assert other.get("/patient?id=P2").status_code == 401
    other.cookies.update(second)
    assert other.get("/patient?id=P2").status_code == 200


@pytest.mark.parametrize("next", ["//evil.example", "https://evil.example", "/\\evil.example", "/\r\nSet-Cookie: a=b"])
def test_signing_in_leads_nowhere_else(guarded: tuple[TestClient, dict[str, str]], next: str) -> None:
    client, tokens = guarded
    assert sign_in(client, tokens["read"], next).headers["location"] == "/"


def test_a_token_that_may_only_read_gets_no_forms(guarded: tuple[TestClient, dict[str, str]]) -> None:
    client, tokens = guarded
    sign_in(client, tokens["read"])
    text = client.get("/").text
    assert 'id="upload"' not in text
    grading = first_id(client, search="p1_r.jpg")
    assert "<form method=" not in client.get(f"/gradings/{grading}/card").text
    form = {"csrf_token": csrf_in(text), "grade": "0", "reader": "Dr A"}
    assert client.post(f"/gradings/{grading}/readings", data=form).status_code == 403


def test_a_guessed_token_waits(guarded: tuple[TestClient, dict[str, str]]) -> None:
    client, _ = guarded
    statuses = [sign_in(client, f"guess{number}").status_code for number in range(12)]
    assert statuses[-1] == 429


def test_months_are_in_order(app: FastAPI) -> None:
    service = app.state.service
    with service.database.reading() as session:
        counted = statistics.shown(session, service.grader.bundle.metadata.training)
    this = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
    assert [month.name for month in counted.months] == [this]
    assert f"<title>{this}: 10 photographs" in statistics.months_svg(counted.months)
