from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradings import refused
from predictions_by_hand import answer, around, manifest_of, some_verdicts, verdicts_on
from retigrade.errors import DataError, UsageError
from retigrade.evaluation.measure import measure
from retigrade.evaluation.model_card import Arguments, main, model_card
from retigrade.evaluation.plots import draw
from retigrade.evaluation.predictions import Predictions, worst
from retigrade.evaluation.report import compose
from retigrade.evaluation.result import EvaluationResult
from retigrade.evaluation.write import COLUMNS, predictions, write_report
from retigrade.grader import LOW_CONFIDENCE, Grader, load
from retigrade.icdr import Grade, Status
from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import expected_calibration_error
from retigrade.metrics.conformal import Conformal
from retigrade.report.document import as_html, as_markdown
from tiny_bundle import write_tiny_bundle


@pytest.fixture
def grader(tmp_path: Path) -> Grader:
    return load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)


def found(verdicts: Predictions, grader: Grader, **options: Any) -> EvaluationResult:
    return measure(verdicts, grader, manifest=manifest_of(verdicts), **{"rounds": 60, **options})


class TestFigures:
    def test_they_are_those_of_the_graded(self, grader: Grader) -> None:
        verdicts = some_verdicts(120, refuse=6)
        graded, evaluated = verdicts.graded, found(verdicts, grader)
        assert evaluated.statuses == {"graded": 114, "ungradable": 0, "not_fundus": 6, "error": 0}
        assert evaluated.gradable.value == pytest.approx(114 / 120)
        headline = {name: figure.value for name, figure in evaluated.headline.items()}
        assert headline["accuracy"] == pytest.approx(np.mean(graded.target == graded.predicted))
        assert headline["quadratic_kappa"] == pytest.approx(metrics.quadratic_kappa(graded.target, graded.predicted))
        assert headline["referable_auroc"] == pytest.approx(
            metrics.auroc(graded.probabilities[:, 2:].sum(axis=1), graded.target >= 2)
        )
        assert headline["any_auroc"] == pytest.approx(metrics.auroc(1 - graded.probabilities[:, 0], graded.target > 0))
        assert headline["ece"] == pytest.approx(
            expected_calibration_error(graded.confidence, graded.target == graded.predicted, bins=15)
        )
        np.testing.assert_array_equal(evaluated.confusion, metrics.confusion(graded.target, graded.predicted))
        assert any("6 photographs have no grade" in remark for remark in evaluated.remarks)

    def test_every_headline_has_an_interval_that_holds_it(self, grader: Grader) -> None:
        for figure in found(some_verdicts(150), grader).headline.values():
            assert figure.value is not None
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high

    def test_intervals_resample_groups(self, grader: Grader) -> None:
        gradings = [answer(around(n // 5 % 2, 0.9)) for n in range(60)]
        alone = found(verdicts_on([0] * 60, gradings), grader)
        grouped = found(verdicts_on([0] * 60, gradings, units=[n // 5 for n in range(60)]), grader)
        assert (alone.photographs.groups, grouped.photographs.groups) == (60, 12)
        wide, narrow = (one.headline["accuracy"] for one in (grouped, alone))
        assert None not in (wide.low, wide.high, narrow.low, narrow.high)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)  # type: ignore[operator]

    def test_each_stage_is_measured_against_the_rest(self, grader: Grader) -> None:
        evaluated = found(verdicts_on([0, 0, 2, 2], [answer(around(g, 0.9)) for g in (0, 2, 2, 2)]), grader)
        moderate = evaluated.stages[Grade.MODERATE]
        assert (moderate.stage, moderate.support, moderate.predicted) == ("moderate", 2, 3)
        assert moderate.sensitivity.value == 1.0
        assert moderate.specificity.value == 0.5
        assert moderate.precision.value == pytest.approx(2 / 3)
        assert evaluated.stages[Grade.SEVERE].sensitivity.value is None

    def test_operating_points_are_the_bundles(self, tmp_path: Path) -> None:
        grader = load(write_tiny_bundle(tmp_path / "t.onnx"), operating_point="screening")
        evaluated = found(some_verdicts(80), grader)
        assert [(point.name, point.threshold, point.in_use) for point in evaluated.points] == [
            ("default", 0.4, False),
            ("screening", 0.2, True),
        ]
        default, screening = (point.sensitivity.value for point in evaluated.points)
        assert default is not None
        assert screening is not None
        assert screening >= default

    def test_accuracy_by_confidence_leaves_out_the_unsure(self, grader: Grader) -> None:
        right = [answer(around(1, 0.95))] * 20
        wrong = [answer(around(3, 0.35))] * 20
        evaluated = found(verdicts_on([1] * 40, [*right, *wrong]), grader)
        steps = {step.at_least: (step.photos, step.accuracy.value) for step in evaluated.steps}
        assert steps[0.0] == (40, 0.5)
        assert steps[0.4] == (20, 1.0)
        assert evaluated.rises is True

    def test_accuracy_that_falls_with_confidence_is_said(self, grader: Grader) -> None:
        evaluated = found(
            verdicts_on([1] * 20, [answer(around(3, 0.95))] * 10 + [answer(around(1, 0.35))] * 10), grader
        )
        assert evaluated.rises is False
        assert "does not rise" in as_markdown(compose(evaluated, {}))

    def test_sets_of_possible_grades(self, tmp_path: Path) -> None:
        conformal = Conformal(coverage=0.9, quantile=0.5)
        grader = load(write_tiny_bundle(tmp_path / "t.onnx", conformal=conformal))
        wide, narrow = (Grade.MILD, Grade.MODERATE), (Grade.MODERATE,)
        gradings = [answer(around(2, 0.8), prediction_set=one) for one in (wide, narrow, narrow, wide)]
        sets = found(verdicts_on([1, 2, 3, 2], gradings), grader).sets
        assert sets is not None
        assert (sets.promised, sets.coverage.value, sets.size.value) == (0.9, 0.75, 1.5)
        assert sets.sizes == (2, 2, 0, 0, 0)

    def test_quality_is_cut_into_thirds_and_sources_are_kept_apart(self, grader: Grader) -> None:
        evaluated = found(some_verdicts(31), grader)
        assert [part.photos for part in evaluated.quality] == [11, 10, 10]
        assert [(part.name, part.photos) for part in evaluated.sources] == [("set", 31)]

    def test_trust_is_of_all_and_of_each_source(self, grader: Grader) -> None:
        evaluated = found(some_verdicts(31), grader)
        assert [(one.name, one.photos) for one in evaluated.trust] == [("all", 31), ("set", 31)]
        assert evaluated.trust[0].ece == evaluated.headline["ece"].value
        assert evaluated.trust[0].sensitivity.value == evaluated.points[0].sensitivity.value

    def test_mistakes_are_sorted_by_cost_then_confidence(self, grader: Grader) -> None:
        gradings = [answer(around(g, sure)) for g, sure in ((1, 0.9), (4, 0.5), (0, 0.9), (4, 0.7), (1, 0.6))]
        evaluated = found(verdicts_on([0, 0, 0, 0, 0], gradings), grader)
        assert [(one.name, one.cost) for one in evaluated.mistakes] == [
            ("set/003.png", 16),
            ("set/001.png", 16),
            ("set/000.png", 1),
            ("set/004.png", 1),
        ]

    def test_second_readers_are_counted(self, grader: Grader) -> None:
        gradings = [answer(around(1, 0.9)), answer(around(1, 0.4), reasons=(LOW_CONFIDENCE,))]
        assert found(verdicts_on([1, 1], gradings), grader).advised == 0.5


class TestPoorInput:
    def test_no_positive(self, grader: Grader) -> None:
        evaluated = found(some_verdicts(40, grades=(0, 1)), grader)
        assert evaluated.headline["referable_auroc"].value is None
        assert evaluated.points[0].sensitivity.value is None
        assert any("No photograph is referable" in remark for remark in evaluated.remarks)

    def test_all_positive(self, grader: Grader) -> None:
        evaluated = found(some_verdicts(40, grades=(3, 4)), grader)
        assert evaluated.points[0].specificity.value is None
        assert any("Every photograph is referable" in remark for remark in evaluated.remarks)

    def test_one_grade_only(self, grader: Grader) -> None:
        verdicts = verdicts_on([2] * 30, [answer(around(2, 0.9))] * 30)
        evaluated = found(verdicts, grader)
        assert evaluated.headline["quadratic_kappa"].value is None
        assert any("All photographs are of grade 2" in remark for remark in evaluated.remarks)
        assert as_html(compose(evaluated, draw(verdicts.graded, evaluated)))

    @pytest.mark.parametrize("count", [1, 2, 9])
    def test_fewer_than_ten_give_no_intervals_and_say_so(self, grader: Grader, count: int) -> None:
        verdicts = some_verdicts(count)
        evaluated = found(verdicts, grader)
        assert all(figure.low is None for figure in evaluated.headline.values())
        assert evaluated.gradable.low is None
        assert any("fewer than 10 give no intervals" in remark for remark in evaluated.remarks)
        text = as_markdown(compose(evaluated, draw(verdicts.graded, evaluated)))
        assert "nan" not in text

    def test_nothing_graded(self, grader: Grader) -> None:
        verdicts = verdicts_on([0, 3], [refused(), refused(status=Status.UNGRADABLE, reason="too dark")])
        evaluated = found(verdicts, grader)
        assert evaluated.headline == {}
        assert evaluated.gradable.value == 0.0
        text = as_markdown(compose(evaluated, draw(verdicts.graded, evaluated)))
        assert "No photograph was graded" in text
        assert "too dark" in text

    def test_a_bundle_without_calibration_says_what_it_lacks(self, tmp_path: Path) -> None:
        grader = load(write_tiny_bundle(tmp_path / "bare.onnx", operating_points={}, conformal=None))
        evaluated = found(some_verdicts(20), grader)
        assert evaluated.sets is None
        assert len(evaluated.points) == 1
        assert len(evaluated.missing) == 4
        text = as_markdown(compose(evaluated, {}))
        assert "The bundle lacks operating points." in text
        assert "The bundle lacks sets of possible grades." in text


class TestFiles:
    def test_the_folder_holds_the_four_and_they_agree(self, grader: Grader, tmp_path: Path) -> None:
        verdicts = some_verdicts(50, refuse=2)
        evaluated = found(verdicts, grader)
        document = compose(evaluated, draw(verdicts.graded, evaluated))
        write_report(tmp_path / "out", document, evaluated, verdicts)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "report.html",
            "report.md",
            "report.json",
            "predictions.csv",
        }
        assert EvaluationResult.read(tmp_path / "out" / "report.json") == evaluated
        accuracy = str(evaluated.headline["accuracy"])
        for name in ("report.html", "report.md"):
            assert accuracy in (tmp_path / "out" / name).read_text(encoding="utf-8")

    def test_the_page_needs_no_other_file(self, grader: Grader) -> None:
        verdicts = some_verdicts(30)
        evaluated = found(verdicts, grader)
        page = as_html(compose(evaluated, draw(verdicts.graded, evaluated)))
        assert page.count("data:image/svg+xml;base64,") == 4
        assert not re.search(r"https?://|@import|<script", page)

    def test_every_photograph_has_its_prediction(self) -> None:
        verdicts = some_verdicts(12, refuse=1)
        rows = list(csv.DictReader(io.StringIO(predictions(verdicts))))
        assert tuple(rows[0]) == COLUMNS
        assert [row["name"] for row in rows] == [entry.name for entry in verdicts.labelled.entries]
        assert rows[-1]["status"] == "not_fundus"
        assert {rows[-1][name] for name in ("grade", "p0", "p_referable", "referable", "confidence")} == {""}
        graded = verdicts.graded
        np.testing.assert_allclose([float(row["confidence"]) for row in rows[:-1]], graded.confidence, atol=1e-8)

    def test_a_folder_that_cannot_be_written_is_said(self, grader: Grader, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        verdicts = some_verdicts(5)
        evaluated = found(verdicts, grader)
        with pytest.raises(UsageError, match="not a folder"):
            write_report(tmp_path / "file", compose(evaluated, {}), evaluated, verdicts)

    @pytest.mark.parametrize("text", ["{}", "[", '{"format": 2}'])
    def test_another_file_is_no_report(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(DataError, match="not the report of an evaluation"):
            EvaluationResult.read(tmp_path / "report.json")
        with pytest.raises(DataError, match="cannot be read"):
            EvaluationResult.read(tmp_path / "absent.json")


class TestModelCard:
    def test_it_tells_what_the_bundle_and_its_evaluation_say(self, grader: Grader) -> None:
        evaluated = found(some_verdicts(40), grader)
        text = model_card(grader.bundle, evaluated)
        for fact in (
            grader.bundle.identity,
            "Learned nothing.",
            "Tests.",
            "Apache-2.0",
            "macular oedema",
            "drawn 10",
            str(evaluated.headline["quadratic_kappa"]),
            "not a medical device",
            "Not measured in this evaluation.",
        ):
            assert fact in text

    def test_it_refuses_the_evaluation_of_another_bundle(self, grader: Grader, tmp_path: Path) -> None:
        evaluated = found(some_verdicts(10), grader)
        other = load(write_tiny_bundle(tmp_path / "other.onnx", temperature=2.0))
        with pytest.raises(DataError, match="evaluate this bundle"):
            model_card(other.bundle, evaluated)

    def test_it_can_be_made_later_from_the_file(self, grader: Grader, tmp_path: Path) -> None:
        evaluated = found(some_verdicts(10), grader)
        (tmp_path / "report.json").write_text(evaluated.model_dump_json())
        main(Arguments(report=tmp_path / "report.json", bundle=tmp_path / "tiny.onnx", out=tmp_path / "CARD.md"))
        assert (tmp_path / "CARD.md").read_text() == model_card(grader.bundle, evaluated)


def test_worst_leaves_out_what_is_right_or_refused() -> None:
    verdicts = verdicts_on([0, 1, 2], [answer(around(0, 0.9)), refused(), answer(around(0, 0.9))])
    assert worst(verdicts) == [2]


def test_verdicts_must_be_as_many_as_photographs() -> None:
    verdicts = some_verdicts(3)
    with pytest.raises(ValueError, match="2 verdicts on 3"):
        Predictions(verdicts.labelled, verdicts.gradings[:2])


def test_the_json_has_no_nan(grader: Grader) -> None:
    text = found(some_verdicts(4, grades=(0,)), grader).model_dump_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
