from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retigrade.fundus.crop import crop
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field
from retigrade.heatmap import Heatmap, make_heatmap

FIELDS = {
    "round": (Field(cx=0.5, cy=0.5, rx=0.375, ry=0.5), 400, 300),
    "squeezed": (Field(cx=0.5, cy=0.5, rx=0.37, ry=0.49), 300, 300),
    "cut off above and below": (Field(cx=0.5, cy=0.5, rx=0.47, ry=0.66), 420, 300),
    "off centre and cut at the left": (Field(cx=0.4, cy=0.55, rx=0.45, ry=0.4), 350, 410),
    "filled": (Field(cx=0.5, cy=0.5, rx=0.5, ry=0.5, filled=True), 320, 240),
}
ROUND: dict[str, Any] = {"receptive_field_offset": (0.5, 0.5), "field": FIELDS["round"][0], "width": 40, "height": 30}
everywhere = pytest.mark.parametrize(("field", "width", "height"), FIELDS.values(), ids=FIELDS)
fields = st.builds(
    Field, cx=st.floats(0, 1), cy=st.floats(0, 1), rx=st.floats(0.01, 3), ry=st.floats(0.01, 3), filled=st.booleans()
)


def disc(field: Field, width: int, height: int) -> np.ndarray:
    """The distance of each pixel's middle from the ellipse's centre, in its own half axes."""
    x = ((np.arange(width) + 0.5) / width - field.cx) / field.rx
    y = ((np.arange(height) + 0.5) / height - field.cy) / field.ry
    return np.hypot(x[None], y[:, None])


def one_hot(row: int, column: int, cells: int = 7) -> np.ndarray:
    values = np.zeros((cells, cells), np.float32)
    values[row, column] = 1
    return values


@everywhere
@pytest.mark.parametrize(("row", "column"), [(3, 3), (1, 2), (5, 4), (3, 1)])
def test_a_hot_cell_lands_where_its_part_of_the_photo_is(
    field: Field, width: int, height: int, row: int, column: int
) -> None:
    heat = Heatmap(one_hot(row, column), field, width, height).in_source_pixels()
    assert heat.shape == (height, width)
    found_y, found_x = np.unravel_index(np.argmax(heat), heat.shape)
    x = (field.cx - field.rx + 2 * field.rx * (column + 0.5) / 7) * width
    y = (field.cy - field.ry + 2 * field.ry * (row + 0.5) / 7) * height
    if 0 < y < height and 0 < x < width:
        assert (found_x, found_y) == (pytest.approx(x - 0.5, abs=1), pytest.approx(y - 0.5, abs=1))
        assert heat.max() == pytest.approx(1, abs=0.01)


def test_heat_is_shown_where_the_network_looked_for_it() -> None:
    field, width, height = FIELDS["round"]
    heats = [Heatmap(one_hot(3, 2), field, width, height, offset) for offset in ((0.5, 0.5), (0.75, 0.75))]
    places = [np.unravel_index(np.argmax(heat.in_source_pixels()), (height, width)) for heat in heats]
    cell = 2 * field.ry * height / 7
    np.testing.assert_allclose(np.subtract(*places[::-1]), [cell / 4, cell / 4], atol=1)


@everywhere
def test_a_spot_on_the_photo_is_hot_where_the_network_sees_it(field: Field, width: int, height: int) -> None:
    """There and back through `crop`: a bright spot's own canonical picture, as heat, lies on that spot."""
    pixels = np.zeros((height, width, 3), np.uint8)
    y, x = round(0.42 * height), round(0.6 * width)
    pixels[y - 6 : y + 6, x - 6 : x + 6] = 255
    canonical = crop(Photo(pixels, width, height, ""), field, size=112)
    heat = Heatmap(canonical[..., 0].astype(np.float32) / 255, field, width, height).in_source_pixels()
    rows, columns = np.mgrid[:height, :width] + 0.5
    assert (heat * columns).sum() / heat.sum() == pytest.approx(x, abs=1.5)
    assert (heat * rows).sum() / heat.sum() == pytest.approx(y, abs=1.5)


