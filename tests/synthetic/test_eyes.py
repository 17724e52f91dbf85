"""The synthetic eye carries what its grade says, where its masks say, inside the field that it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retigrade.arrays import Flags
from retigrade.errors import UsageError
from retigrade.fundus.crop import crop
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field, find_field
from retigrade.fundus.measures import measure
from retigrade.fundus.quality import Quality, QualityLimits, assess
from retigrade.icdr import GRADES, Grade, Status
from retigrade.synthetic import MASKS, Phantom, demo_eyes, draw_eye, write_eyes


def distance(phantom: Phantom) -> npt.NDArray[np.float64]:
    """Distance of each pixel from the field's centre, in its radii: the rim is at 1."""
    height, width = phantom.pixels.shape[:2]
    field = phantom.field
    x = ((np.arange(width) + 0.5) / width - field.cx) / field.rx
    y = ((np.arange(height) + 0.5) / height - field.cy) / field.ry
    return np.hypot(x[None, :], y[:, None])


def spots(mask: Flags) -> npt.NDArray[np.float64]:
    """Centres (n, 2) of the connected parts of a mask, x and y in pixels."""
    return cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[3][1:]


def present(phantom: Phantom) -> set[str]:
    return {name for name, mask in phantom.masks.items() if mask.any()}


def prepared(phantom: Phantom) -> tuple[npt.NDArray[np.uint8], Field]:
    """The phantom as the network would see it, its disc found as in any photograph."""
    height, width = phantom.pixels.shape[:2]
    photo = Photo(pixels=phantom.pixels, width=width, height=height, sha256="")
    field = find_field(photo)
    return crop(photo, field, size=224), field


def judged(phantom: Phantom) -> Quality:
    return assess(*prepared(phantom), QualityLimits())


def gate_score(phantom: Phantom) -> float:
    """How much the gate takes the phantom for a retina: it must be judged graded, and the score is 1 or more then."""
    assert judged(phantom).status is Status.GRADED
    measures = measure(prepared(phantom)[0])
    assert measures is not None
    return float(QualityLimits().eye_score(measures))


