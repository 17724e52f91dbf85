from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gradings import graded, heat, refused
from retigrade.errors import UsageError
from retigrade.icdr import Grade, Status
from retigrade.output.rows import as_row, json_line


def test_its_text_is_one_short_line() -> None:
    assert repr(graded("a\x1b.jpg")) == "<Grading 'a\\\\x1b.jpg': moderate, referable>"
    assert repr(refused("cat.jpg")) == "<Grading 'cat.jpg': not fundus>"


def test_its_dictionary_is_a_line_of_the_listing() -> None:
    for grading in (graded(prediction_set=(Grade.MODERATE,)), refused()):
        assert json.loads(json.dumps(grading.to_dict())) == grading.to_dict() == json.loads(json_line(as_row(grading)))


def test_heat_is_made_once_and_cannot_be_changed_by_accident() -> None:
    grading = graded(heatmap=heat(width=60, height=40))
    assert grading.heat is grading.heat
    with pytest.raises(ValueError, match="read-only"):
        grading.heat[0, 0] = 1  # type: ignore[index]
    assert refused().heat is None


def test_a_saved_heatmap_has_the_photographs_size_and_is_clear_where_it_is_cool(tmp_path: Path) -> None:
    grading = graded(heatmap=heat(width=60, height=40))
    grading.save_heatmap(tmp_path / "new" / "map.png")
    pixels = cv2.imread(str(tmp_path / "new" / "map.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (40, 60, 4)
    assert grading.heat is not None
    assert pixels[..., 3][grading.heat == 0].max() == 0
    assert pixels[..., 3][grading.heat > 0.5].min() > 150


def test_a_map_that_is_not_there_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no thermal map to save"):
        refused().save_heatmap(tmp_path / "map.png")
    with pytest.raises(UsageError, match="cannot write"):
        graded(heatmap=heat(width=6, height=4)).save_heatmap(tmp_path)


def test_a_notebook_shows_text_and_a_picture_and_runs_nothing() -> None:
    html = graded("<script>.jpg", reasons=("<b>",), heatmap=heat(width=4000, height=3000))._repr_html_()
    assert "&lt;script&gt;.jpg</b>: moderate, referable" in html
    assert "data:image/png;base64," in html
    assert "<script" not in html
    assert "http" not in html
    assert len(html) < 100_000
    assert "img" not in refused()._repr_html_()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"referable": False}, "stage moderate is referable"),
        ({"grade": Grade.MILD, "reasons": ()}, "needs the reason"),
        ({"p_referable": None}, "needs grade"),
        ({"probabilities": np.ones(5)}, "not a distribution"),
        ({"status": Status.ERROR}, "carries no grade"),
    ],
)
def test_contradictions_are_no_grading(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        graded(**changes)
