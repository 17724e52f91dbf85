"""The prepared photographs: made once, whole or not at all, and never read back damaged."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.data.cache import canonical, prepared
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.errors import DataError, UsageError
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye

SIZE = 64


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("clinic")
    for number, folder in enumerate(("No_DR", "Mild", "Moderate")):
        eye = draw_eye(grade=Grade(number), size=160, aspect=1.2, rng=np.random.default_rng(number)).pixels
        (root / folder).mkdir()
        assert cv2.imwrite(str(root / folder / f"{number}.png"), cv2.cvtColor(eye, cv2.COLOR_RGB2BGR))
    return read_manifest(root, size=SIZE)


def test_made_once_and_the_same_as_one_by_one(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = prepared(manifest, size=SIZE, folder=tmp_path / "run")
    assert photos.shape == (3, SIZE, SIZE, 3)
    for entry, pixels in zip(manifest.entries, photos, strict=True):
        assert np.array_equal(pixels, canonical(entry, size=SIZE))
    (path,) = (tmp_path / "run").iterdir()
    assert np.array_equal(np.load(path), photos)
    monkeypatch.setattr("retigrade.data.cache.canonical", lambda *_, **__: pytest.fail("made again"))
    assert np.array_equal(prepared(manifest, size=SIZE, folder=tmp_path / "run"), photos)


def zeroed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def foreign(path: Path) -> None:
    np.save(path, np.zeros((3, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("damage", [zeroed, one_bit, cut, longer, foreign])
def test_damage_is_noticed_and_repaired(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    before = np.array(prepared(manifest, size=SIZE, folder=tmp_path))
    (path,) = tmp_path.iterdir()
    damage(path)
    with caplog.at_level(logging.WARNING, logger="retigrade"):
        after = prepared(manifest, size=SIZE, folder=tmp_path)
    assert np.array_equal(before, after)
    assert f"{path} is damaged; its photographs are prepared anew" in caplog.text


def test_a_full_disk_is_one_sentence_before_the_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _offset: int, size: int) -> None:
        assert size > 3 * SIZE * SIZE * 3
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("retigrade.data.cache.os.posix_fallocate", full, raising=False)
    monkeypatch.setattr("retigrade.data.cache.canonical", lambda *_, **__: pytest.fail("prepared"))
    with pytest.raises(UsageError, match=r"cannot write .*prepared-.*: No space left on device"):
        prepared(manifest, size=SIZE, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_all_photographs_without_a_disc_are_listed_at_once(manifest: Manifest, tmp_path: Path) -> None:
    entries = list(manifest.entries)
    for number in range(2):
        path = tmp_path / f"black{number}.png"
        assert cv2.imwrite(str(path), np.full((64, 64, 3), number, np.uint8))
        digest = read_manifest([_listed(path)]).entries[0].sha256
        entries.append(replace(entries[0], path=path, name=f"x/{path.name}", sha256=digest))
    with pytest.raises(DataError, match=r"2 of 5 .*black0\.png \(no retinal disc.*black1\.png .*--skip-unreadable"):
        prepared(Manifest(tuple(entries)), size=SIZE, folder=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def _listed(path: Path) -> Path:
    path.with_suffix(".csv").write_text(f"path,grade\n{path.name},0\n")
    return path.with_suffix(".csv")


def test_a_photograph_that_changed_since_is_named(manifest: Manifest, tmp_path: Path) -> None:
    entry = replace(manifest.entries[0], sha256="0" * 64)
    with pytest.raises(DataError, match="has changed since it was listed"):
        prepared(Manifest((entry,)), size=SIZE, folder=tmp_path)
