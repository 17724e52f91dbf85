from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retigrade.batch.photographs import Photograph
from retigrade.batch.sources import Listing, list_source
from retigrade.batch.stores import open_store, read_photograph
from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.inputs import expand


def listed(source: str | Path, **options: Any) -> tuple[list[Photograph], Listing]:
    listing = list_source(str(source), **options)
    return list(listing.photographs), listing


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_folder_lists_what_grade_lists(photographs: Path) -> None:
    (photographs / "notes.txt").write_text("no picture")
    (photographs / ".hidden.jpg").write_bytes(b"x")
    found, listing = listed(photographs)
    inputs = expand([photographs])
    assert [photograph.uri for photograph in found] == [str(item.path) for item in inputs.items]
    assert {(skipped.path.name, skipped.reason) for skipped in listing.skipped} == {
        (skipped.path.name, skipped.reason) for skipped in inputs.skipped
    }
    assert all(photograph.size == Path(photograph.uri).stat().st_size for photograph in found)


def test_a_store_lists_the_same(in_memory: str, memory: Any) -> None:
    memory.pipe_file("/photos/notes.txt", b"no picture")
    memory.pipe_file("/photos/named by nobody", memory.cat_file("/photos/left/0.jpg"))
    memory.pipe_file("/photos/.trash/0.jpg", b"x")
    found, listing = listed(in_memory)
    names = [photograph.uri.removeprefix("memory:///photos/") for photograph in found]
    assert sorted(names) == [
        *(f"left/{number}.jpg" for number in (0, 2, 4)),
        "named by nobody",
        *(f"right/{name}.jpg" for name in ("1", "3", "damaged")),
    ]
    assert sorted(skipped.path.name for skipped in listing.skipped) == [".trash", "notes.txt"]
    assert all(photograph.etag for photograph in found)
    assert read_photograph(found[0].uri, size=found[0].size, offset=None)


def test_a_wildcard_and_one_file(in_memory: str) -> None:
    assert len(listed(f"{in_memory}/left/*.jpg")[0]) == 3
    assert len(listed(f"{in_memory}/left/0.jpg")[0]) == 1


def test_the_folder_of_results_is_left_out(in_memory: str, memory: Any) -> None:
    memory.pipe_file("/photos/out/heat/0.jpg", memory.cat_file("/photos/left/0.jpg"))
    found, _ = listed(in_memory, exclude="memory:///photos/out")
    assert not [photograph for photograph in found if "/out/" in photograph.uri]


def test_an_empty_store(memory: Any, tmp_path: Path) -> None:
    memory.mkdir("/empty")
    for source in ("memory://empty", str(tmp_path)):
        with pytest.raises(UsageError, match="no photographs in"):
            list_source(source)


@pytest.mark.parametrize("source", ["memory://nowhere", "/nowhere/at/all"])
def test_a_source_that_is_not_there(memory: Any, source: str) -> None:
    with pytest.raises(UsageError, match="cannot be listed: there is no such file, folder or bucket"):
        list_source(source)


def test_a_store_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="no kind of store called nope"):
        open_store("nope://bucket")


def test_a_store_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(_: str) -> None:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        list_source("gs://bucket")


