"""The REST interface on either database: what goes in, what is kept, and what comes out."""

from __future__ import annotations

import asyncio
import csv
import datetime
import errno
import io
import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from retigrade.grader import Grader
from retigrade.grading import Eye, Subject
from retigrade.heatmap import Heatmap
from retigrade.icdr import Grade
from retigrade.output.rows import COLUMNS
from retigrade.serve import app, audit, exports, record
from retigrade.serve.photos import PhotoStore
from retigrade.serve.uploads import File
from retigrade.serve.workers import grade_upload, sha256_of
from served import add, verdict

Serve = Callable[..., TestClient]


def upload(client: TestClient, *files: bytes, headers: dict[str, str] | None = None, **fields: str) -> list[Any]:
    """Grade files by multipart and return their gradings."""
    parts = [("files", (f"{number}.png", data, "image/png")) for number, data in enumerate(files)]
    answer = client.post("/v1/gradings", files=parts, data=fields, headers=headers)
    assert answer.status_code == 201, answer.text
    gradings: list[Any] = answer.json()["gradings"]
    return gradings


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("seconds", "id", "links")}


def test_a_grading_is_the_command_line_s(serve: Serve, url: str, grader: Grader, photograph: bytes) -> None:
    (grading,) = upload(serve(database=url), photograph, patient="P1", eye="od", date="2025-03-01")
    subject = Subject("P1", Eye.RIGHT, datetime.date(2025, 3, 1))
    alone = grade_upload(grader, "0.png", photograph, subject, max_pixels=10**9).to_dict()
    assert without_time(grading) == without_time(alone)
    assert list(grading) == [*alone, "id", "links"]


