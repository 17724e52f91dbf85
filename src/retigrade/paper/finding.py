"""What an audit finds: a claim, what the numbers come to, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    CONSISTENT = "consistent"
    CONTRADICTED = "contradicted"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim put to the test.

    key: its short name. claim: what was printed. where: in which part. computed: what the numbers come to. how: the
    formula in words.
    """

    key: str
    claim: str
    where: str
    computed: str
    verdict: Verdict
    how: str


def verdict(holds: bool) -> Verdict:
    """Consistent if the claim holds, contradicted if not."""
    return Verdict.CONSISTENT if holds else Verdict.CONTRADICTED
