"""The order of the report: one page that says it all, the audit, then tables and figures for a screen and for paper.

The tables' CSV files keep every column. On the page, what was printed, what was measured, and their difference share a
cell; so do network, start and preparation; and a column that says the same in every row is stated in the note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from retigrade.metrics.estimate import Estimate
from retigrade.paper.audit import audit
from retigrade.paper.config import Protocol
from retigrade.paper.printed import CLAIMS, TABLE_1, TABLE_4
from retigrade.report.document import Block, Cell, Document, Section, Table, Text, as_text, folded

TITLE = "The publication run again"
WHO = ("network", "start", "preparation")
_PARTS = ("printed", "measured", "difference")
_IN_THE_FILE = {"protocols": ("F1", "macro F1", "balanced accuracy", "accuracy less printed")}
_EXPLAINED = {
    Protocol.PUBLISHED: "Published: the whole frame squeezed to a square, whatever its aspect; photographs divided at "
    "random one by one; and the epoch picked on the very photographs that then evaluate it, as the text says "
    "(section 3).",
    Protocol.LEAKING: "Leaking: the networks of the published protocol, evaluated on so many photographs that, as the "
    "printed support of 2,674 implies, most of them must have been learned from.",
    Protocol.HONEST: "Honest: the retina alone on a canonical field, in training so cut that the cut does not go with "
    "the stage; duplicates and patients kept together; the epoch chosen on a part of the training photographs; "
    "evaluated on photographs that nothing was chosen on.",
}
_FOLDS = (
    "The text trains on 80 % and validates on 20 %, three times, and calls it 3-fold cross-validation. Here a fold "
    "is a fifth of the photographs (less where more than five folds are asked for), disjoint from the others."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the report's text says of its run.

    shortfalls: what keeps it from being the publication's, in a few words each. network, preparation: those that the
    first page tells of. weak: networks that do not start from complete ImageNet weights, and what from. fingerprint:
    the data set's.
    """

    shortfalls: tuple[str, ...]
    network: str
    preparation: str
    weak: tuple[str, ...]
    photographs: int
    fingerprint: str
    size: int
    seed: int
    left_out: int
    protocols: tuple[Protocol, ...]


def lay_out(facts: Facts, tables: Mapping[str, Table], figures: Mapping[str, Block]) -> Document:
    """The report of a run from its tables and figures by their keys; those that are not there are left out."""

    def some(*keys: str) -> tuple[Block, ...]:
        found: list[Block] = []
        for key in keys:
            if key in tables:
                found.append(for_the_page(tables[key]))
            if key in figures:
                found.append(figures[key])
        return tuple(found)

    return Document(
        title=TITLE,
        lead=tuple(_lead(facts)),
        sections=(
            Section("In one page", tuple(_one_page(facts, tables))),
            Section("The audit", (Text(_conclusions()), *some("arithmetic"))),
            Section("The protocols side by side", (*_explained(facts), *some("protocols", "leaks", "parts"))),
            Section("The photographs", some("table_1", "figure_1", "figure_2")),
            Section("The networks and their training", some("table_2", "networks", "table_3", "curves")),
            Section(
                "Results",
                some(
                    *(f"figure_3_{protocol}" for protocol in Protocol),
                    "stages",
                    *(f"table_4_{protocol}" for protocol in Protocol),
                    "means",
                    "figure_4",
                    "figure_4_results",
                ),
            ),
        ),
    )


def length(facts: Facts) -> str:
    """How far the run is from the publication's, in a sentence."""
    if not facts.shortfalls:
        return "Run in full: as many folds and epochs as the publication's."
    return f"Scaled down: {'; '.join(facts.shortfalls)}. The same command in the same folder goes on with it."


def _lead(facts: Facts) -> Iterator[str]:
    yield length(facts)
    yield (
        'Huynh, Do, Huynh, Tran and Tran, "Classification of Stages Diabetic Retinopathy Using MobileNetV2 Model". '
        "Every printed value stands beside the one measured here. Research use only, not a medical device."
    )
    yield (
        f"{facts.photographs:,} photographs, fingerprint {facts.fingerprint[:12]}; the publication has "
        f"{sum(TABLE_1.total):,}. Size {facts.size}, seed {facts.seed}."
    )
    if facts.weak:
        yield (
            "Not started from complete ImageNet weights, and so not comparable with the publication: "
            f"{', '.join(facts.weak)}."
        )
    if facts.left_out:
        yield f"Left out as missing or unreadable: {facts.left_out} photographs."


