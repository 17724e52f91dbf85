"""A bundle that states the figures of its evaluation, and the noise of photographing an eye again; and its model card.

    python -m retigrade.evaluation.store_figures --report report.json [--bundle FILE] --out FILE [--model-card FILE]
                                                 [--fold report.json] [--external report.json ...]
                                                 [--left-out evaluation.json]

The last two are for the model card: see `retigrade.evaluation.model_card.Elsewhere`. With the noise a bundle claims
changes between visits; without, it claims none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import Bundle, bundle_file, read_metadata, reseal
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


def completed(result: EvaluationResult, fold: EvaluationResult) -> EvaluationResult:
    """An evaluation out of fold with what is measured on one network alone: damage, a second photograph, the map.

    fold: of one fold's network on photographs that it did not learn from. Raises DataError where it learned from some,
    or is of another training.
    """
    name, known = fold.bundle.partition("@")[0], fold.photographs.learned_from
    if not name.startswith(f"{result.bundle.partition('@')[0]}-"):
        raise DataError(
            f"{fold.bundle} is no network of a fold of {result.bundle}; evaluate FOLD/bundle.onnx of its run"
        )
    if known is None or known:
        raise DataError(f"{fold.bundle} learned from photographs that it was evaluated on; evaluate it on its own fold")
    remark = (
        f"Robustness, the change when photographed again, and the map are those of one of these networks, {name}, on "
        "photographs that it did not learn from."
    )
    measured = {key: getattr(fold, key) for key in ("robustness", "retest", "faithfulness")}
    return result.model_copy(update={**measured, "remarks": (*result.remarks, remark)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The evaluation's report.json, the bundle that it is of, and the new files: the bundle's, and its model card's."""

    report: Path
    out: Path
    bundle: Path | None = None
    fold: Path | None = None
    """The report of one fold's network, for what an evaluation out of fold does not measure."""
    model_card: Path | None = None
    external: tuple[Path, ...] = ()
    left_out: Path | None = None


def main(arguments: Arguments) -> None:
    """Write the files; raises RetigradeError where an input cannot be used."""
    path = bundle_file(arguments.bundle)
    result = EvaluationResult.read(arguments.report)
    if arguments.fold is not None:
        result = completed(result, EvaluationResult.read(arguments.fold))
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
