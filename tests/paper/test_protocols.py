from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import check_leaks
from retigrade.errors import DataError
from retigrade.icdr import Grade
from retigrade.paper.protocols import LEAKING_SHARE, divide_honestly, honest, leaking, parts_of, published


def manifest(count: int, *, patients: int | None = None) -> Manifest:
    def entry(number: int) -> Entry:
        name = f"{number:04d}.png"
        patient = f"p{number % patients}" if patients else name
        return Entry(Path(name), name, Grade(number % 5), patient, None, "here", f"{number:064x}", 64, 64)

    return Manifest(tuple(map(entry, range(count))))


@given(count=st.integers(10, 400), folds=st.integers(1, 8), seed=st.integers(0, 99))
def test_published_folds_are_disjoint_fifths_and_train_on_the_rest(count: int, folds: int, seed: int) -> None:
    parts = published(count, folds=folds, seed=seed)
    assert len(parts) == folds
    tested = np.concatenate([one.test for one in parts])
    assert len(np.unique(tested)) == len(tested)
    for one in parts:
        assert one.validation is one.test  # the best epoch is picked on the photographs that judge it
        assert abs(len(one.test) - count / parts_of(folds)) < 1
        assert sorted([*one.train, *one.test]) == list(range(count))


def test_the_same_seed_gives_the_same_folds_and_digest() -> None:
    first, again, other = (published(50, folds=2, seed=seed)[1] for seed in (3, 3, 4))
    assert first.digest == again.digest != other.digest


@given(count=st.integers(10, 500), seed=st.integers(0, 99))
def test_leaking_judges_the_printed_share_and_no_more_of_the_training_than_it_must(count: int, seed: int) -> None:
    parts = published(count, folds=3, seed=seed)[0]
    judged = leaking(parts, seed=seed)
    assert len(judged) == round(LEAKING_SHARE * count)
    assert len(np.unique(judged)) == len(judged)
    assert np.isin(parts.test, judged).all()
    assert np.isin(judged, parts.train).sum() == len(judged) + len(parts.train) - count


def test_the_printed_support_is_73_per_cent_of_the_public_photographs() -> None:
    assert pytest.approx(2674 / 3662) == LEAKING_SHARE


@pytest.mark.parametrize("folds", [1, 3, 6])
def test_honest_folds_share_no_patient_and_no_duplicate(folds: int) -> None:
    photos, groups = manifest(120, patients=60), ((0, 7, 13), (20, 21))
    splits = divide_honestly(photos, groups, folds=folds, seed=1)
    tested = []
    for fold in range(1, folds + 1):
        parts = honest(splits, photos, fold=fold)
        check_leaks({"train": parts.train, "validation": parts.validation, "test": parts.test}, groups, photos)
        assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(120))
        assert 0 < len(parts.validation) < len(parts.train) / 3
        tested += list(parts.test)
    assert len(set(tested)) == len(tested)


def test_a_grade_with_too_few_photographs_is_named() -> None:
    few = Manifest(tuple(item for item in manifest(60).entries if item.grade != 3 or item.name < "0020"))
    with pytest.raises(DataError, match=r"grade 3 \(severe\) has 4 independent photographs, fewer than the 5"):
        divide_honestly(few, (), folds=3, seed=0)


def test_too_few_photographs_for_validation_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.paper.protocols._VALIDATION", 1e-6)
    photos = manifest(25)
    splits = divide_honestly(photos, (), folds=1, seed=0)
    with pytest.raises(DataError, match="too few independent photographs"):
        honest(splits, photos, fold=1)