def _one_page(facts: Facts, tables: Mapping[str, Table]) -> Iterator[Block]:
    """Claim, printed, measured honestly, measured as published, and why they differ."""
    average = next(each for each in CLAIMS.averages if each.network == CLAIMS.ranking[0])
    yield Text(
        f"The claim: MobileNetV2 grades five stages of diabetic retinopathy in {sum(TABLE_1.total):,} photographs with "
        f"an accuracy of {CLAIMS.accuracy:g} %, a precision of {average.precision} %, a recall of {average.recall} % "
        f"and an F1 of {average.f1} %, by {CLAIMS.folds}-fold cross-validation, and no photograph lies more than one "
        "stage from the truth."
    )
    measured = _measured(facts, tables["protocols"])
    printed: dict[str, Cell] = {
        "accuracy": CLAIMS.accuracy / 100,
        "F1": average.f1 / 100,
        "off by two or more": "none",
        "evaluated": sum(CLAIMS.validated),
    }
    titles = {
        "accuracy": "accuracy",
        "F1": "F1, weighted by support",
        "QWK": "quadratic weighted kappa",
        "off by two or more": "two or more stages off",
        "evaluated": "photographs evaluated",
    }
    columns = [protocol for protocol in (Protocol.HONEST, Protocol.PUBLISHED, Protocol.LEAKING) if protocol in measured]
    heads = {
        Protocol.HONEST: "measured honestly",
        Protocol.PUBLISHED: "measured as published",
        Protocol.LEAKING: "measured with the overlap that the printed numbers imply",
    }
    yield Table(
        ("", "printed", *(heads[protocol] for protocol in columns)),
        tuple(
            (title, printed.get(key), *(measured[protocol][key] for protocol in columns))
            for key, title in titles.items()
        ),
        title=f"{facts.network}, {facts.preparation} photographs",
        note="All folds pooled, with 95 % intervals by patient and duplicate group; printed: one fold of three.",
    )
    yield Text("Why they differ:")
    yield from map(Text, _reasons(facts, tables, measured))


def _measured(facts: Facts, protocols: Table) -> dict[Protocol, dict[str, Cell]]:
    """The row of the first network in each protocol, by the headings."""
    rows = [dict(zip(protocols.headings, row, strict=True)) for row in protocols.rows]
    return {
        Protocol(str(row["protocol"])): row
        for row in rows
        if (row["network"], row["preparation"]) == (facts.network, facts.preparation)
    }


def _reasons(
    facts: Facts, tables: Mapping[str, Table], measured: Mapping[Protocol, Mapping[str, Cell]]
) -> Iterator[str]:
    accuracy = {protocol: _number(row["accuracy"]) for protocol, row in measured.items()}
    rows = [dict(zip(tables["leaks"].headings, row, strict=True)) for row in tables["leaks"].rows]
    leaks = {
        str(row["protocol"]): row
        for row in rows
        if (row["network"], row["preparation"]) == (facts.network, facts.preparation)
    }
    if Protocol.LEAKING in accuracy:
        row = leaks[Protocol.LEAKING]
        yield (
            "1. Photographs that were learned from are among those that judge. The printed 2,674 photographs of a fold "
            "are no fifth of any set that the text names; most must have been in training. With as much overlap the "
            f"same networks reach {accuracy[Protocol.LEAKING]:.3f} here: {_number(row['trained on: accuracy']):.3f} on "
            f"what they had learned from, {_number(row['neither: accuracy']):.3f} on what they had not."
        )
    if {Protocol.PUBLISHED, Protocol.HONEST} <= set(accuracy):
        yield (
            "2. The published protocol picks the epoch on the photographs that judge it, parts duplicates, and shows "
            "the network the camera's frame, which in this data set goes with the stage. Here that yields "
            f"{accuracy[Protocol.PUBLISHED]:.3f}, and the honest protocol {accuracy[Protocol.HONEST]:.3f}."
        )
    yield (
        "3. The photographs are others. The grades of 1,928 of the printed 5,590 were never published; the mix of "
        "stages in the printed support fits the 3,662 public ones and not the 5,590."
    )
    yield (
        "4. The network may be another. The layers printed as MobileNetV2 are those of MobileNetV1, and the printed "
        "number of parameters lies nearest to that network's."
    )
    recall = [row.recall for row in TABLE_4 if row.network == CLAIMS.ranking[0]]
    yield (
        "5. The printed accuracy is not that of the printed table: averaged by support, recall is accuracy, and the "
        f"mean recall of Table 4 is {sum(recall) / len(recall):.3f}."
    )
    if facts.shortfalls:
        yield (
            "6. This run is shorter than the printed one, by what the first line says; what a longer one would add "
            "is not known from it."
        )


