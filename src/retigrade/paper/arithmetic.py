"""The audit: every claim of the publication that its own printed numbers, or public facts, can confirm or refute.

Each figure is computed from `retigrade.paper.printed`. What rounding could explain is not called a contradiction.
The few outside facts stand, each with its source, at the top of the modules that use them.
"""

from __future__ import annotations

from retigrade.paper.audit_data import on_data, on_folds
from retigrade.paper.audit_networks import on_networks
from retigrade.paper.audit_scores import on_conclusions, on_scores
from retigrade.paper.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "audit"]


def audit() -> tuple[Finding, ...]:
    """Every finding, in the order of the publication; computed afresh from the printed tables."""
    return (*on_data(), *on_folds(), *on_networks(), *on_scores(), *on_conclusions())
