"""Every figure of the audit, computed again from the printed tables by scipy, Keras' way of counting and plain sums."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from retigrade.paper.audit import (
    IMAGENET_TOP_1,
    MOBILENET_V2_PARAMETERS,
    PRINTED_PARAMETERS,
    PUBLIC_TEST,
    PUBLIC_TRAINING,
    audit,
)
from retigrade.paper.printed import CLAIMS, NETWORKS, TABLE_1, TABLE_2, TABLE_3, TABLE_4, Layer

FINDINGS = {finding.key: finding for finding in audit()}
HALF = 0.005  # of Table 4's last decimal
VALIDATED, PUBLIC = sum(CLAIMS.validated), sum(PUBLIC_TRAINING)


def recalls(network: str, measure: str = "recall") -> float:
    return float(np.mean([getattr(row, measure) for row in TABLE_4 if row.network == network]))


def against(counts: tuple[int, ...], whole: tuple[int, ...]) -> tuple[float, float]:
    found = stats.chisquare(counts, np.array(whole) * sum(counts) / sum(whole))
    return float(found.statistic), float(found.pvalue)


def output(layer: Layer) -> tuple[int, int, int]:
    height, width, channels = layer.input
    if layer.kind in ("Conv", "Conv dw"):
        return math.ceil(height / layer.stride), math.ceil(width / layer.stride), layer.filter[-1]
    if layer.kind == "Avg Pool":
        return height - layer.filter[0] + 1, width - layer.filter[1] + 1, channels
    return (1, 1, layer.filter[-1]) if layer.kind == "FC" else layer.input


def printed_parameters(outputs: int) -> int:
    """As Keras counts: convolutions without bias and four numbers a channel of batch normalisation."""
    layers = (layer for layer in TABLE_2 if layer.kind.startswith("Conv"))
    return sum(n.repeats * (math.prod(n.filter) + 4 * n.filter[-1]) for n in layers) + (1024 + 1) * outputs


def mobilenet_parameters(outputs: int) -> int:
    timm = pytest.importorskip("timm")
    network = timm.create_model("mobilenetv2_100", num_classes=outputs)
    statistics = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    return sum(p.numel() for p in network.parameters()) + statistics


def test_the_findings_are_these_and_no_others() -> None:
    verdicts = {
        "consistent": {
            *("totals", "support", "averages-MobileNetV2", "averages-ResNet50V2", "averages-VGG-16", "f1", "epochs"),
            *("accuracy-floors", "accuracy-whole-photographs"),
        },
        "contradicted": {
            *("split", "one-data-set", "validated-share", "disjoint-folds", "overlap", "validated-mix", "architecture"),
            *("parameters", "shapes", "imagenet", "accuracy", "ranking", "photographs-again"),
        },
        "unverifiable": {"grades", "validated-draw", "same-conditions", "adjacent-stages"},
    }
    assert len(FINDINGS) == len(audit()) == 26
    for conclusion, keys in verdicts.items():
        assert {key for key, finding in FINDINGS.items() if finding.conclusion == conclusion} == keys
    assert all(finding.claim and finding.where and finding.how.endswith(".") for finding in audit())


def says(key: str, *figures: str) -> None:
    for figure in figures:
        assert figure in FINDINGS[key].computed, (key, figure)


def test_the_photographs_are_counted_as_said() -> None:
    parts = [sum(part) for part in (TABLE_1.training, TABLE_1.validation, TABLE_1.testing)]
    assert sum(parts) == CLAIMS.photographs == sum(TABLE_1.total)
    says("totals", f"{parts[0]:,} + {parts[1]} + {parts[2]} = {sum(parts):,}")
    says("split", " / ".join(f"{100 * part / sum(parts):.1f}" for part in parts))
    assert TABLE_1.training == PUBLIC_TRAINING
    says("grades", f"exactly the public train.csv ({PUBLIC:,})", f"{parts[1] + parts[2]:,}, public test.csv = ")
    assert parts[1] + parts[2] == PUBLIC_TEST
    found = stats.chi2_contingency([TABLE_1.training, np.add(TABLE_1.validation, TABLE_1.testing)])
    says("one-data-set", f"chi-squared {found.statistic:.0f}, p = {found.pvalue:.0e}", "exactly equal")
    assert TABLE_1.validation == TABLE_1.testing
    says("support", f"{' + '.join(f'{n:,}' for n in CLAIMS.validated)} = {VALIDATED:,}")
    assert {row.support for row in TABLE_4} == {VALIDATED}
    says("photographs-again", f"{CLAIMS.photographs:,} in all, {parts[0]:,} for training")
    assert CLAIMS.photographs_in_discussion not in (CLAIMS.photographs, parts[0])


def test_the_folds_are_as_impossible_as_said() -> None:
    shares = (f"{100 * VALIDATED / whole:.1f} % of {whole:,}" for whole in (CLAIMS.photographs, PUBLIC))
    says("validated-share", *shares, f"80 % of {PUBLIC:,} = {0.8 * PUBLIC:,.0f}")
    says("disjoint-folds", f"3 x {VALIDATED:,} = {3 * VALIDATED:,}")
    assert CLAIMS.photographs < 3 * VALIDATED
    for whole in (CLAIMS.photographs, PUBLIC):
        shared = 0.8 * whole + VALIDATED - whole
        says("overlap", f"of {whole:,}: at least {shared:,.0f} validated in training ({shared / VALIDATED:.0%})")
    whole, public = against(CLAIMS.validated, TABLE_1.total), against(CLAIMS.validated, PUBLIC_TRAINING)
    says("validated-mix", f"{whole[0]:.1f}, p = {whole[1]:.0e}", f"{public[0]:.2f}, p = {public[1]:.2f}")
    rest = np.subtract(PUBLIC_TRAINING, CLAIMS.validated)
    drawn = stats.chi2_contingency([CLAIMS.validated, rest]).statistic * (PUBLIC - 1) / PUBLIC
    says(
        "validated-draw", f"chi-squared {drawn:.1f}, p = {stats.chi2.sf(drawn, 4):.3f}", "73 %, 78 %, 70 %, 78 %, 75 %"
    )
    says("epochs", "3 x 100 = 300")
    assert {row.values for row in TABLE_3 if row.name == "Epoch"} == {("100", "100", "100")}


def test_the_layers_are_not_mobilenetv2() -> None:
    assert printed_parameters(5) == PRINTED_PARAMETERS
    assert mobilenet_parameters(5) == MOBILENET_V2_PARAMETERS
    thousands = printed_parameters(1000), mobilenet_parameters(1000)
    assert thousands == (4_253_864, 3_538_984)  # keras.applications.MobileNet and MobileNetV2
    says("architecture", *(f"{n:,}" for n in thousands), "1,024 channels")
    counts = {"MobileNetV1, 5 classes": PRINTED_PARAMETERS, "MobileNetV2, 5 classes": MOBILENET_V2_PARAMETERS}
    says("parameters", *(f"{name}: {n / 1e6:.2f} million" for name, n in counts.items()), "nearest: MobileNetV1, 5")
    misfits = [row for row, (a, b) in enumerate(pairwise(TABLE_2), start=1) if output(a) != b.input]
    says("shapes", *(f"row {row} (" for row in misfits), "1,000 outputs for 5 stages")
    assert FINDINGS["shapes"].computed.count("puts out") == len(misfits) == 3
    says("imagenet", *(f"{network} {top} %" for network, top in IMAGENET_TOP_1.items()))
    assert max(IMAGENET_TOP_1, key=lambda network: IMAGENET_TOP_1[network]) != CLAIMS.ranking_on_imagenet[0]


@pytest.mark.parametrize("quoted", CLAIMS.averages, ids=lambda quoted: quoted.network)
def test_the_averages_are_those_of_table_4(quoted) -> None:
    finding, plain = FINDINGS[f"averages-{quoted.network}"], True
    for name, value in (("precision", quoted.precision), ("recall", quoted.recall), ("f1", quoted.f1)):
        mean = recalls(quoted.network, name)
        assert f"{name.replace('f1', 'F1')} {100 * mean:.2f} (quoted {value})" in finding.computed
        assert abs(mean - value / 100) <= 2 * HALF + 1e-9  # rounded twice
        plain &= abs(100 * mean - value) <= 0.5
    assert ("unprinted decimals" in finding.how) is not plain


def test_the_accuracy_and_the_ranking_are_not_those_of_table_4() -> None:
    best = recalls("MobileNetV2")
    says("accuracy", f"{100 * best:.2f} %", f"{100 * (best - HALF):.2f} to {100 * (best + HALF):.2f}", "below 93.5 %")
    assert CLAIMS.accuracy > 93.5
    floors = np.average(CLAIMS.accuracy_over, weights=CLAIMS.validated)
    says("accuracy-floors", f"by support {floors:.1f} %, plain {np.mean(CLAIMS.accuracy_over):.1f} %")
    says("ranking", *(f"{network} {100 * recalls(network):.1f} %" for network in NETWORKS), "for precision, f1")
    assert recalls("VGG-16") + HALF < recalls("ResNet50V2") - HALF
    batches = next(row.values for row in TABLE_3 if row.name == "Batch size")
    says("same-conditions", f"{int(batches[0]) / int(batches[1]):.1f} x", "not stated, Yes, Yes")


@pytest.mark.parametrize(("photographs", "possible"), [(VALIDATED, False), (3 * VALIDATED, True)])
def test_the_accuracy_is_no_whole_number_of_one_fold(photographs: int, possible: bool) -> None:
    nearest = math.floor(CLAIMS.accuracy * photographs / 100)
    hits = [k for k in (nearest, nearest + 1) if abs(100 * k / photographs - CLAIMS.accuracy) <= 0.005 + 1e-9]
    assert bool(hits) is possible
    says("accuracy-whole-photographs", "none can give it", f"({3 * VALIDATED:,}): possible")


def test_no_mean_f1_exceeds_what_its_means_allow() -> None:
    for row in TABLE_4:  # 2PR / (P + R) is concave
        assert row.f1 <= 2 * row.precision * row.recall / (row.precision + row.recall) + 0.01
    first = CLAIMS.averages[0]
    says("f1", f"{2 * first.precision * first.recall / (first.precision + first.recall):.1f} %, quoted {first.f1} %")
