"""The audit: every claim of the publication that its own printed numbers, or public facts, can confirm or refute.

The findings stand in `audit.csv`: each was computed once from the tables of `retigrade.paper.printed`, and a test
computes the figures again. What rounding could explain is not called a contradiction.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import TypeAdapter

Conclusion = Literal["consistent", "contradicted", "unverifiable"]

PUBLIC_TRAINING = (1805, 370, 999, 193, 295)
"""Grades in train.csv of Kaggle's APTOS 2019 Blindness Detection, the only part with published grades."""
PUBLIC_TEST = 1928
"""Photographs in its test.csv, which names them and gives no grade."""
IMAGENET_TOP_1 = {"MobileNetV2": 71.3, "VGG-16": 71.3, "ResNet50V2": 76.0}
"""Per cent, from the table of keras.io/api/applications, whose weights the publication used."""
MOBILENET_V2_PARAMETERS, PRINTED_PARAMETERS = 2_264_389, 3_233_989
"""Of MobileNetV2 and of the printed layers, each with five classes, counted with running means as Keras does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim put to the test.

    key: its short name. claim: what was printed. where: in which part. computed: what the numbers come to. how: the
    formula in words.
    """

    key: str
    claim: str
    where: str
    conclusion: Conclusion
    computed: str
    how: str


@cache
def audit() -> tuple[Finding, ...]:
    """Every finding, in the order of the publication."""
    text = resources.files("retigrade.paper").joinpath("audit.csv").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Finding, ...]).validate_python(list(csv.DictReader(text.splitlines())))