def draw(grade: Grade = Grade.NONE, *, seed: int = 0, size: int = 256, **options: Any) -> Phantom:
    return draw_eye(grade=grade, size=size, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("grade", GRADES)
def test_same_generator_same_eye(grade: Grade) -> None:
    once, again = draw(grade), draw(grade)
    np.testing.assert_array_equal(once.pixels, again.pixels)
    for name in MASKS:
        np.testing.assert_array_equal(once.masks[name], again.masks[name])


def test_another_generator_another_eye() -> None:
    assert (draw(seed=1).pixels != draw(seed=2).pixels).any()


def test_one_generator_gives_different_eyes() -> None:
    rng = np.random.default_rng(0)
    first, second = (draw_eye(grade=Grade.NONE, size=256, rng=rng) for _ in range(2))
    assert (first.pixels != second.pixels).any()


def test_arrays_are_as_promised(eye: Phantom) -> None:
    assert eye.pixels.shape == (640, 960, 3)
    assert eye.pixels.dtype == np.uint8
    assert set(eye.masks) == set(MASKS)
    assert all(mask.shape == (640, 960) and mask.dtype == np.bool_ for mask in eye.masks.values())


def test_grades_of_one_generator_differ_only_near_their_lesions(eyes: Mapping[Grade, Phantom]) -> None:
    healthy, mild = eyes[Grade.NONE], eyes[Grade.MILD]
    near = cv2.dilate(mild.masks["microaneurysm"].astype(np.uint8), np.ones((15, 15))) > 0
    np.testing.assert_array_equal(healthy.pixels[~near], mild.pixels[~near])
    np.testing.assert_array_equal(healthy.masks["optic_disc"], mild.masks["optic_disc"])


@pytest.mark.parametrize(
    ("grade", "kinds"),
    [
        (Grade.NONE, set()),
        (Grade.MILD, {"microaneurysm"}),
        (Grade.MODERATE, {"microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate"}),
        (Grade.SEVERE, {"microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate"}),
        (Grade.PROLIFERATIVE, {"microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate", "new_vessel"}),
    ],
)
@pytest.mark.parametrize("size", [160, 320])
def test_each_grade_has_its_kinds_of_lesion(grade: Grade, kinds: set[str], size: int) -> None:
    assert all(present(draw(grade, seed=seed, size=size)) == kinds | {"optic_disc"} for seed in range(4))


@pytest.mark.parametrize(("aspect", "cut"), [(1.0, 0.0), (1.5, 0.08), (1.5, 0.2), (1.0, 0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_severe_has_more_than_twenty_haemorrhages_in_each_quadrant(aspect: float, cut: float, seed: int) -> None:
    phantom = draw(Grade.SEVERE, seed=seed, aspect=aspect, cut=cut)
    height, width = phantom.pixels.shape[:2]
    x, y = spots(phantom.masks["haemorrhage"]).T
    left, upper = x + 0.5 < phantom.field.cx * width, y + 0.5 < phantom.field.cy * height
    counts = [int((side & half).sum()) for side, half in product((left, ~left), (upper, ~upper))]
    assert min(counts) > 20, counts


def test_moderate_stays_below_the_severe_criterion() -> None:
    assert len(spots(draw(Grade.MODERATE).masks["haemorrhage"])) <= 20


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("cut", [0.0, 0.1])
def test_masks_lie_inside_the_field(grade: Grade, cut: float) -> None:
    phantom = draw(grade, aspect=1.4, cut=cut)
    outside = distance(phantom) > 1
    assert not any((mask & outside).any() for mask in phantom.masks.values())


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("aspect", [1.0, 1.5, 3.0])
def test_outside_the_field_is_black(grade: Grade, aspect: float) -> None:
    phantom = draw(grade, aspect=aspect)
    one_pixel = 1 / (phantom.field.ry * 256)
    assert not phantom.pixels[distance(phantom) > 1 + one_pixel].any()


@pytest.mark.parametrize(("aspect", "cut"), [(1.0, 0.0), (1.5, 0.0), (1.5, 0.1), (2.0, 0.2)])
def test_field_is_the_drawn_disc(aspect: float, cut: float) -> None:
    phantom = draw(size=320, aspect=aspect, cut=cut)
    bright = phantom.pixels.max(axis=2) > 30
    inside = distance(phantom) <= 1
    from_rim = np.abs(distance(phantom) - 1) * phantom.field.ry * 320
    assert from_rim[bright ^ inside].max(initial=0) < 1.5
    assert not phantom.field.filled


@pytest.mark.parametrize("cut", [0.05, 0.1, 0.2])
def test_cut_takes_that_part_of_the_disc_from_both_ends(cut: float) -> None:
    phantom = draw(size=320, aspect=1.7, cut=cut)
    assert phantom.field.cy - phantom.field.ry == pytest.approx(-cut / (1 - 2 * cut))
    assert phantom.field.cy + phantom.field.ry == pytest.approx(1 + cut / (1 - 2 * cut))
    lit = phantom.pixels.max(axis=2) > 30
    assert lit[0].any()
    assert lit[-1].any()


def test_an_uncut_disc_touches_no_edge(eye: Phantom) -> None:
    edges = (eye.pixels[0], eye.pixels[-1], eye.pixels[:, 0], eye.pixels[:, -1])
    assert not any(edge.any() for edge in edges)


def test_field_survives_squeezing(eye: Phantom) -> None:
    squeezed = cv2.resize(eye.pixels, (640, 640), interpolation=cv2.INTER_AREA)
    phantom = Phantom(pixels=squeezed, field=eye.field, masks=eye.masks, grade=eye.grade)
    assert ((squeezed.max(axis=2) > 30) ^ (distance(phantom) <= 1)).mean() < 0.002


@pytest.mark.parametrize(("eye_side", "right"), [("left", False), ("right", True)])
def test_the_optic_disc_is_on_its_side_and_the_brightest_place(eye_side: str, right: bool) -> None:
    phantom = draw(size=320, eye=eye_side)
    disc = phantom.masks["optic_disc"]
    (centre,) = spots(disc)
    assert bool(centre[0] > 160) is right
    green = phantom.pixels[..., 1].astype(float)
    assert green[disc].mean() > 1.5 * green[(distance(phantom) < 0.9) & ~disc].mean()


def test_a_notch_adds_a_tab_beside_the_upper_right_rim() -> None:
    plain, notched = draw(aspect=1.4), draw(aspect=1.4, notch=True)
    added = notched.pixels.any(axis=2) & ~plain.pixels.any(axis=2)
    (tab,) = spots(added)
    assert added.sum() > 10
    assert tab[0] > 0.6 * added.shape[1]
    assert tab[1] < 0.4 * added.shape[0]
    assert notched.field == plain.field


def test_lesions_look_as_their_names_say(eyes: Mapping[Grade, Phantom]) -> None:
    healthy, ill = eyes[Grade.NONE].pixels.astype(float), eyes[Grade.PROLIFERATIVE]
    change = ill.pixels.astype(float) - healthy
    for dark in ("microaneurysm", "haemorrhage", "new_vessel"):
        assert change[ill.masks[dark]][:, 1].mean() < -10, dark
    bright = ill.masks["hard_exudate"] & ~ill.masks["haemorrhage"] & ~ill.masks["new_vessel"]
    assert change[bright][:, 1].mean() > 20


def test_colours_are_those_of_a_retina(eye: Phantom) -> None:
    red, green, blue = np.median(eye.pixels[distance(eye) < 0.95], axis=0)
    assert 100 < red < 210
    assert 0.35 < green / red < 0.7
    assert blue < green


def test_blur_takes_detail_away_and_illumination_scales_light() -> None:
    def detail(phantom: Phantom) -> float:
        inside = distance(phantom) < 0.9
        return float(cv2.Laplacian(phantom.pixels[..., 1], cv2.CV_64F)[inside].std())

    plain, blurred, dark = draw(), draw(blur=0.03), draw(illumination=0.3)
    assert detail(blurred) < 0.7 * detail(plain)
    assert dark.pixels.mean() == pytest.approx(0.3 * plain.pixels.mean(), rel=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 100}, "size must be at least 160"),
        ({"cut": 0.3}, "cut must be between"),
        ({"cut": -0.1}, "cut must be between"),
        ({"aspect": 0.3}, "aspect must be between"),
        ({"aspect": 9.0}, "aspect must be between"),
        ({"aspect": 1.0, "cut": 0.2}, "aspect must be between 1.44"),
        ({"eye": "middle"}, "eye must be"),
        ({"blur": -1.0}, "must not be negative"),
        ({"illumination": -0.5}, "must not be negative"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(**options)


@pytest.fixture(scope="module")
def demo() -> Mapping[str, Phantom]:
    return dict(demo_eyes())


def test_demo_has_three_eyes(demo: Mapping[str, Phantom]) -> None:
    assert list(demo) == ["healthy.png", "moderate.png", "severe.png"]
    assert [phantom.grade for phantom in demo.values()] == [Grade.NONE, Grade.MODERATE, Grade.SEVERE]


def test_demo_passes_the_gate(demo: Mapping[str, Phantom]) -> None:
    scores = {name: gate_score(phantom) for name, phantom in demo.items()}
    assert min(scores.values()) >= 2, scores


@pytest.mark.parametrize("grade", GRADES)
def test_a_drawn_eye_passes_the_gate_with_room_to_spare(grade: Grade) -> None:
    scores = [gate_score(phantom) for phantom in framed(grade)]
    assert min(scores) >= 2, scores


@pytest.mark.parametrize("grade", GRADES)
def test_a_drawn_eye_is_taken_for_an_eye_in_every_frame(grade: Grade) -> None:
    assert Status.NOT_FUNDUS not in [judged(phantom).status for phantom in framed(grade)]


def framed(grade: Grade) -> list[Phantom]:
    frames: list[dict[str, Any]] = [
        {"size": 320},
        {"size": 400, "aspect": 1.5, "cut": 0.1},
        {"size": 320, "aspect": 1.5, "eye": "left"},
        {"size": 480, "aspect": 1.2, "cut": 0.05, "notch": True},
        {"size": 320, "aspect": 1.5, "cut": 0.2, "blur": 0.005},
    ]
    return [draw(grade, seed=10 + seed, **frame) for seed, frame in enumerate(frames)]


def test_a_drawn_eye_out_of_focus_or_light_does_not_pass() -> None:
    for options in ({"blur": 0.1, "size": 640}, {"illumination": 0.1}):
        phantom = draw(**options)
        assert judged(phantom).status is Status.UNGRADABLE, options


def test_write_eyes_writes_the_same_eyes_again_and_nothing_else(tmp_path: Path, demo: Mapping[str, Phantom]) -> None:
    folder = tmp_path / "new" / "eyes"
    paths = write_eyes(folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    for path, (name, phantom) in zip(paths, demo.items(), strict=True):
        assert path.name == name
        np.testing.assert_array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), phantom.pixels)


def test_write_eyes_leaves_no_part_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "healthy.png").mkdir()
    with pytest.raises(UsageError, match=r"healthy\.png"):
        write_eyes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["healthy.png"]


def test_module_writes_the_demo_into_the_named_folder(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "retigrade.synthetic"]
    subprocess.run([*run, str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"healthy.png", "moderate.png", "severe.png"}
    refused = subprocess.run(run, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "FOLDER" in refused.stderr


def test_fixtures_write_and_find_photographs(eye: Phantom, photo_path: Callable[..., Path]) -> None:
    png, jpg = photo_path(eye), photo_path(eye, "deep/er/eye.jpg")
    np.testing.assert_array_equal(cv2.imread(str(png))[..., ::-1], eye.pixels)
    assert np.abs(cv2.imread(str(jpg))[..., ::-1].astype(int) - eye.pixels).mean() < 3


def test_field_statistics_match_real_photographs(real_data: Path) -> None:
    def figures(pixels: npt.NDArray[np.uint8], inside: Flags) -> list[float]:
        inside = cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0
        detail = cv2.Laplacian(pixels[..., 1], cv2.CV_64F)[inside].std()
        return [*np.median(pixels[inside], axis=0), float(detail), *pixels[inside].std(axis=0)]

    photos = [
        cv2.imread(str(path))[..., ::-1] for path in sorted((real_data / "idrid" / "photos").glob("*.jpg"))[:40:2]
    ]
    if not photos:
        pytest.skip(f"no photographs in {real_data / 'idrid' / 'photos'}")
    real = np.array([figures(photo, photo.max(axis=2) > 30) for photo in photos])
    phantom = draw(size=712, aspect=1.5, cut=0.08, seed=3)
    drawn = figures(phantom.pixels, distance(phantom) <= 1)
    assert (drawn > real.min(axis=0)).all()
    assert (drawn < real.max(axis=0)).all()
