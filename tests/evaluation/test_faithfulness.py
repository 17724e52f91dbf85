from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.data.annotations import AnnotatedPhoto, read_annotated
from retigrade.errors import DataError
from retigrade.evaluation.faithfulness import at_random, evidence, measure_faithfulness, score
from retigrade.fundus.canonical import CanonicalView, canonical_view
from retigrade.fundus.decode import Photo
from retigrade.grader import Grader, load
from retigrade.heatmap import on_frame
from retigrade.icdr import Grade
from retigrade.synthetic import Phantom
from tiny_bundle import SIZE, write_tiny_bundle


@pytest.fixture
def grader(tmp_path: Path) -> Grader:
    return load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)


@pytest.fixture
def annotated(eyes: Mapping[Grade, Phantom]) -> AnnotatedPhoto:
    pixels = eyes[Grade.SEVERE].pixels
    lesions = np.zeros(pixels.shape[:2], bool)
    lesions[150:170, 80:100] = True
    return AnnotatedPhoto(Path("eye.png"), Photo(pixels, pixels.shape[1], pixels.shape[0], "0" * 64), lesions)


def one(heat: np.ndarray, annotated: AnnotatedPhoto, grader: Grader, *, steps: int = 0):
    seen = canonical_view(annotated.photo, size=SIZE)
    rng = np.random.default_rng(0)
    return score(heat.astype(np.float32), seen, annotated, grader, rng=rng, steps=steps)


def test_a_map_of_the_lesions_themselves_is_perfect(annotated: AnnotatedPhoto, grader: Grader) -> None:
    found = one(annotated.dilated, annotated, grader)
    assert found.overlap.mass_accuracy == 1.0
    assert found.overlap.pointing == 1.0
    assert 0 < found.overlap.chance < 0.05


def test_an_even_map_scores_chance(annotated: AnnotatedPhoto, grader: Grader) -> None:
    found = one(np.ones(annotated.lesions.shape), annotated, grader)
    assert found.overlap.mass_accuracy == pytest.approx(found.overlap.chance)
    assert found.overlap.pointing == pytest.approx(found.overlap.chance)


def test_a_map_beside_the_lesions_scores_nothing(annotated: AnnotatedPhoto, grader: Grader) -> None:
    found = one(np.roll(annotated.lesions, 100, axis=1), annotated, grader)
    assert (found.overlap.mass_accuracy, found.overlap.pointing) == (0.0, 0.0)


def test_a_cool_map_cannot_be_scored(annotated: AnnotatedPhoto, grader: Grader) -> None:
    found = one(np.zeros(annotated.lesions.shape), annotated, grader)
    assert np.isnan(found.overlap.mass_accuracy)
    assert np.isnan(found.overlap.pointing)


def test_each_kind_of_lesion_is_scored_apart(annotated: AnnotatedPhoto, grader: Grader) -> None:
    mask = annotated.mask.astype(np.uint8)
    mask[150:170, 80:100] = 2
    mask[100:110, 150:160] = 4 | 8
    both = AnnotatedPhoto(annotated.path, annotated.photo, mask)
    found = one(both.dilated_of(2), both, grader)
    assert set(found.kinds) == {"haemorrhage", "hard exudate", "soft exudate"}
    assert found.kinds["haemorrhage"].mass_accuracy == found.kinds["haemorrhage"].pointing == 1.0
    assert found.kinds["hard exudate"].mass_accuracy == found.kinds["hard exudate"].pointing == 0.0
    assert found.overlap.mass_accuracy == 1.0
    figures = measure_faithfulness(grader, [both, both], {"random": at_random(np.random.default_rng(0))}, steps=0)
    assert figures.maps["random"].kinds["soft exudate"].photos == 2
    assert "microaneurysm" not in figures.maps["random"].kinds


def test_deletion_ends_where_insertion_begins(annotated: AnnotatedPhoto, grader: Grader) -> None:
    # With one step the two curves have the same ends, so the same area; with more they part.
    heat = np.random.default_rng(1).random(annotated.lesions.shape)
    ends = one(heat, annotated, grader, steps=1)
    assert ends.deletion == pytest.approx(ends.insertion)
    assert ends.referable_deletion == pytest.approx(ends.referable_insertion)
    found = one(heat, annotated, grader, steps=6)
    assert all(0 <= value <= 1 for value in (found.deletion, found.insertion, found.referable_deletion))


