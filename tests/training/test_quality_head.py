"""What tells photographs that nobody could read by a network's features, and the command that gives it to a bundle."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the fit needs the train extra")

from retigrade.arrays import Floats
from retigrade.bundle import Bundle
from retigrade.errors import DataError
from retigrade.fundus.measures import MEASURES
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training import quality_head
from retigrade.training.gate_sample import GOOD, REJECT, USABLE, GateSample
from retigrade.training.quality_head import Refit, fit_quality_head, main, refused_out_of_fold, weight_of
from tiny_bundle import write_tiny_bundle


def clouds(*, apart: float, n: int = 120) -> tuple[GateSample, Floats]:
    """Features of 12 channels, the second half of them, two of a patient, rejected and so far apart in three."""
    rng = np.random.default_rng(0)
    features = rng.uniform(1, 9, (2 * n, 12)).astype(np.float32)
    features[n:, :3] += apart
    sample = GateSample(
        measures=rng.normal(size=(2 * n, len(MEASURES))),
        kind=np.full(2 * n, "eye"),
        picture=np.arange(2 * n) // 2,
        source=np.full(2 * n, "drawn"),
        quality=np.repeat([GOOD, REJECT], n),
        grade=np.zeros(2 * n, np.int64),
    )
    return sample, features


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_head, "_REPEATS", 1)


@pytest.fixture
def features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_head, "_GATE", 0.0)


@pytest.mark.usefixtures("features_alone")
def test_what_is_plainly_apart_is_told_and_the_limit_refuses_the_share_that_it_should() -> None:
    sample, features = clouds(apart=20)
    refused, head, _ = refused_out_of_fold(sample, features, altered="restored")
    poor = sample.quality == REJECT
    assert refused[poor].mean() == pytest.approx(0.61, abs=0.05)
    assert not refused[~poor].any()
    scores = head.score(features, np.zeros(len(poor)))
    assert scores[poor].min() > scores[~poor].max()
    assert scores[~poor].max() < head.limit < scores[poor].max()


def test_what_the_gate_sees_counts_too() -> None:
    sample, features = clouds(apart=0)
    poor = sample.quality == REJECT
    seen = replace(sample, measures=sample.measures + 3 * poor[:, None])
    refused, *_ = refused_out_of_fold(seen, features, altered="restored")
    assert refused[poor].mean() == pytest.approx(0.61, abs=0.05)
    assert refused[~poor].mean() < 0.02


@pytest.mark.usefixtures("features_alone")
def test_what_does_not_differ_is_not_told_by_fits_that_did_not_see_it() -> None:
    sample, features = clouds(apart=0)
    refused, *_ = refused_out_of_fold(sample, features, altered="restored")
    poor = sample.quality == REJECT
    assert refused[poor].mean() == pytest.approx(refused[~poor].mean(), abs=0.12)


@pytest.mark.usefixtures("features_alone")
def test_altered_photographs_choose_no_limit() -> None:
    sample, features = clouds(apart=20)
    altered = np.arange(240) >= 180
    far = features.copy()
    far[altered, :3] += 200
    mixed = replace(sample, source=np.where(altered, "drawn restored", "drawn"))
    refused, *_ = refused_out_of_fold(mixed, far, altered="restored")
    assert refused[altered].all()
    assert refused[(sample.quality == REJECT) & ~altered].mean() == pytest.approx(0.61, abs=0.08)


def test_what_must_not_be_refused_counts_more_and_what_nobody_judged_not_at_all() -> None:
    sample = GateSample(
        measures=np.zeros((6, len(MEASURES))),
        kind=np.full(6, "eye"),
        picture=np.arange(6),
        source=np.array(["a", "a", "a", "a", "b", "a"]),
        quality=np.array([GOOD, USABLE, REJECT, "", "", USABLE]),
        grade=np.array([0, 0, 4, 0, 4, 3]),
    )
    assert weight_of(sample).tolist() == [1, 4, 1, 0, 3, 12]


def test_a_few_photographs_that_nobody_could_read_are_refused_as_a_sample() -> None:
    sample, features = clouds(apart=1, n=4)
    lone = replace(sample, picture=np.array([0, 1, 2, 3, 4, 4, 4, 4]))
    with pytest.raises(DataError, match="4 unaltered photographs are labelled as unreadable"):
        refused_out_of_fold(lone, features, altered="restored")


def test_rarely_varying_channels_stay_finite_as_they_are_packed() -> None:
    sample, features = clouds(apart=5)
    still = np.concatenate([features, np.full((240, 2), 3.0, np.float32)], axis=1)
    head = fit_quality_head(still, sample.quality == REJECT, np.ones(240), limit=0)
    assert head.channels == 14
    assert np.isfinite(head.score(still, np.zeros(240))).all()


def test_the_command_gives_a_bundle_its_head_in_place_of_the_gates_score(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = []
    for number in range(24):
        folder = tmp_path / "eyes" / "No_DR"
        folder.mkdir(parents=True, exist_ok=True)
        poor = number % 2 == 1
        eye = draw_eye(grade=Grade.NONE, size=200, aspect=1.2, rng=np.random.default_rng(number))
        pixels = (eye.pixels * 0.4).astype(np.uint8) if poor else eye.pixels
        cv2.imwrite(str(folder / f"{number}.png"), pixels[..., ::-1])
        rows.append({"image": str(number), "quality": REJECT if poor else GOOD})
    labels = tmp_path / "quality.csv"
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "quality"])
        writer.writeheader()
        writer.writerows(rows)
    path = write_tiny_bundle(tmp_path / "tiny.onnx", schema_version=3)
    with caplog.at_level("INFO", logger="retigrade"):
        main(Refit(bundle=path, fundus=(tmp_path / "eyes",), readable=labels))
    metadata = Bundle.load(path).metadata
    assert metadata.quality_head is not None
    assert (metadata.schema_version, metadata.quality_head.channels, metadata.quality.reject_limit) == (4, 6, None)
    assert "12 unaltered, labelled good " in caplog.text
    assert "12 unaltered, labelled reject " in caplog.text
