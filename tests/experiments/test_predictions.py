"""What cross-validated runs say of photographs, as targets for another network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retigrade.data.manifest import Manifest, read_manifest
from retigrade.errors import DataError
from retigrade.experiments.predictions import PredictionRow, out_of_fold, write_predictions
from small_data import write_small_data


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest([write_small_data(tmp_path_factory.mktemp("small") / "eyes", photos=6)])


def rows(manifest: Manifest, *probabilities: float, part: str = "test") -> list[PredictionRow]:
    none, mild, moderate, severe, proliferative = probabilities
    return [
        PredictionRow(
            path=str(entry.path),
            name=entry.name,
            sha256=entry.sha256,
            source=entry.source,
            group=entry.name,
            fold="fold1",
            part=part,
            target=int(entry.grade),
            predicted=0,
            probabilities=(none, mild, moderate, severe, proliferative),
            status="",
        )
        for entry in manifest.entries
    ]


def test_out_of_fold_predictions_are_the_geometric_mean_over_runs(manifest: Manifest, tmp_path: Path) -> None:
    for name, probabilities in (("first", (0.8, 0.2, 0, 0, 0)), ("second", (0.2, 0.8, 0, 0, 0))):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name, rows(manifest, *probabilities))
    found = out_of_fold([tmp_path / "first", tmp_path / "second"], manifest)
    assert found.shape == (6, 5)
    assert found[0] == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert out_of_fold([tmp_path / "first"], manifest)[3] == pytest.approx([0.8, 0.2, 0, 0, 0])
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_photograph_that_no_fold_tested_is_named(manifest: Manifest, tmp_path: Path) -> None:
    validated = rows(manifest, 1, 0, 0, 0, 0, part="validation")
    write_predictions(tmp_path, [*rows(replace(manifest, entries=manifest.entries[1:]), 1, 0, 0, 0, 0), *validated])
    with pytest.raises(DataError, match=f"lacks 1 of the 6 photographs, such as {manifest.entries[0].name}"):
        out_of_fold([tmp_path], manifest)