def _number(cell: Cell) -> float:
    return cell.number if isinstance(cell, Estimate) else float(cell) if isinstance(cell, int | float) else float("nan")


def _explained(facts: Facts) -> Iterator[Text]:
    yield from (Text(_EXPLAINED[protocol]) for protocol in facts.protocols)
    yield Text(_FOLDS)


def _conclusions() -> str:
    counts = Counter(finding.conclusion for finding in audit())
    return (
        "Each claim put to the test by the publication's own printed numbers and by public facts: "
        + ", ".join(f"{count} {conclusion}" for conclusion, count in counts.items())
        + "."
    )


def for_the_page(table: Table) -> Table:
    """A table as the page shows it: fewer, fuller columns."""
    return folded(_together(_beside(_narrowed(table))))


def _narrowed(table: Table) -> Table:
    """Without the columns that only its CSV file has room for."""
    dropped = [name for name in _IN_THE_FILE.get(table.key, ()) if name in table.headings]
    if not dropped:
        return table
    kept = [place for place, name in enumerate(table.headings) if name not in dropped]
    return replace(
        table,
        headings=tuple(table.headings[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        note=f"{table.note} Also in tables/{table.key}.csv: {', '.join(dropped)}.",
    )


def _beside(table: Table) -> Table:
    """Printed, measured and difference of one figure in one column: `0.780 (0.940, -0.160)`."""
    figures = [name.partition(":")[0] for name in table.headings if name.endswith(f": {_PARTS[1]}")]
    merged = [name for name in figures if all(f"{name}: {part}" in table.headings for part in _PARTS)]
    if not merged:
        return table
    kept = [place for place, name in enumerate(table.headings) if name.partition(":")[0] not in merged]
    places = [[table.headings.index(f"{name}: {part}") for part in _PARTS] for name in merged]
    rows = tuple(
        (*(row[place] for place in kept), *(_compared(*(row[place] for place in three)) for three in places))
        for row in table.rows
    )
    headings = (*(table.headings[place] for place in kept), *(f"{name} (printed; difference)" for name in merged))
    return replace(table, headings=headings, rows=rows)


def _compared(printed: Cell, measured: Cell, difference: Cell) -> Cell:
    if printed is None or printed == "":
        return measured
    return f"{as_text(measured)} ({as_text(printed)}; {as_text(difference)})"


def _together(table: Table) -> Table:
    """Network, start and preparation in one column."""
    if not set(WHO) <= set(table.headings):
        return table
    places = [table.headings.index(name) for name in WHO]
    starts = {row[places[1]] for row in table.rows}

    def who(row: Sequence[Cell]) -> str:
        network, start, preparation = (as_text(row[place]) for place in places)
        return f"{network}, {preparation}" + (f", from {start}" if len(starts) > 1 else "")

    rest = [place for place in range(len(table.headings)) if place not in places]
    before = [place for place in rest if place < places[0]]
    after = [place for place in rest if place > places[0]]
    rows = tuple((*(row[p] for p in before), who(row), *(row[p] for p in after)) for row in table.rows)
    headings = (*(table.headings[p] for p in before), "network", *(table.headings[p] for p in after))
    note = table.note if len(starts) > 1 else f"{table.note} Started from {as_text(next(iter(starts)))}.".strip()
    return replace(table, headings=headings, rows=rows, note=note)
