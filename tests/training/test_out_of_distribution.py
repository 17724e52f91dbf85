"""What a bundle's detector refuses, and the command that fits it anew."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.bundle import Bundle
from retigrade.fundus.quality import QualityLimits
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training.out_of_distribution import Refit, fit_out_of_distribution, main
from tiny_bundle import write_tiny_bundle


def cloud(rng: np.random.Generator, count: int) -> np.ndarray:
    """Features of 40 channels that vary along four of many directions."""
    along = rng.normal(size=(count, 4)) @ np.random.default_rng(5).normal(size=(4, 40))
    return np.asarray(np.abs(5 + along + 0.1 * rng.normal(size=(count, 40))), np.float32)


def test_known_features_are_near_and_others_far() -> None:
    rng = np.random.default_rng(0)
    detector = fit_out_of_distribution(cloud(rng, 300), cloud(rng, 100))
    assert (detector.distance(cloud(rng, 200)) <= detector.limit).mean() > 0.97
    strange = np.abs(rng.normal(5, 3, (200, 40))).astype(np.float32)
    assert (detector.distance(strange) > detector.limit).mean() > 0.97


def test_the_command_gives_a_bundle_its_detector_and_the_present_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "eyes" / "No_DR"
    folder.mkdir(parents=True)
    for number in range(9):
        eye = draw_eye(grade=Grade.NONE, size=200, aspect=1.2, rng=np.random.default_rng(number))
        cv2.imwrite(str(folder / f"{number}.png"), eye.pixels[..., ::-1])
    corner = np.zeros((200, 200, 3), np.uint8)
    corner[120:, 120:] = 200
    cv2.imwrite(str(folder / "corner.png"), corner)
    limits = QualityLimits().model_copy(update={"dark": 0.01})
    path = write_tiny_bundle(tmp_path / "tiny.onnx", quality=limits)
    with caplog.at_level("INFO", logger="retigrade"):
        main(Refit(bundle=path, fundus=(tmp_path / "eyes",)))
    metadata = Bundle.load(path).metadata
    assert metadata.out_of_distribution is not None
    assert metadata.out_of_distribution.channels == 6
    assert metadata.quality == QualityLimits()
    assert "of 3 photographs kept apart are refused" in caplog.text
    assert "corner.png" in caplog.text  # what is no eye costs no other picture
    assert "of 40 drawn trees are refused" in caplog.text
