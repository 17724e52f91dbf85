"""Visits in the record as FHIR R4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from retigrade.output.fhir import visit_bundle
from retigrade.output.patients import visit_of
from retigrade.output.rows import Row

FHIR_TYPE = "application/fhir+json"


def transaction_of(rows: Iterable[Row], *, dated: Collection[str] = ()) -> dict[str, Any]:
    """Return one transaction bundle of all visits, each by the bundle that graded it; rows of nobody are left out.

    dated: patients who have visits with a date beside these rows, which an undated visit of theirs says.
    """
    together: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.patient is not None:
            together[row.bundle, row.patient, row.date or ""].append(row)
    known = {*dated, *(patient for _, patient, date in together if date)}
    entries: dict[str, dict[str, Any]] = {}
    for bundle, patient, date in sorted(together):
        of_visit = together[bundle, patient, date]
        visit = visit_of(of_visit, patient=patient, date=date or None, has_dated_visits=patient in known)
        entries |= {entry["fullUrl"]: entry for entry in visit_bundle(visit, bundle=bundle)["entry"]}
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries.values())}