@everywhere
def test_it_is_zero_outside_the_disc_and_hot_up_to_its_rim(field: Field, width: int, height: int) -> None:
    heat = Heatmap(np.ones((7, 7), np.float32), field, width, height).in_source_pixels()
    distance = disc(field, width, height)
    assert not heat[distance > 1 + 1e-9].any()
    np.testing.assert_allclose(heat[distance < 1 - 1e-9], 1, atol=1e-6)


def test_a_surround_stays_cool() -> None:
    field = Field(cx=0.5, cy=0.5, rx=0.4, ry=0.6, window=(0.1, 0.2, 0.9, 0.7))
    heat = Heatmap(np.ones((7, 7), np.float32), field, 100, 50).in_source_pixels()
    assert heat[25, 50] == 1
    assert not heat[:10].any()
    assert not heat[35:].any()
    assert heat[30, 45] == 1


@given(field=fields, width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 99))
def test_any_field_in_any_frame_stays_in_range(field: Field, width: int, height: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 4), dtype=np.float32)
    heat = Heatmap(values, field, width, height).in_source_pixels()
    assert heat.shape == (height, width)
    assert heat.dtype == np.float32
    assert 0 <= heat.min() <= heat.max() <= 1
    assert not heat[disc(field, width, height) > 1 + 1e-9].any()


def test_a_smaller_frame_shows_the_same_heat() -> None:
    field, width, height = FIELDS["off centre and cut at the left"]
    heat = Heatmap(np.random.default_rng(0).random((7, 7), dtype=np.float32), field, 4 * width, 4 * height)
    small = heat.in_frame(width, height)
    averaged = heat.in_source_pixels().reshape(height, 4, width, 4).mean(axis=(1, 3))
    inside = disc(field, width, height) < 0.97
    np.testing.assert_allclose(small[inside], averaged[inside], atol=0.01)


@everywhere
def test_several_threads_make_the_same_map(
    field: Field, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).random((28, 28), np.float32)
    values[5:20, 3:14] = 0
    heatmap = Heatmap(values, field, width, height)
    alone = heatmap.in_source_pixels()
    monkeypatch.setattr("retigrade.heatmap._LARGE", 0)
    monkeypatch.setattr("cv2.getNumThreads", lambda: 3)
    np.testing.assert_array_equal(heatmap.in_source_pixels(), alone)


def test_evidence_for_each_stage_counts_by_its_probability() -> None:
    maps = np.stack([np.full((2, 2), value, np.float32) for value in (0.5, 1.0, 2.0, 3.0, 4.0)])
    probabilities = np.array([0.2, 0.0, 0.6, 0.2, 0.0])
    heat = make_heatmap(
        maps,
        probabilities,
        cam_maximum=4.0,
        **ROUND,
    )
    np.testing.assert_allclose(heat.values, (((0.75 * 2.0 + 0.25 * 3.0) - 0.5) / 4.0) ** 2, rtol=1e-6)
    assert (heat.width, heat.height) == (40, 30)


def test_a_healthy_eye_stays_cool() -> None:
    maps = np.stack([np.full((2, 2), value, np.float32) for value in (6.0, 0.0, -1.0, -2.0, -3.0)])
    heat = make_heatmap(
        maps,
        np.array([1.0, 0, 0, 0, 0]),
        cam_maximum=1.0,
        **ROUND,
    )
    assert not heat.values.any()


def test_the_evidence_averages_to_the_difference_of_the_logits() -> None:
    maps = np.random.default_rng(1).normal(size=(5, 7, 7)).astype(np.float32)
    maps[0] -= 20  # so that nothing is clipped
    probabilities = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    heat = make_heatmap(
        maps,
        probabilities,
        cam_maximum=100.0,
        **ROUND,
    )
    logits = maps.mean(axis=(1, 2))
    expected = probabilities[1:] @ logits[1:] / 0.9 - logits[0]
    assert 100 * np.sqrt(heat.values).mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("values", [np.zeros((7, 7)), np.zeros(7, np.float32)])
def test_values_of_another_kind_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values must be float32"):
        Heatmap(values, FIELDS["round"][0], 40, 30)


def test_maps_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="maps must be"):
        make_heatmap(
            np.zeros((4, 7, 7), np.float32),
            np.ones(5) / 5,
            cam_maximum=1,
            receptive_field_offset=(0.5, 0.5),
            field=FIELDS["round"][0],
            width=4,
            height=3,
        )