def test_a_url_without_rights(in_memory: str, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden")

    found, _ = listed(in_memory)
    monkeypatch.setattr(type(memory), "ls", forbidden)
    monkeypatch.setattr(type(memory), "cat_file", forbidden)
    with pytest.raises(UsageError, match="cannot be listed: no permission; check the address and your rights"):
        list_source(in_memory)
    with pytest.raises(UnreadablePhoto, match="cannot be read: no permission"):
        read_photograph(found[0].uri, size=10, offset=None)


def test_a_manifest_says_whose_eye(photographs: Path, tmp_path: Path) -> None:
    manifest = write_csv(
        tmp_path / "list.csv",
        ("uri", "patient", "eye", "date"),
        ("photos/left/0.jpg", "007", "OS", "2024-05-02"),
        ("s3://bucket/b.jpg", "008", "sinister", ""),
        ("", "009", "", ""),
    )
    found, listing = listed(manifest)
    first = found[0]
    assert first.uri == str(photographs / "left/0.jpg")
    assert (first.patient, first.eye, first.date) == ("007", "left", "2024-05-02")
    assert first.size == Path(first.uri).stat().st_size
    assert (found[1].uri, found[1].eye, found[1].etag) == ("s3://bucket/b.jpg", None, None)
    assert [skipped.reason for skipped in listing.skipped] == ["line 4 has no uri"]
    assert any("1 cells are taken as unknown" in note for note in listing.notes)
    assert any("no etag or sha256" in note for note in listing.notes)


def test_parquet_manifests_of_a_store(memory: Any, tmp_path: Path) -> None:
    for number in range(2):
        values = {"URI": [f"s3://b/{number}.jpg", "c.jpg"], "size": [5, 6], "etag": ["x", "y"], "more": [1, 2]}
        pq.write_table(pa.table(values), tmp_path / "m.parquet")
        memory.pipe_file(f"/list/{number}.parquet", (tmp_path / "m.parquet").read_bytes())
    found, listing = listed("memory://list/*.parquet")
    assert found[0] == Photograph(uri="s3://b/0.jpg", size=5, etag="x")
    assert found[1].uri == "memory:///list/c.jpg"
    assert len(found) == 4
    assert listing.notes == []


def test_a_manifest_without_uri(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "m.parquet")
    for manifest in (tmp_path / "m.parquet", write_csv(tmp_path / "m.csv", ("path",), ("a.jpg",))):
        with pytest.raises(DataError, match="needs a column named uri; its columns are: path"):
            list_source(str(manifest))


def test_a_manifest_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        list_source(str(tmp_path / "m.parquet"))


def test_duplicates_in_a_manifest(tmp_path: Path) -> None:
    header = ("uri", "patient")
    rows = [("a.jpg", "1"), ("b.jpg", "2"), ("./a.jpg", "1"), ("b.jpg", "3"), ("c.jpg", "4")]
    found, listing = listed(write_csv(tmp_path / "m.csv", header, *rows))
    assert [Path(photograph.uri).name for photograph in found] == ["a.jpg", "b.jpg", "c.jpg"]
    assert found[0].patient == "1"
    assert found[1].problem == "is listed for the patients 2 and 3: it can be of one alone, correct the list"
    assert any("2 rows name a photograph that an earlier row names" in note for note in listing.notes)


@pytest.mark.parametrize("remote", [False, True])
def test_the_photographs_of_a_shard(shard: Path, memory: Any, jpegs: list[bytes], remote: bool) -> None:
    source = str(shard.parent)
    if remote:
        memory.pipe_file("/shards/shard-0.tar", shard.read_bytes())
        source = "memory://shards"
    found, listing = listed(source)
    assert [photograph.uri.partition("::")[0] for photograph in found] == ["tar://a/0.jpg", "tar://a/1.jpg"]
    assert (found[0].patient, found[0].eye, found[0].date) == ("P1", "right", "2024-05-02")
    assert found[1].patient is None
    for photograph, data in zip(found, jpegs, strict=False):
        assert read_photograph(photograph.uri, size=photograph.size, offset=photograph.offset) == data
    assert len(listing.skipped) == 2


def test_a_shard_that_is_cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:3000])
    found, _ = listed(shard)
    assert found[-1].uri == str(shard)
    assert found[-1].problem is not None
    assert "the tar" in found[-1].problem


def test_a_shard_that_is_compressed(shard: Path) -> None:
    import gzip

    shard.write_bytes(gzip.compress(shard.read_bytes()))
    (only,), _ = listed(shard)
    assert only.problem is not None
    assert "is no tar" in only.problem
