"""Findings to the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from retigrade.evaluation import tables
from retigrade.evaluation.result import EvaluationResult
from retigrade.evaluation.robustness import HEADLINE_SEVERITY
from retigrade.report.document import Block, Document, Gallery, Image, Section, Text

_INTERVALS = (
    "Figures are followed by their 95 % interval, from a bootstrap that resamples patients and groups of duplicates as "
    "wholes; a share that is the same in every resample has Wilson's interval instead. A figure without an interval "
    "rests on too few of them."
)


def compose(found: EvaluationResult, pictures: Mapping[str, Image], *, errors: Sequence[Image] = ()) -> Document:
    """Return the report; pictures: as `draw` makes them; errors: the costliest mistakes with their thermal maps."""
    return Document(
        title=f"Evaluation of {found.bundle}",
        lead=(f"{found.photographs.count} photographs, {found.made}",),
        sections=tuple(_sections(found, pictures, tuple(errors))),
    )


def _sections(found: EvaluationResult, pictures: Mapping[str, Image], errors: tuple[Image, ...]) -> Iterator[Section]:
    remarks = [Text(remark, warning=True) for remark in found.remarks]
    missing = [Text(f"The bundle lacks {what}.") for what in found.missing]
    notes = [Text(f"Note: {note}.") for note in found.photographs.notes]
    unreadable = [Text(f"Left out as unreadable: {one}") for one in found.photographs.unreadable]
    yield Section("Photographs", (*remarks, tables.photographs(found), *missing, *notes, *unreadable))
    yield Section("Verdicts", (tables.statuses(found), *_advice(found)))
    if found.headline:
        yield Section("Headline figures", (Text(_INTERVALS), tables.headline(found)))
        yield Section("Stages", (*_drawn(pictures, "confusion"), tables.confusion(found), tables.stages(found)))
        yield Section("Referable", (*_drawn(pictures, "referable"), tables.points(found)))
        yield Section("Confidence", tuple(_confidence(found, pictures)))
        yield Section("By source", (tables.slices("source", found.sources),))
        if found.quality:
            yield Section("By quality", (tables.slices("quality", found.quality),))
    yield from _robustness(found, pictures)
    yield from _faithfulness(found)
    if found.mistakes:
        told = Text(
            f"{len(found.mistakes)} wrong stages, the costliest first: by the squared distance from the true stage, "
            f"then by confidence. {_listed(len(found.mistakes))}"
        )
        gallery: tuple[Block, ...] = (Gallery(errors),) if errors else ()
        yield Section("Errors", (told, *gallery, tables.mistakes(found)))
    if found.refusals:
        yield Section("Without a grade", (Text(_listed(len(found.refusals))), tables.refusals(found)))


def _listed(count: int) -> str:
    if count <= tables.LISTED:
        return "All are listed."
    return f"The first {tables.LISTED} of {count} are listed; report.json has them all."


def _drawn(pictures: Mapping[str, Image], *names: str) -> tuple[Image, ...]:
    return tuple(pictures[name] for name in names if name in pictures)


def _advice(found: EvaluationResult) -> Iterator[Block]:
    if found.advised is not None:
        yield Text(f"A second reader is advised for {found.advised:.1%} of the graded photographs.")


def _confidence(found: EvaluationResult, pictures: Mapping[str, Image]) -> Iterator[Block]:
    yield from _drawn(pictures, "reliability", "confidence")
    yield tables.steps(found)
    if found.rises is not None:
        yield Text(
            "Accuracy rises with every step of confidence."
            if found.rises
            else "Accuracy does not rise with every step of confidence.",
            warning=not found.rises,
        )
    if found.sets is not None:
        yield tables.sets(found)
    yield Text(
        "Few photographs a bin scatter even where the probabilities are perfect: the ECE by chance alone is that of "
        "photographs right just as often as their confidence says."
    )
    yield tables.trust(found)


def _robustness(found: EvaluationResult, pictures: Mapping[str, Image]) -> Iterator[Section]:
    if (suite := found.robustness) is None:
        return
    kept = suite.mean_kept()
    mean = "is not defined" if kept is None else f"is {kept:.3f}"
    kappa = "not defined" if suite.clean_kappa is None else f"{suite.clean_kappa:.3f}"
    told = (
        f"{suite.photos} photographs, each graded clean (kappa {kappa}) and corrupted. Kappa kept is the corrupted "
        "photographs' over that of the same photographs clean; agreement is with the clean stage; both are of those "
        f"still graded. The mean of the kappa kept at severity {HEADLINE_SEVERITY} {mean}."
    )
    yield Section("Corruptions", (Text(told), *_drawn(pictures, "robustness"), tables.robustness(suite)))


def _faithfulness(found: EvaluationResult) -> Iterator[Section]:
    if (maps := found.faithfulness) is None:
        return
    told = (
        "Against experts' marks of every lesion, dilated a little. The ratio is the share of the heat inside lesions "
        "over the lesions' share of the retina, 1 for a map that knows nothing. Pointing game: how often the hottest "
        "pixel lies in a lesion. Deletion and insertion: mean probability of the decided stage while the hottest "
        "pixels are blurred away first, and while they come first out of the blur."
    )
    blocks: tuple[Block, ...] = (Text(told), tables.faithfulness(maps))
    if maps.without_field:
        blocks += (Text(f"In {maps.without_field} photographs no retinal disc was found."),)
    yield Section("Thermal maps", blocks)
