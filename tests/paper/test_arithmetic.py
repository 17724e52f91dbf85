import math
from dataclasses import FrozenInstanceError

import pytest
from scipy import stats

from retigrade.paper import sums
from retigrade.paper.arithmetic import Verdict, audit
from retigrade.paper.layers import MOBILENET_V2, misfits, mobilenet_v2_parameters, printed_parameters
from retigrade.paper.printed import CLAIMS, NETWORKS, TABLE_1, TABLE_2, TABLE_3, TABLE_4

FINDINGS = {finding.key: finding for finding in audit()}

VERDICTS = {
    "totals": "consistent",
    "split": "contradicted",
    "grades": "unverifiable",
    "one-data-set": "contradicted",
    "support": "consistent",
    "validated-share": "contradicted",
    "disjoint-folds": "contradicted",
    "overlap": "contradicted",
    "validated-mix": "contradicted",
    "validated-draw": "unverifiable",
    "architecture": "contradicted",
    "parameters": "contradicted",
    "shapes": "contradicted",
    "imagenet": "contradicted",
    "averages-MobileNetV2": "consistent",
    "averages-ResNet50V2": "consistent",
    "averages-VGG-16": "consistent",
    "accuracy": "contradicted",
    "accuracy-floors": "consistent",
    "accuracy-whole-photographs": "consistent",
    "f1": "consistent",
    "ranking": "contradicted",
    "same-conditions": "unverifiable",
    "epochs": "consistent",
    "photographs-again": "contradicted",
    "adjacent-stages": "unverifiable",
}

COMPUTED = {
    "totals": ["3,662 + 964 + 964 = 5,590"],
    "split": ["65.5 / 17.2 / 17.2 %"],
    "grades": ["exactly the public train.csv (3,662)", "1,928, public test.csv = 1,928"],
    "one-data-set": ["chi-squared 251", "p = 5e-53", "exactly equal"],
    "support": ["1,317 + 288 + 698 + 151 + 220 = 2,674"],
    "validated-share": ["47.8 % of 5,590", "73.0 % of 3,662", "80 % of 3,662 = 2,930"],
    "disjoint-folds": ["3 x 2,674 = 8,022"],
    "overlap": ["of 5,590: at least 1,556", "58%", "of 3,662: at least 1,942", "73%"],
    "validated-mix": ["49.9, p = 4e-10", "3.35, p = 0.50"],
    "validated-draw": ["chi-squared 12.4, p = 0.014", "73 %, 78 %, 70 %, 78 %, 75 %"],
    "architecture": ["4,253,864", "3,538,984", "1,024 channels"],
    "parameters": ["3.23", "4.25", "2.26", "3.54", "nearest: MobileNetV1, 5 classes"],
    "shapes": ["row 18", "4 x 4 x 1024", "takes in 5 x 5 x 1024", "1,000 outputs for 5 stages"],
    "imagenet": ["71.3", "76.0"],
    "averages-MobileNetV2": ["precision 93.67 (quoted 94)", "recall 91.67 (quoted 92)", "F1 90.67 (quoted 90)"],
    "averages-ResNet50V2": ["precision 88.00", "recall 88.33 (quoted 88)", "F1 86.67 (quoted 87)"],
    "averages-VGG-16": ["precision 89.00", "recall 86.33 (quoted 87)", "F1 87.33 (quoted 87)"],
    "accuracy": ["91.67 %", "91.17 to 92.17", "below 93.5 %"],
    "accuracy-floors": ["by support 91.2 %", "plain 82.2 %", "91.7 %"],
    "accuracy-whole-photographs": ["2,674", "none can give it", "(8,022): possible"],
    "f1": ["93.0 %, quoted 90 %"],
    "ranking": ["MobileNetV2 91.7 %, ResNet50V2 88.3 %, VGG-16 86.3 %", "order holds for precision, f1"],
    "same-conditions": ["1.6 x", "not stated, Yes, Yes"],
    "epochs": ["3 x 100 = 300"],
    "photographs-again": ["5,590 in all, 3,662 for training"],
    "adjacent-stages": ["no number"],
}


def test_verdicts_are_these_and_no_others():
    assert {key: str(finding.verdict) for key, finding in FINDINGS.items()} == VERDICTS
    assert len(FINDINGS) == len(audit())


@pytest.mark.parametrize("key", COMPUTED)
def test_each_finding_prints_its_figures(key):
    for figure in COMPUTED[key]:
        assert figure in FINDINGS[key].computed


@pytest.mark.parametrize("key", VERDICTS)
def test_each_finding_says_where_and_how(key):
    finding = FINDINGS[key]
    assert finding.claim
    assert finding.where
    assert finding.how.endswith(".")
    assert finding.verdict in Verdict


