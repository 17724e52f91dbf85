from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.bundle import Bundle, reseal, strip
from retigrade.data.duplicates import find_duplicates
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import Splits, write_splits
from retigrade.errors import DataError
from retigrade.icdr import GRADES
from retigrade.metadata import Training
from retigrade.synthetic import draw_eye
from retigrade.training.recalibration import Recalibration, main
from tiny_bundle import tiny_card, tiny_model

PHOTOS = 30


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Class folders of small drawn eyes, each of another colour: the tiny network sees nothing else."""
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        grade = GRADES[number % len(GRADES)]
        pixels = draw_eye(grade=grade, size=160, rng=rng).pixels * rng.uniform(0.8, 1.1, 3)
        path = tmp_path / "labelled" / f"{grade:d}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), cv2.cvtColor(np.clip(pixels, 0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR))
    return tmp_path / "labelled"


def test_the_calibration_is_fitted_anew_and_the_network_stays(labelled: Path, tmp_path: Path) -> None:
    old, new, splits = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "splits.json"
    old.write_bytes(reseal(tiny_model(), tiny_card().model_copy(update={"temperature": 7.0, "operating_points": {}})))
    manifest = read_manifest(labelled)
    part_of = np.arange(PHOTOS) % 2
    groups = find_duplicates(manifest.paths)
    write_splits(Splits(("train", "validation"), part_of, groups, manifest.fingerprint, 0), splits, manifest)
    main(Recalibration(bundle=old, splits=splits, data=(labelled,), output=new))
    before, after = Bundle.load(old).metadata, Bundle.load(new).metadata
    assert strip(new.read_bytes()) == strip(old.read_bytes())
    assert after.temperature != before.temperature
    assert set(after.operating_points) == {"screening", "balanced", "specific"}
    assert after.referable_threshold == after.operating_points["balanced"].threshold
    assert (after.training, after.quality) == (before.training, before.quality)


def test_photographs_that_the_bundle_learned_from_calibrate_nothing(labelled: Path, tmp_path: Path) -> None:
    manifest = read_manifest(labelled)
    hashes = Training.pack_hashes(entry.sha256 for entry in manifest.entries[1:2])
    card = tiny_card()
    old, splits = tmp_path / "old.onnx", tmp_path / "splits.json"
    learned = card.training.model_copy(update={"photo_hashes": hashes})
    old.write_bytes(reseal(tiny_model(), card.model_copy(update={"training": learned})))
    parts = Splits(("train", "validation"), np.arange(PHOTOS) % 2, (), manifest.fingerprint, 0)
    write_splits(parts, splits, manifest)
    with pytest.raises(DataError, match="learned from 1 photographs of the part validation, such as"):
        main(Recalibration(bundle=old, splits=splits, data=(labelled,), output=tmp_path / "new.onnx"))
    assert not (tmp_path / "new.onnx").exists()
