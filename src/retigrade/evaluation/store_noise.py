"""A bundle that states the noise of photographing an eye again, from its evaluation, and then claims changes.

python -m retigrade.evaluation.store_noise --report report.json [--bundle FILE] --out FILE
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import read_metadata, reseal, shipped_bundle
from retigrade.errors import DataError
from retigrade.evaluation.result import EvaluationResult
from retigrade.files import write_whole
from retigrade.grader import load


def with_noise(bundle: bytes, result: EvaluationResult, *, identity: str) -> bytes:
    """Return a bundle's bytes, sealed anew, that state the noise of an evaluation of it.

    identity: the bundle's. Raises DataError where the evaluation is of another bundle, or measured no noise.
    """
    if result.bundle != identity:
        raise DataError(f"the evaluation is of {result.bundle} and the bundle is {identity}; evaluate this bundle")
    if result.retest is None:
        raise DataError("the evaluation measured no noise: it needs --retest, and 100 pairs that get a grade")
    noise = result.retest.expected_grade
    return reseal(bundle, read_metadata(bundle).model_copy(update={"retest_noise": noise}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The evaluation's report.json, the bundle that it is of, and the new bundle's file."""

    report: Path
    out: Path
    bundle: Path | None = None


def main(arguments: Arguments) -> None:
    """Write the bundle; raises RetigradeError where an input cannot be used."""
    path = arguments.bundle or shipped_bundle()
    result = EvaluationResult.read(arguments.report)
    write_whole(arguments.out, with_noise(path.read_bytes(), result, identity=load(path).bundle.identity))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Arguments))
