"""Visits in the record as FHIR R4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from retigrade.output.fhir import visit_bundle
from retigrade.output.patients import visits_of
from retigrade.output.rows import Row

FHIR_TYPE = "application/fhir+json"


def transaction_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Return one transaction bundle of all visits, each by the bundle that graded it; rows of nobody are left out."""
    by_bundle: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_bundle[row.bundle].append(row)
    entries: dict[str, dict[str, Any]] = {}
    for bundle, graded in by_bundle.items():
        for visit in visits_of(graded):
            entries |= {entry["fullUrl"]: entry for entry in visit_bundle(visit, bundle=bundle)["entry"]}
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries.values())}
