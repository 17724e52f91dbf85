from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.data.duplicates import find_duplicates, find_pairs
from retigrade.data.groups import connected_components, positions_by_key
from retigrade.data.manifest import Entry, read_manifest
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import decode
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye


def entry(path: Path) -> Entry:
    return Entry(
        path=path,
        name=path.name,
        grade=Grade.NONE,
        patient=path.name,
        eye=None,
        source="s",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        width=1,
        height=1,
    )


def save(pixels: Pixels, path: Path, *options: int) -> Entry:
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return entry(path)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Entry]:
    """One eye in many versions, its fellows, and other eyes of the same camera."""
    folder = tmp_path_factory.mktemp("photographs")
    first = draw_eye(grade=Grade.MODERATE, size=320, aspect=1.4, rng=np.random.default_rng(5)).pixels
    height, width = first.shape[:2]
    made = {
        "original": save(first, folder / "original.png"),
        "copy": save(first, folder / "copy.png"),
        "other bytes": save(first, folder / "other bytes.png", cv2.IMWRITE_PNG_COMPRESSION, 1),
        "recompressed": save(first, folder / "recompressed.jpg", cv2.IMWRITE_JPEG_QUALITY, 60),
        "squeezed": save(cv2.resize(first, (224, 224), interpolation=cv2.INTER_AREA), folder / "squeezed.png"),
        "larger": save(cv2.resize(first, (width * 2, height * 2)), folder / "larger.png"),
        "darker": save((first * 0.6).astype(np.uint8), folder / "darker.png"),
        "cut": save(first[height // 12 : -height // 12], folder / "cut.png"),
    }
    for seed in range(6, 16):
        other = draw_eye(grade=Grade(seed % 5), size=320, aspect=1.4, rng=np.random.default_rng(seed)).pixels
        made[f"other {seed}"] = save(other, folder / f"other {seed}.png")
    return made


def test_every_version_of_one_eye_is_found_and_no_other(photographs: Mapping[str, Entry]) -> None:
    names = list(photographs)
    (group,) = find_duplicates([item.path for item in photographs.values()])
    assert {names[index] for index in group} == {name for name in names if not name.startswith("other ")} | {
        "other bytes"
    }


def test_equal_bytes_and_equal_pixels_are_exact_and_others_near(photographs: Mapping[str, Entry]) -> None:
    chosen = [photographs[name].path for name in ("original", "copy", "other bytes", "recompressed")]
    exact = {(pair.first, pair.second): pair.exact for pair in find_pairs(chosen)}
    assert exact == {(0, 1): True, (0, 2): True, (0, 3): False}


def test_likeness_falls_with_the_change(photographs: Mapping[str, Entry]) -> None:
    original = photographs["original"].path
    (recompressed,) = find_pairs([original, photographs["recompressed"].path])
    (cut,) = find_pairs([original, photographs["cut"].path])
    assert 1 >= recompressed.likeness > cut.likeness > 0.7


def test_equal_pictures_without_a_retina_are_still_found(tmp_path: Path) -> None:
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    paths = [save(black, tmp_path / f"{name}.png").path for name in "ab"]
    paths.append(save(np.full((64, 64, 3), 255, dtype=np.uint8), tmp_path / "white.png").path)
    assert find_duplicates(paths) == ((0, 1),)


def test_none_and_one_have_no_duplicates(photographs: Mapping[str, Entry]) -> None:
    assert find_duplicates([]) == ()
    assert find_duplicates([photographs["original"].path]) == ()


def test_an_unreadable_photograph_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("no picture")
    with pytest.raises(UnreadablePhoto, match=r"a\.png"):
        find_duplicates([path])


def test_connected_components_join_chains_and_keys_keep_their_order() -> None:
    assert connected_components([(4, 1), (1, 2), (5, 6)], size=8) == ((1, 2, 4), (5, 6))
    assert positions_by_key(["x", "y", "x"]) == [(0, 2), (1,)]


@pytest.mark.slow
def test_real_duplicates_are_found_and_confirmed_on_pixels(real_data: Path) -> None:
    whole = read_manifest(real_data / "aptos2019").entries
    places = defaultdict(list)
    for index, item in enumerate(whole):
        places[item.sha256].append(index)
    copied = [index for same in places.values() if len(same) > 1 for index in same]
    chosen = sorted({*copied, *range(0, len(whole), 6)})
    entries = [whole[index] for index in chosen]
    groups = find_duplicates([item.path for item in entries])
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    for same in positions_by_key(item.sha256 for item in entries):
        assert len({group_of.get(index, -1 - index) for index in same}) == 1
    found = [pair for group in groups for pair in combinations(group, 2)]
    alike_enough = [correlation(entries[first].path, entries[second].path) > 0.95 for first, second in found]
    assert np.mean(alike_enough) >= 0.95


def correlation(first: Path, second: Path) -> float:
    """Of the whole pictures, plain and as they lie: nothing of the finder's own."""
    one, other = (decode(path).pixels.astype(np.float64).ravel() for path in (first, second))
    return float(np.corrcoef(one, other)[0, 1])