def test_deleting_what_the_grade_rests_on_lowers_its_probability_sooner(
    annotated: AnnotatedPhoto, grader: Grader
) -> None:
    """By the gradient of the tiny network, found by hand: blur each cell and see."""
    seen = canonical_view(annotated.photo, size=SIZE)
    metadata = grader.bundle.metadata
    probabilities = metadata.probabilities(grader.bundle.run(seen.canonical[None]).logits)[0]
    predicted, cell = metadata.decision.decide(probabilities), SIZE // 4
    drop = np.zeros((4, 4), np.float32)
    for row, column in np.ndindex(4, 4):
        changed = seen.canonical.copy()
        block = changed[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        block[:] = cv2.blur(changed, (25, 25))[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        after = metadata.probabilities(grader.bundle.run(changed[None]).logits)[0]
        drop[row, column] = probabilities[predicted] - after[predicted]
    heat = (drop - drop.min()) / np.ptp(drop)
    good, bad = (one(on_frame(values, seen), annotated, grader, steps=8) for values in (heat, 1 - heat))
    assert good.deletion < bad.deletion


def test_all_maps_are_measured_on_the_same_photographs(annotated: AnnotatedPhoto, grader: Grader) -> None:
    def cool(seen: CanonicalView) -> np.ndarray:
        return np.zeros(seen.disc.shape, np.float32)

    random = at_random(np.random.default_rng(0))
    maps = {"shown": evidence(grader), "random": random, "cool": cool}
    nothing = AnnotatedPhoto(
        Path("black.png"), Photo(np.zeros((60, 60, 3), np.uint8), 60, 60, "1" * 64), np.ones((60, 60), bool)
    )
    found = measure_faithfulness(grader, [annotated, nothing, annotated], maps, steps=2, rounds=20)
    assert found.without_field == 1
    assert {name: one.photos for name, one in found.maps.items()} == {"shown": 2, "random": 2, "cool": 2}
    assert found.maps["cool"].cool == 2
    assert found.maps["cool"].overlap.ratio.value is None
    assert found.maps["random"].overlap.chance == found.maps["shown"].overlap.chance
    assert found.maps["shown"].overlap.ratio.low is None  # two photographs give no interval


def test_the_shown_map_is_the_graders_own(annotated: AnnotatedPhoto, grader: Grader) -> None:
    seen = canonical_view(annotated.photo, size=SIZE)
    expected = grader.grade_photo(annotated.photo).heat
    assert expected is not None
    np.testing.assert_array_equal(evidence(grader)(seen), expected)


class TestFolder:
    @pytest.fixture
    def folder(self, eyes: Mapping[Grade, Phantom], photo_path: Callable[..., Path]) -> Path:
        for name, grade in (("a", Grade.SEVERE), ("b", Grade.NONE)):
            path = photo_path(eyes[grade], f"marked/photos/{name}.png")
            mask = np.zeros(eyes[grade].pixels.shape[:2], np.uint8)
            mask[50:60, 50:60] = 2 if name == "a" else 16
            (path.parents[1] / "masks").mkdir(exist_ok=True)
            cv2.imwrite(str(path.parents[1] / "masks" / f"{name}.png"), mask)
        return path.parents[1]

    def test_those_with_lesions_are_read_the_optic_disc_is_none(self, folder: Path) -> None:
        (found,) = read_annotated(folder)
        assert found.path.stem == "a"
        assert found.lesions.sum() == 100
        assert 100 < found.dilated.sum() <= 14 * 14

    def test_a_missing_mask_is_named(self, folder: Path) -> None:
        (folder / "masks" / "b.png").unlink()
        with pytest.raises(DataError, match=r"b\.png: no such file \(1 of 2"):
            list(read_annotated(folder))

    def test_a_mask_of_another_size_is_refused(self, folder: Path) -> None:
        cv2.imwrite(str(folder / "masks" / "a.png"), np.ones((50, 50), np.uint8))
        with pytest.raises(DataError, match="its photograph"):
            list(read_annotated(folder))

    def test_a_mask_that_is_no_picture_is_refused(self, folder: Path) -> None:
        (folder / "masks" / "a.png").write_bytes(b"x")
        with pytest.raises(DataError, match=r"a\.png"):
            list(read_annotated(folder))

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no photographs"):
            list(read_annotated(tmp_path))
