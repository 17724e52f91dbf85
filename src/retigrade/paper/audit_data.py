"""The audit of the publication's photographs: their number, their parts, and the folds that Table 4 counts."""

from __future__ import annotations

from collections.abc import Iterator

from retigrade.paper import sums
from retigrade.paper.finding import Finding, Verdict, verdict
from retigrade.paper.printed import CLAIMS, STAGES, TABLE_1, TABLE_4

PUBLIC_TRAINING = (1805, 370, 999, 193, 295)
"""Grades in train.csv of Kaggle's APTOS 2019 Blindness Detection, the only part with published grades."""
PUBLIC_TEST = 1928
"""Photographs in its test.csv, which names them and gives no grade."""


def on_data() -> Iterator[Finding]:
    """Findings on the data set and its parts (section 2.1, Table 1)."""
    parts = [sum(part) for part in (TABLE_1.training, TABLE_1.validation, TABLE_1.testing)]
    total = sum(parts)
    rows = zip(TABLE_1.training, TABLE_1.validation, TABLE_1.testing, TABLE_1.total, strict=True)
    adds_up = all(a + b + c == row for a, b, c, row in rows) and total == CLAIMS.photographs == sum(TABLE_1.total)
    yield Finding(
        "totals",
        f"{CLAIMS.photographs:,} photographs in five stages",
        "section 2.1, Table 1",
        f"{' + '.join(f'{n:,}' for n in parts)} = {total:,}",
        verdict(adds_up),
        "Rows and columns of Table 1 added.",
    )
    shares = [100 * n / total for n in parts]
    yield Finding(
        "split",
        f"{' / '.join(map(str, CLAIMS.split))} % for training, validation and testing",
        "section 2.1",
        f"{' / '.join(f'{share:.1f}' for share in shares)} %",
        verdict(all(abs(share - said) < 1 for share, said in zip(shares, CLAIMS.split, strict=True))),
        "Column totals of Table 1 over their sum; a point either way would pass.",
    )
    held_out = parts[1] + parts[2]
    yield Finding(
        "grades",
        f"a grade for each of {CLAIMS.photographs:,} photographs of APTOS 2019",
        "section 2.1",
        f"training column = {_same(TABLE_1.training == PUBLIC_TRAINING)} the public train.csv ({parts[0]:,}); "
        f"validation + testing = {held_out:,}, public test.csv = {PUBLIC_TEST:,}",
        Verdict.UNVERIFIABLE,
        "Columns compared with the competition's files. The grades of test.csv were never published, so where the "
        f"other {held_out:,} grades came from cannot be told.",
    )
    statistic = sums.chi_squared_between(TABLE_1.training, _added(TABLE_1.validation, TABLE_1.testing))
    yield Finding(
        "one-data-set",
        "Table 1 is a split of one data set",
        "section 2.1, Table 1",
        f"chi-squared {statistic:.0f}, p = {_p(statistic):.0e}; validation and testing columns "
        f"{_same(TABLE_1.validation == TABLE_1.testing)} equal",
        verdict(_p(statistic) > 0.001),
        "Mix of grades in training against that in validation and testing together: neither a random nor a "
        "stratified split differs so.",
    )


def on_folds() -> Iterator[Finding]:
    """Findings on what was validated (sections 2.4 and 3, Table 4)."""
    public, validated = sum(PUBLIC_TRAINING), sum(CLAIMS.validated)
    supports = {row.support for row in TABLE_4}
    yield Finding(
        "support",
        f"support of {'/'.join(f'{n:,}' for n in sorted(supports))}",
        "Table 4, section 3",
        f"{' + '.join(f'{n:,}' for n in CLAIMS.validated)} = {validated:,}",
        verdict(supports == {validated}),
        "The photographs of each stage that section 3 says were validated, added.",
    )
    stated = {
        f"{share} % of {whole:,}": whole * share / 100
        for whole in (CLAIMS.photographs, public)
        for share in (20, 40, 60, 80)
    } | {f"a third of {whole:,}": whole / CLAIMS.folds for whole in (CLAIMS.photographs, public)}
    nearest = min(stated, key=lambda name: abs(stated[name] - validated))
    yield Finding(
        "validated-share",
        f"{validated:,} photographs validated in a fold of 20 %",
        "section 2.4, Table 4",
        f"{100 * validated / CLAIMS.photographs:.1f} % of {CLAIMS.photographs:,}, {100 * validated / public:.1f} % of "
        f"{public:,}; nearest stated share: {nearest} = {stated[nearest]:,.0f}",
        verdict(any(abs(size - validated) <= 1 for size in stated.values())),
        "Support over the data set, and every share that the text mentions.",
    )
    in_all = CLAIMS.folds * validated
    yield Finding(
        "disjoint-folds",
        f"{CLAIMS.folds}-fold cross-validation",
        "section 2.4, Table 4",
        f"{CLAIMS.folds} x {validated:,} = {in_all:,} validated; {CLAIMS.photographs:,} photographs exist",
        verdict(in_all <= CLAIMS.photographs),
        "Folds validate each photograph once, so supports cannot add to more than the data set.",
    )
    share = CLAIMS.cross_validation_split[0] / 100
    shared = {whole: sums.least_overlap(whole, share * whole, validated) for whole in (CLAIMS.photographs, public)}
    yield Finding(
        "overlap",
        f"training on {CLAIMS.cross_validation_split[0]} %, validating on the rest",
        "section 2.4, Table 4",
        "; ".join(
            f"of {whole:,}: at least {n:,.0f} validated in training ({n / validated:.0%})"
            for whole, n in shared.items()
        ),
        verdict(not any(shared.values())),
        "Training share of the data set plus support, less the data set: what must lie in both.",
    )
    whole_set, of_public = (sums.chi_squared(CLAIMS.validated, mix) for mix in (TABLE_1.total, PUBLIC_TRAINING))
    yield Finding(
        "validated-mix",
        f"the validated photographs are of the {CLAIMS.photographs:,}",
        "section 3",
        f"against {CLAIMS.photographs:,}: chi-squared {whole_set:.1f}, p = {_p(whole_set):.0e}; against the public "
        f"{public:,}: {of_public:.2f}, p = {_p(of_public):.2f}",
        verdict(_p(whole_set) > 0.001),
        "Mix of grades validated against that of Table 1's totals and of its training column, 4 degrees of freedom.",
    )
    drawn = sums.chi_squared_of_part(CLAIMS.validated, PUBLIC_TRAINING)
    yield Finding(
        "validated-draw",
        "the validated photographs are a part of the training column",
        "section 3, Table 1",
        f"drawn without putting back: chi-squared {drawn:.1f}, p = {_p(drawn):.3f}; shares by stage "
        + ", ".join(f"{100 * n / of:.0f} %" for n, of in zip(CLAIMS.validated, PUBLIC_TRAINING, strict=True)),
        Verdict.UNVERIFIABLE,
        "As above, with the smaller variance of a part that is 73 % of its whole: a plain random part would mirror "
        "it more closely, a stratified one almost exactly. Repeated photographs would fit better.",
    )


def _added(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _p(statistic: float) -> float:
    return sums.survival(statistic, freedom=len(STAGES) - 1)


def _same(equal: bool) -> str:
    return "exactly" if equal else "not"