def test_raw_bytes_and_multipart_give_one_grading(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    (grading,) = upload(client, photograph, patient="P1")
    answer = client.post(
        "/v1/gradings?patient=P1&name=0.png", content=photograph, headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 201
    assert answer.json() == {"gradings": [grading]}
    assert answer.headers["location"] == grading["links"]["self"]


def test_every_file_gets_an_answer_in_order(serve: Serve, url: str, photographs: dict[Grade, bytes]) -> None:
    gradings = upload(serve(database=url), photographs[Grade.NONE], b"PK\x03\x04 no picture", photographs[Grade.SEVERE])
    assert [grading["status"] for grading in gradings] == ["graded", "error", "graded"]
    assert [grading["path"] for grading in gradings] == ["0.png", "1.png", "2.png"]
    assert "not a picture" in gradings[1]["reasons"][0]


def test_fields_once_for_all_files_or_once_for_each(serve: Serve, photographs: dict[Grade, bytes]) -> None:
    client = serve()
    files = [("files", (f"{grade}.png", photographs[grade], "image/png")) for grade in (Grade.NONE, Grade.SEVERE)]
    answer = client.post("/v1/gradings", files=files, data={"patient": "P1", "eye": ["right", "left"]})
    assert [(row["patient"], row["eye"]) for row in answer.json()["gradings"]] == [("P1", "right"), ("P1", "left")]
    answer = client.post("/v1/gradings", files=files, data={"eye": ["right", "left", "left"]})
    assert answer.status_code == 422
    assert answer.json()["seen"] == "3 values of the field eye for 2 files"


def test_the_same_photograph_of_the_same_eye_is_graded_once(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    (first,), (second,) = upload(client, photograph, patient="P1"), upload(client, photograph, patient="P1")
    (other,) = upload(client, photograph, patient="P2")
    assert first == second
    assert other["id"] != first["id"]
    twice = upload(client, photograph, photograph, patient="P3")
    assert twice[0]["id"] == twice[1]["id"]
    assert client.get("/v1/gradings").json()["total"] == 3


def test_what_could_not_be_read_is_tried_again(serve: Serve) -> None:
    client = serve()
    (first,), (second,) = upload(client, b"nothing"), upload(client, b"nothing")
    assert first["status"] == second["status"] == "error"
    assert first["id"] != second["id"]


def test_a_request_with_a_key_is_answered_once(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    headers = {"Idempotency-Key": "5f1c"}
    (first,), (second,) = (upload(client, photograph, b"x", headers=headers)[1:] for _ in range(2))
    assert first["id"] == second["id"]  # though it is an error, which without a key is tried again
    answer = client.post("/v1/gradings", files=[("files", ("a", b"other"))], headers=headers)
    assert answer.status_code == 422
    assert answer.json()["seen"] == "an Idempotency-Key that another request had"


def test_gradings_are_listed_by_page_and_sorted(serve: Serve, url: str, photographs: dict[Grade, bytes]) -> None:
    client = serve(database=url)
    for number, grade in enumerate((Grade.NONE, Grade.MILD, Grade.SEVERE)):
        upload(client, photographs[grade], patient=f"P{number}", date=f"2025-01-0{3 - number}")
    page = client.get("/v1/gradings?sort=date&limit=2")
    assert [row["patient"] for row in page.json()["gradings"]] == ["P2", "P1"]
    assert page.json()["total"] == 3
    following = client.get(page.headers["link"].partition(">")[0].removeprefix("<"))
    assert [row["patient"] for row in following.json()["gradings"]] == ["P0"]
    assert "link" not in following.headers
    assert client.get("/v1/gradings?patient=P1").json()["total"] == 1
    assert client.get("/v1/gradings?status=error").json()["gradings"] == []
    assert client.get("/v1/gradings?sort=-patient").json()["gradings"][0]["patient"] == "P2"
    assert client.get("/v1/gradings?sort=name").status_code == 422


def test_the_map_is_the_one_that_grading_makes(serve: Serve, url: str, grader: Grader, photograph: bytes) -> None:
    client = serve(database=url)
    (grading,) = upload(client, photograph)
    answer = client.get(grading["links"]["heat"])
    heatmap = grader.grade(photograph).heatmap
    assert isinstance(heatmap, Heatmap)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == heatmap.as_png(320, 320)
    small = client.get(grading["links"]["heat"] + "?side=64")
    assert small.content == heatmap.as_png(64, 64)


def test_without_a_grade_there_is_no_map(serve: Serve) -> None:
    client = serve()
    (grading,) = upload(client, b"nothing")
    assert grading["links"]["heat"] is None
    answer = client.get(f"{grading['links']['self']}/heat.png")
    assert answer.status_code == 404
    assert answer.json()["needed"] == "a photograph that could be graded"


def test_photographs_are_not_kept_unless_asked(serve: Serve, tmp_path: Path, photograph: bytes) -> None:
    client = serve()
    (grading,) = upload(client, photograph)
    assert grading["links"]["overlay"] is None
    answer = client.get(f"{grading['links']['self']}/overlay.jpg")
    assert answer.status_code == 404
    assert "--keep-photos" in answer.json()["needed"]
    kept = [path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("record.db")]
    assert kept == []
    assert photograph not in (tmp_path / "record.db").read_bytes()


def test_kept_photographs_go_with_their_last_grading(serve: Serve, tmp_path: Path, photograph: bytes) -> None:
    client = serve(keep_photos=tmp_path / "photos")
    (first,) = upload(client, photograph, patient="P1")
    upload(client, photograph, patient="P2")
    upload(client, b"no photograph")
    (path,) = [path for path in (tmp_path / "photos").rglob("*") if path.is_file()]
    assert path.name == sha256_of(photograph)
    assert path.stat().st_mode & 0o077 == 0
    for link in ("overlay", "photo"):
        answer = client.get(first["links"][link])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert client.delete("/v1/patients/P1").status_code == 204
    assert path.exists()
    assert client.delete("/v1/patients/P2").status_code == 204
    assert not path.exists()


def test_kept_photographs_go_with_their_time(serve: Serve, tmp_path: Path, photograph: bytes) -> None:
    client = serve(keep_photos=tmp_path / "photos", retention_days=30)
    (grading,) = upload(client, photograph)
    (path,) = [path for path in (tmp_path / "photos").rglob("*") if path.is_file()]
    client.app.state.service.tidy()  # type: ignore[attr-defined]
    assert path.exists()
    long_ago = time.time() - 31 * 86_400
    os.utime(path, (long_ago, long_ago))
    client.app.state.service.tidy()  # type: ignore[attr-defined]
    assert not path.exists()
    assert client.get(grading["links"]["photo"]).json()["seen"] == "a photograph that is not kept any more"


def test_a_photograph_whose_grading_is_deleted_at_once_is_not_kept(
    serve: Serve, tmp_path: Path, photographs: dict[Grade, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(keep_photos=tmp_path / "photos")
    service = client.app.state.service  # type: ignore[attr-defined]
    keep = service.photos.keep
    first = sha256_of(photographs[Grade.NONE])

    def keep_late(sha256: str, data: bytes) -> None:
        if sha256 == first:
            (grading,) = (row for row in client.get("/v1/gradings").json()["gradings"] if row["sha256"] == sha256)
            assert client.delete(grading["links"]["self"]).status_code == 204
        keep(sha256, data)

    monkeypatch.setattr(service.photos, "keep", keep_late)
    upload(client, photographs[Grade.NONE], photographs[Grade.SEVERE])
    kept = [path.name for path in (tmp_path / "photos").rglob("*") if path.is_file()]
    assert kept == [sha256_of(photographs[Grade.SEVERE])]


def test_two_servers_delete_photographs_of_one_folder(tmp_path: Path) -> None:
    store = PhotoStore(tmp_path, retention_days=1)
    names = ["ab" * 32, "ac" * 32]
    for name in names:
        store.keep(name, b"an eye")
        os.utime(tmp_path / name[:2] / name, (0, 0))
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / ("aa" * 32)).symlink_to(tmp_path / "gone")  # it is listed, and not there when it is looked at
    assert store.purge() == 2
    assert [store.find(name) for name in names] == [None, None]


def test_a_photograph_that_cannot_be_deleted_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = PhotoStore(tmp_path, retention_days=1)
    names = ["ab" * 32, "ac" * 32, "ad" * 32]
    for name in names:
        store.keep(name, b"an eye")
        os.utime(tmp_path / name[:2] / name, (0, 0))
    delete = store.delete

    def refuse_one(sha256: str) -> None:
        if sha256 == names[1]:
            raise PermissionError(errno.EACCES, "Permission denied")
        delete(sha256)

    monkeypatch.setattr(store, "delete", refuse_one)
    assert store.purge() == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [names[1]]
    assert "cannot be deleted: Permission denied" in caplog.text


def test_tidying_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        calls = 0

        def tidy(self) -> None:
            self.calls += 1
            if self.calls == 1:
                raise OSError("the disk is away")
            raise asyncio.CancelledError  # as at the server's end

    service = Failing()
    monkeypatch.setattr(app, "_TIDY_SECONDS", 0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(app._tidy(service))  # type: ignore[arg-type]
    assert service.calls == 2
    assert "could not be deleted: OSError" in caplog.text


def test_who_gives_up_stops_no_grading(serve: Serve, photograph: bytes, caplog: pytest.LogCaptureFixture) -> None:
    client = serve()
    service = client.app.state.service  # type: ignore[attr-defined]

    async def give_up() -> None:
        asked = asyncio.create_task(service.grade([File("a.png", bytearray(photograph))], [Subject()], actor="test"))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(give_up())
    upload(client, photograph, patient="P1")
    assert client.get("/v1/gradings").json()["total"] == 2
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR] == []


def test_a_reading_stands_beside_the_machine_s_grade(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    (grading,) = upload(client, photograph)
    other = (grading["grade"] + 1) % 5
    for reader, grade in (("Dr. A", grading["grade"]), ("Dr. B", other)):
        answer = client.post(
            grading["links"]["readings"], json={"reader": reader, "grade": grade, "reason": "venous beading"}
        )
        assert answer.status_code == 201
    readings = client.get(grading["links"]["readings"]).json()["readings"]
    assert [(known["reader"], known["grade"], known["agrees"]) for known in readings] == [
        ("Dr. A", grading["grade"], True),
        ("Dr. B", other, False),
    ]
    assert client.get(grading["links"]["self"]).json() == grading
    agreement = client.get("/v1/statistics").json()["agreement"]
    assert (agreement["gradings"], agreement["agreed"], agreement["rate"]) == (1, 0, 0.0)  # the last reading counts


@pytest.mark.parametrize(
    "reading",
    [{"reader": "", "grade": 1}, {"reader": " ", "grade": 1}, {"reader": "A", "grade": 5}, {"reader": "A"},
     {"reader": "A", "grade": "1"}, {"reader": "A\x00", "grade": 1}, {"reader": "A", "grade": 1, "status": "graded"}],
)  # fmt: skip
def test_a_reading_that_cannot_be(serve: Serve, photograph: bytes, reading: dict[str, Any]) -> None:
    client = serve()
    (grading,) = upload(client, photograph)
    assert client.post(grading["links"]["readings"], json=reading).status_code == 422
    assert client.get(grading["links"]["readings"]).json() == {"readings": []}


def test_patients_are_entered_changed_found_and_deleted(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    address = "/v1/patients/P%2F1%20%C3%A9"
    assert client.get(address).status_code == 404
    created = client.put(address, json={"name": "Ada", "birth_date": "1961-04-30"})
    assert (created.status_code, created.json()["id"]) == (201, "P/1 é")
    assert client.put(address, json={"name": "Ada B."}).status_code == 200
    assert client.get(address).json()["name"] == "Ada B."
    upload(client, photograph, patient="P/1 é", eye="left", date="2025-03-01")
    assert [known["id"] for known in client.get("/v1/patients?search=ada").json()["patients"]] == ["P/1 é"]
    assert client.get("/v1/patients?search=%25").json()["patients"] == []
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == client.delete(address).status_code == 404
    assert client.get("/v1/gradings").json()["total"] == 0
    with client.app.state.service.database.reading() as session:  # type: ignore[attr-defined]
        assert audit.find_break(session) is None


def test_a_timeline_and_its_visits(serve: Serve, url: str, photographs: dict[Grade, bytes]) -> None:
    client = serve(database=url)
    upload(client, photographs[Grade.NONE], patient="P1", eye="right", date="2024-03-01")
    upload(client, photographs[Grade.SEVERE], patient="P1", eye="right", date="2025-03-01")
    timeline = client.get("/v1/patients/P1/timeline").json()
    assert [point["date"] for point in timeline["eyes"][0]["points"]] == ["2024-03-01", "2025-03-01"]
    assert [visit["date"] for visit in timeline["visits"]] == ["2024-03-01", "2025-03-01"]
    assert {visit["left_status"] for visit in timeline["visits"]} == {"missing"}


def test_visits_as_fhir(serve: Serve, url: str, photographs: dict[Grade, bytes]) -> None:
    client = serve(database=url)
    for date in ("2024-03-01", "2025-03-01"):
        upload(client, photographs[Grade.SEVERE], patient="P1", eye="right", date=date)
    answer = client.get("/v1/patients/P1/fhir")
    assert answer.headers["content-type"] == "application/fhir+json"
    entries = answer.json()["entry"]
    kinds = [entry["resource"]["resourceType"] for entry in entries]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Patient": 1, "Device": 1, "Observation": 4, "DiagnosticReport": 2,
    }  # fmt: skip
    assert len({entry["fullUrl"] for entry in entries}) == len(entries)
    one = client.get("/v1/patients/P1/fhir?date=2024-03-01").json()["entry"]
    assert len(one) == 5
    assert client.get("/v1/patients/P1/fhir?date=2023-01-01").status_code == 404


def test_the_record_as_files(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    (grading,) = upload(client, photograph, patient="=HYPERLINK(1)", eye="right")
    client.post(grading["links"]["readings"], json={"reader": "Dr. A", "grade": None, "reason": "@sum(1)"})
    answer = client.get("/v1/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="gradings.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert tuple(row)[: len(COLUMNS)] == COLUMNS
    assert (row["patient"], row["eye"], row["id"]) == ("'=HYPERLINK(1)", "right", grading["id"])
    assert (row["reader"], row["reader_grade"], row["reader_reason"]) == ("Dr. A", "", "'@sum(1)")
    (line,) = [json.loads(line) for line in client.get("/v1/export?format=jsonl").text.splitlines()]
    assert without_time(line) | without_time(grading) == without_time(line)
    assert client.get("/v1/export?format=patients").text.startswith("patient,date,")
    assert client.get("/v1/export?format=fhir").json()["type"] == "transaction"
    assert len(client.get("/v1/export?patient=nobody").text.splitlines()) == 1


@pytest.mark.parametrize("kind", ["patients", "fhir"])
@pytest.mark.parametrize("part", ["status=graded", "grade=0", "referable=false", "referable=true"])
def test_visits_are_exported_whole_or_not_at_all(serve: Serve, kind: str, part: str) -> None:
    client = serve()
    answer = client.get(f"/v1/export?format={kind}&{part}")
    assert answer.status_code == 422
    assert answer.json()["seen"] == f"an export as {kind} of some photographs alone"
    assert client.get(f"/v1/export?format={kind}&patient=P1").status_code == 200
    for whole in ("csv", "jsonl"):
        assert client.get(f"/v1/export?format={whole}&{part}").status_code == 200
    stated = client.get("/openapi.json").json()["paths"]["/v1/export"]["get"]["description"]
    assert "go with csv and jsonl alone" in stated


def drawn(count: int) -> list[Any]:
    return [verdict(0, f"{number}.jpg", patient=f"P{number}", eye="right", date=None) for number in range(count)]


def test_what_is_deleted_meanwhile_takes_no_other_out_of_an_export(
    serve: Serve, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_PAGE", 2)
    made: Any = serve(database=url).app
    ids = add(made, *drawn(5))
    lines = exports.export(made.state.service.database, exports.ExportFormat.JSONL, record.Query())
    found = [json.loads(next(lines))["id"] for _ in range(2)]
    for gone in (ids[0], ids[2]):
        made.state.service.writer.submit(partial(record.delete_grading, grading=gone, actor="test")).result()
    found += [json.loads(line)["id"] for line in lines]
    assert found == [ids[0], ids[1], ids[3], ids[4]]


def test_visits_rest_on_what_counted_at_one_moment(serve: Serve, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PAGE", 2)
    made: Any = serve(database=url).app
    add(made, *drawn(1), sha256="ab" * 32)
    add(made, *drawn(4)[1:])
    after = record.gradings_after

    def grade_anew(*values: Any, **named: Any) -> Any:
        page = after(*values, **named)
        add(made, verdict(3, "anew.jpg", patient="P0", eye="right", date=None), sha256="ab" * 32)
        return page

    monkeypatch.setattr(record, "gradings_after", grade_anew)
    text = "".join(exports.export(made.state.service.database, exports.ExportFormat.PATIENTS, record.Query()))
    visits = {row["patient"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(visits) == {"P0", "P1", "P2", "P3"}
    assert (visits["P0"]["right_grade"], visits["P0"]["files"]) == ("0", "0.jpg")


def test_statistics_count_what_is_there(serve: Serve, url: str, photographs: dict[Grade, bytes]) -> None:
    client = serve(database=url)
    assert client.get("/v1/statistics").json()["gradable_rate"] is None
    gradings = upload(client, *photographs.values(), b"nothing")
    found = client.get("/v1/statistics").json()
    graded = [grading for grading in gradings if grading["status"] == "graded"]
    assert found["statuses"]["error"] == 1
    assert found["gradings"] == len(gradings)
    assert sum(found["grades"]) == len(graded)
    assert found["referable_rate"] == sum(grading["referable"] for grading in graded) / len(graded)
    assert client.get("/v1/statistics?since=2999-01-01").json()["gradings"] == 0


def test_a_grading_is_deleted_with_its_readings(serve: Serve, url: str, photograph: bytes) -> None:
    client = serve(database=url)
    (grading,) = upload(client, photograph)
    client.post(grading["links"]["readings"], json={"reader": "Dr. A", "grade": 1})
    assert client.delete(grading["links"]["self"]).status_code == 204
    assert client.get(grading["links"]["self"]).status_code == 404
    assert client.get("/v1/statistics").json()["agreement"]["gradings"] == 0


def test_the_bundle_and_the_figures(serve: Serve, grader: Grader, photograph: bytes) -> None:
    client = serve()
    upload(client, photograph)
    bundle = client.get("/v1/bundle").json()
    assert bundle["identity"] == grader.bundle.identity
    assert "photo_hashes" not in bundle["metadata"]["training"]
    figures = client.get("/metrics").text
    assert "retigrade_gradings_total{grade=" in figures
    assert 'route="/v1/gradings",status="201"' in figures


def test_the_documentation_needs_no_network(serve: Serve) -> None:
    client = serve()
    page = client.get("/docs")
    assert "http" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert f"/docs/{name}" in page.text
        assert client.get(f"/docs/{name}").status_code == 200
    assert client.get("/docs/../../etc/passwd").status_code == 404
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/gradings"]["post"]
    assert post["responses"]["201"]["content"]["application/json"]["example"]["gradings"][0]["grade"] == 2
    assert post["responses"]["422"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    }
    assert "ProblemOut" in document["components"]["schemas"]
