"""A bundle that states the figures of its evaluation, and the noise of photographing an eye again; and its model card.

    python -m retigrade.evaluation.store_figures --report report.json [--bundle FILE] --out FILE [--model-card FILE]
                                                 [--external report.json ...] [--left-out evaluation.json]

The last two are for the model card: see `retigrade.evaluation.model_card.Elsewhere`. With the noise a bundle claims
changes between visits; without, it claims none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import Bundle, read_metadata, reseal, shipped_bundle
from retigrade.errors import DataError
from retigrade.evaluation.model_card import Elsewhere, model_card
from retigrade.evaluation.result import EvaluationResult
from retigrade.files import write_whole


def with_figures(bundle: bytes, result: EvaluationResult, *, identity: str) -> bytes:
    """Return a bundle's bytes, sealed anew, that state the figures and the noise of an evaluation of it.

    identity: the bundle's. Raises DataError where the evaluation is of another bundle, or measured no noise.
    """
    if result.bundle != identity:
        raise DataError(f"the evaluation is of {result.bundle} and the bundle is {identity}; evaluate this bundle")
    if result.retest is None:
        raise DataError("the evaluation measured no noise: it needs --retest, and 100 pairs that get a grade")
    stored = {"retest_noise": result.retest.expected_grade, "figures": result.stored_figures()}
    return reseal(bundle, read_metadata(bundle).model_copy(update=stored))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The evaluation's report.json, the bundle that it is of, and the new files: the bundle's, and its model card's."""

    report: Path
    out: Path
    bundle: Path | None = None
    model_card: Path | None = None
    external: tuple[Path, ...] = ()
    left_out: Path | None = None


def main(arguments: Arguments) -> None:
    """Write the files; raises RetigradeError where an input cannot be used."""
    path = arguments.bundle or shipped_bundle()
    result = EvaluationResult.read(arguments.report)
    sealed = with_figures(path.read_bytes(), result, identity=Bundle.load(path).identity)
    write_whole(arguments.out, sealed)
    if arguments.model_card is not None:
        bundle = Bundle.load(arguments.out)
        elsewhere = Elsewhere.read(arguments.external, arguments.left_out)
        card = model_card(bundle, result.model_copy(update={"bundle": bundle.identity}), elsewhere=elsewhere)
        write_whole(arguments.model_card, card.encode())


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Arguments)