def test_a_figure_only_rounding_can_save_is_marked():
    assert "unprinted decimals" in FINDINGS["averages-MobileNetV2"].how
    assert "unprinted decimals" in FINDINGS["averages-VGG-16"].how
    assert "unprinted decimals" not in FINDINGS["averages-ResNet50V2"].how


def test_printed_tables_are_whole_and_frozen():
    assert sum(TABLE_1.total) == CLAIMS.photographs == 5590
    assert sum(TABLE_1.training) == 3662
    assert len(TABLE_2) == 22
    assert len(TABLE_3) == 8
    assert [(row.fold, row.network) for row in TABLE_4] == [(fold, name) for fold in (1, 2, 3) for name in NETWORKS]
    assert sum(CLAIMS.validated) == 2674
    with pytest.raises(FrozenInstanceError):
        TABLE_1.total = (0, 0, 0, 0, 0)


def test_chi_squared_equals_scipy():
    validated, whole = CLAIMS.validated, TABLE_1.total
    expected = [n * sum(validated) / sum(whole) for n in whole]
    ours = sums.chi_squared(validated, whole)
    theirs = stats.chisquare(validated, expected)
    assert (ours, sums.survival(ours, freedom=4)) == pytest.approx((theirs.statistic, theirs.pvalue))
    table = [TABLE_1.training, TABLE_1.testing]
    between = stats.chi2_contingency(table)
    assert sums.chi_squared_between(*table) == pytest.approx(between.statistic)
    # A part drawn without putting back is a part against the rest, up to (N - 1) / N.
    rest = [n - part for n, part in zip(TABLE_1.training, validated, strict=True)]
    drawn = sums.chi_squared_of_part(validated, TABLE_1.training)
    assert drawn * 3662 / 3661 == pytest.approx(stats.chi2_contingency([validated, rest]).statistic)


@pytest.mark.parametrize("freedom", [2, 4, 6])
@pytest.mark.parametrize("statistic", [0.0, 3.35, 12.4, 80.0])
def test_survival_equals_scipy(statistic, freedom):
    assert sums.survival(statistic, freedom=freedom) == pytest.approx(stats.chi2.sf(statistic, freedom))


@pytest.mark.parametrize("freedom", [0, 1, 3])
def test_survival_of_odd_freedom_is_refused(freedom):
    with pytest.raises(ValueError, match="even number"):
        sums.survival(1.0, freedom=freedom)


def test_reachable_accuracies():
    assert sums.reachable(93.89, 8022, decimals=2)
    assert not sums.reachable(93.89, 2674, decimals=2)
    assert sums.reachable(50.0, 2, decimals=2)
    assert not sums.reachable(51.0, 4, decimals=0)
    for photographs in (7, 100, 2674):
        for correct in range(0, photographs + 1, 7):
            assert sums.reachable(round(100 * correct / photographs, 2), photographs, decimals=2)


def test_rounding_overlap_and_the_bound_on_f1():
    assert sums.mean_of_rounded([0.91, 0.91, 0.93], unit=0.01) == pytest.approx(
        (0.916667, 0.911667, 0.921667), abs=1e-6
    )
    assert sums.overlap((0.1, 0.2), (0.1 + 0.1, 0.3))
    assert not sums.overlap((0.1, 0.2), (0.21, 0.3))
    assert sums.least_overlap(3662, 0.8 * 3662, 2674) == pytest.approx(1941.6)
    assert sums.least_overlap(100, 60, 40) == 0
    assert sums.weighted_mean((1, 3), (1, 3)) == 2.5
    for row in TABLE_4:
        assert row.f1 <= sums.highest_mean_f1(row.precision, row.recall) + 0.01


def test_parameters_equal_the_published_totals():
    assert printed_parameters(TABLE_2, outputs=1000) == 4_253_864  # keras.applications.MobileNet
    assert mobilenet_v2_parameters(outputs=1000) == 3_538_984  # keras.applications.MobileNetV2
    assert printed_parameters(TABLE_2, outputs=5) == 3_233_989
    assert mobilenet_v2_parameters(outputs=5) == 2_264_389


def test_parameters_equal_timm():
    timm = pytest.importorskip("timm")
    network = timm.create_model("mobilenetv2_100", num_classes=5)
    statistics = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert sum(p.numel() for p in network.parameters()) + statistics == mobilenet_v2_parameters(outputs=5)


def test_the_real_network_fits_together_and_the_printed_one_does_not():
    side, channels = 112, 32
    for row in MOBILENET_V2:
        assert row.input == (side, channels)
        side, channels = math.ceil(side / row.stride), row.channels
    assert (side, channels) == (7, 320)
    assert len(list(misfits(TABLE_2))) == 3
    assert list(misfits(TABLE_2[:18])) == []
