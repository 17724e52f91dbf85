from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.errors import DataError, UsageError
from retigrade.icdr import Grade
from retigrade.paper.config import Preparation
from retigrade.paper.pictures import View, gaussian, pictures, squeezed
from retigrade.synthetic import draw_eye


def save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for grade, aspect in ((0, 1.0), (2, 1.8)):
        eye = draw_eye(grade=Grade(grade), size=160, aspect=aspect, rng=np.random.default_rng(grade)).pixels
        save(eye, tmp_path / "data" / ("No_DR", "Mild", "Moderate")[grade] / "eye.png")
    return read_manifest(tmp_path / "data")


def disc(value: int, *, side: int = 120) -> Pixels:
    pixels = np.zeros((side, side, 3), np.uint8)
    cv2.circle(pixels, (side // 2, side // 2), side // 2 - 2, (value, value // 2, value // 4), -1)
    return pixels


def test_gaussian_is_grey_where_the_retina_is_even_and_black_outside() -> None:
    filtered = gaussian(disc(200))
    assert filtered[60, 60].tolist() == [128, 128, 128]
    assert filtered[0, 0].tolist() == [0, 0, 0]
    assert filtered.dtype == np.uint8


def test_gaussian_does_not_see_how_bright_a_photograph_is_but_sees_a_spot_fourfold() -> None:
    plain, brighter = disc(100), disc(140)
    inside = np.hypot(*np.mgrid[-60:60, -60:60]) < 40
    assert np.array_equal(gaussian(plain)[inside], gaussian(brighter)[inside])
    spotted = plain.copy()
    spotted[60, 60] += 10
    assert 128 + 4 * 10 * 0.8 < gaussian(spotted)[60, 60, 0] <= 128 + 4 * 10


def test_the_blur_is_a_thirtieth_of_the_radius() -> None:
    pixels = disc(100, side=240)
    pixels[120, 120] = (200, 150, 125)
    around = gaussian(pixels)[120, 121:140, 0].astype(int)
    expected = cv2.GaussianBlur(pixels[..., 0].astype(np.float32), (0, 0), 240 / 2 / 30)[120, 121:140]
    assert np.abs(around - (128 + 4 * (100 - expected))).max() <= 1


def test_squeezed_keeps_the_whole_frame_and_canonical_does_not(manifest: Manifest, tmp_path: Path) -> None:
    kept = pictures(manifest, view=View.SQUEEZED, preparation=Preparation.COLOUR, size=64, folder=tmp_path / "work")
    assert kept.shape == (2, 64, 64, 3)
    wide = next(index for index, entry in enumerate(manifest.entries) if entry.width > entry.height)
    assert kept[wide, 32, :8].max() < 20 < kept[1 - wide, 32, :8].max()  # black to the left and right of the disc
    canonical = pictures(
        manifest, view=View.CANONICAL, preparation=Preparation.COLOUR, size=64, folder=tmp_path / "work"
    )
    assert canonical[wide, 32, 2:8].max() > 20
    assert np.array_equal(kept[0], squeezed(manifest.entries[0], size=64))


def test_pictures_are_made_once(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"view": View.SQUEEZED, "preparation": Preparation.GAUSSIAN, "size": 64, "folder": tmp_path / "work"}
    first = np.array(pictures(manifest, **options))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("retigrade.paper.pictures.squeezed", refuse)
    monkeypatch.setattr("retigrade.paper.pictures.gaussian", refuse)
    again = pictures(manifest, **options)
    assert np.array_equal(first, again)
    assert not list((tmp_path / "work").glob("*.tmp"))


def test_a_photograph_that_is_gone_is_named(manifest: Manifest, tmp_path: Path) -> None:
    manifest.entries[0].path.unlink()
    with pytest.raises(DataError, match=r"eye\.png"):
        pictures(manifest, view=View.SQUEEZED, preparation=Preparation.COLOUR, size=64, folder=tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_a_folder_that_is_a_file_is_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        pictures(manifest, view=View.SQUEEZED, preparation=Preparation.COLOUR, size=64, folder=tmp_path / "work")
