"""How to train: the recipe, the split, and what the bundle says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.data.annotations import find_annotated
from retigrade.errors import UsageError
from retigrade.training.describe import UNSTATED
from retigrade.training.loop import Start
from retigrade.training.recipe import Recipe

VALIDATION_SHARE = TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train; raises UsageError where options do not go together.

    validation, test: the shares of the photographs that are set aside; of several folds, validation is the share of
    those that a fold learns from. folds: 0 trains one network on one split; K trains K networks, each tested on its own
    fold. leave_source_out: the folds are the data sets, each tested by a network that learned from the others. refit:
    after the folds, one network learns from all photographs and is the bundle, calibrated and measured out of fold.
    lesions: a folder of annotated photographs for lesion supervision. mirror: the bundle looks at the mirror image too.
    distill: bundles, or the folders of cross-validated runs, whose mean prediction becomes a part of the targets, as
    large as the recipe's teacher_weight. splits: a split file of three parts, or of the folds, to follow, in place of
    one drawn by these shares.
    """

    recipe: Recipe
    start: Start
    validation: float = VALIDATION_SHARE
    test: float = TEST_SHARE
    folds: int = 0
    leave_source_out: bool = False
    refit: bool = False
    lesions: Path | None = None
    mirror: bool = False
    distill: tuple[Path, ...] = ()
    splits: Path | None = None
    name: str
    license: str = UNSTATED
    intended_use: str = UNSTATED

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"--folds must be 0 or at least 2, got {self.folds}")
        if self.folds and self.leave_source_out:
            raise UsageError("--leave-source-out makes a fold of each data set: leave --folds out")
        if self.splits is not None and self.leave_source_out:
            raise UsageError("--leave-source-out makes a fold of each data set: leave --splits out")
        if self.refit and not self.folds:
            raise UsageError("--refit makes one network after the folds, which it is calibrated by: give --folds")
        if self.refit and not self.recipe.ema_decay:
            raise UsageError(
                f"the recipe {self.recipe.name} keeps its best epoch by photographs that it does not learn from, and "
                "--refit learns from all: take another recipe"
            )
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 < share < 1:
                raise UsageError(f"--{name} must lie between 0 and 1, got {share:g}")
        if not self.cross_validated and self.validation + self.test >= 1:
            raise UsageError(
                f"--validation {self.validation:g} and --test {self.test:g} leave no photographs to learn from"
            )
        if self.distill and (self.recipe.teachers or not self.recipe.teacher_weight):
            raise UsageError(
                f"--distill goes with a recipe whose targets leave room for it; {self.recipe.name} does not: "
                "take --recipe further"
            )
        if self.recipe.augmentation.pasted_grades and self.lesions is None:
            raise UsageError(
                f"the recipe {self.recipe.name} pastes lesions of annotated photographs: give their folder by --lesions"
            )
        if self.recipe.lesions and self.lesions is None:
            raise UsageError(
                f"the recipe {self.recipe.name} learns places of lesions from annotated photographs: give their folder "
                "by --lesions"
            )
        if self.lesions is not None:
            find_annotated(self.lesions)  # a wrong folder must not wait for the training
            if not self.recipe.high_resolution:
                raise UsageError("--lesions needs a high-resolution head, which this recipe or backbone has not")

    @property
    def distilled_bundles(self) -> tuple[Path, ...]:
        """What is distilled and no run's folder."""
        return tuple(path for path in self.distill if not path.is_dir())

    @property
    def distilled_runs(self) -> tuple[Path, ...]:
        """The folders of cross-validated runs that are distilled."""
        return tuple(path for path in self.distill if path.is_dir())

    @property
    def given_bundles(self) -> tuple[Path, ...]:
        """The bundles that are started from or distilled."""
        start = self.start.weights
        return (*self.distilled_bundles, *([start] if start is not None and start.suffix == ".onnx" else []))

    @property
    def cross_validated(self) -> bool:
        """Whether several networks are trained, each tested on photographs that it did not learn from."""
        return self.folds > 0 or self.leave_source_out
