"""The three protocols: which photographs a network learns from, which choose its epoch, and which evaluate it.

published: photographs as they are squeezed, divided at random by image; the best epoch is picked on the photographs
that also judge it. leaking: the same networks, judged on photographs that overlap those they learned from by as much as
the printed support implies. honest: the canonical field, duplicates and patients kept together, the epoch chosen on a
part of the training photographs, evaluated on photographs that nothing was chosen on.

The text trains on 80 % and validates on 20 %, three times, and calls that 3-fold cross-validation, which would be 67 %
and 33 %. Here every fold is a fifth of the photographs, disjoint from the other folds (a K-th for more than five
folds), so that all protocols evaluate as many photographs.
"""

from __future__ import annotations

import numpy as np

from retigrade.arrays import Integers
from retigrade.data.groups import Groups, independent_groups
from retigrade.data.manifest import Manifest
from retigrade.data.splits import Splits, assign, check_leaks, k_fold
from retigrade.errors import DataError
from retigrade.icdr import Grade
from retigrade.paper.audit import PUBLIC_TRAINING
from retigrade.paper.config import Protocol
from retigrade.paper.pictures import View
from retigrade.paper.printed import CLAIMS
from retigrade.training.dataset import Fold

VIEWS = {Protocol.PUBLISHED: View.SQUEEZED, Protocol.LEAKING: View.SQUEEZED, Protocol.HONEST: View.CANONICAL}
LEAKING_SHARE = sum(CLAIMS.validated) / sum(PUBLIC_TRAINING)
"""How much of the public photographs the printed support makes: 2,674 of 3,662."""
_FEWEST_PARTS = 5  # for folds of the text's 20 %
_VALIDATION = 1 / 8  # of what the honest protocol may learn from: a tenth of all


def parts_of(folds: int) -> int:
    """Into how many equal parts the photographs are cut; each fold tests one."""
    return max(_FEWEST_PARTS, folds)


def published(count: int, *, folds: int, seed: int) -> tuple[Fold, ...]:
    """Divide `count` photographs at random by image, one result for each fold."""
    drawn = np.array_split(np.random.default_rng(seed).permutation(count), parts_of(folds))
    tests = map(np.sort, drawn[:folds])
    return tuple(Fold(train=np.setdiff1d(np.arange(count), test), validation=test, test=test) for test in tests)


def leaking(fold: Fold, *, seed: int) -> Integers:
    """The photographs that evaluate a published fold once validation overlaps training: int64, ascending.

    All that the fold tests, and as many of those that it learned from as make up the printed share of the whole: no
    choice of that many photographs overlaps training less.
    """
    count = len(fold.train) + len(fold.test)
    more = max(0, round(LEAKING_SHARE * count) - len(fold.test))
    return np.sort(np.concatenate([fold.test, np.random.default_rng(seed).choice(fold.train, more, replace=False)]))


def divide_honestly(manifest: Manifest, groups: Groups, *, folds: int, seed: int) -> Splits:
    """Divide by duplicate and patient, stratified; the first `folds` parts are the test folds.

    Raises DataError where a grade has too few independent photographs for one in each part.
    """
    unit, number = independent_groups(manifest, groups), parts_of(folds)
    for grade in map(Grade, np.unique(manifest.grades)):
        independent = len(np.unique(unit[manifest.grades == grade]))
        if independent < number:
            raise DataError(
                f"grade {grade:d} ({grade.stage}) has {independent} independent photographs, fewer than the {number} "
                "equal parts that the protocol tests its folds with; add photographs of that grade"
            )
    return k_fold(manifest, groups, folds=number, seed=seed)


def honest(splits: Splits, manifest: Manifest, *, fold: int) -> Fold:
    """One fold of an honest division, by its number from 1; what is not tested is learned from, but for a validation
    part of it, drawn by duplicate and patient too.
    """
    name = splits.names[fold - 1]
    rest = splits.rest(name)
    unit = independent_groups(manifest, splits.groups)
    shares, rng = np.array([1 - _VALIDATION, _VALIDATION]), np.random.default_rng([splits.seed, fold])
    aside = assign(unit[rest], manifest.grades[rest], shares, rng) == 1
    parts = Fold(train=rest[~aside], validation=rest[aside], test=splits.part(name))
    if len(parts.validation) == 0:
        raise DataError(f"fold {fold} has too few independent photographs to set some aside for validation")
    check_leaks({"train": parts.train, "validation": parts.validation, "test": parts.test}, splits.groups, manifest)
    return parts
