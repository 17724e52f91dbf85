from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradings import refused
from predictions_by_hand import answer, around, manifest_of, predictions_on, some_predictions
from retigrade.errors import DataError, UsageError
from retigrade.evaluation.evaluate import COLUMNS, predictions_csv, write_report
from retigrade.evaluation.measure import measure, measure_sources
from retigrade.evaluation.model_card import Arguments, Elsewhere, main, model_card
from retigrade.evaluation.predictions import LabelledSet, Predictions, worst
from retigrade.evaluation.report import compose, draw_plots
from retigrade.evaluation.result import EvaluationResult
from retigrade.grader import LOW_CONFIDENCE, Grader, load
from retigrade.icdr import Grade, Status
from retigrade.metadata import Training
from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import Bootstrap
from retigrade.metrics.calibration import expected_calibration_error
from retigrade.metrics.conformal import Conformal
from retigrade.report.document import as_html, as_markdown
from tiny_bundle import tiny_card, write_tiny_bundle


@pytest.fixture
def grader(tmp_path: Path) -> Grader:
    return load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)


def evaluation_of(predictions: Predictions, grader: Grader, **options: Any) -> EvaluationResult:
    return measure(predictions, grader, manifest=manifest_of(predictions), bootstrap=Bootstrap(rounds=20), **options)


class TestFigures:
    def test_they_are_those_of_the_graded(self, grader: Grader) -> None:
        predictions = some_predictions(120, refuse=6)
        graded, result = predictions.graded.sample, evaluation_of(predictions, grader)
        assert result.statuses == {"graded": 114, "ungradable": 0, "not_fundus": 6, "error": 0}
        assert result.gradable.value == pytest.approx(114 / 120)
        headline = {name: figure.value for name, figure in result.headline.items()}
        assert headline["accuracy"] == pytest.approx(np.mean(graded.target == graded.predicted))
        assert headline["quadratic_kappa"] == pytest.approx(metrics.quadratic_kappa(graded.target, graded.predicted))
        assert headline["referable_auroc"] == pytest.approx(
            metrics.auroc(graded.probabilities[:, 2:].sum(axis=1), graded.target >= 2)
        )
        assert headline["any_auroc"] == pytest.approx(metrics.auroc(1 - graded.probabilities[:, 0], graded.target > 0))
        assert headline["ece"] == pytest.approx(
            expected_calibration_error(graded.confidence, graded.target == graded.predicted, bins=15)
        )
        np.testing.assert_array_equal(result.confusion, metrics.confusion(graded.target, graded.predicted))
        assert any("6 photographs have no grade" in remark for remark in result.remarks)

    def test_every_headline_has_an_interval_that_holds_it(self, grader: Grader) -> None:
        for figure in evaluation_of(some_predictions(150), grader).headline.values():
            assert figure.value is not None
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high

    def test_intervals_resample_groups(self, grader: Grader) -> None:
        gradings = [answer(around(n // 5 % 2, 0.9)) for n in range(60)]
        alone = evaluation_of(predictions_on([0] * 60, gradings), grader)
        grouped = evaluation_of(predictions_on([0] * 60, gradings, groups=[n // 5 for n in range(60)]), grader)
        assert (alone.photographs.groups, grouped.photographs.groups) == (60, 12)
        wide, narrow = (one.headline["accuracy"] for one in (grouped, alone))
        assert None not in (wide.low, wide.high, narrow.low, narrow.high)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)  # type: ignore[operator]

    def test_each_stage_is_measured_against_the_rest(self, grader: Grader) -> None:
        result = evaluation_of(predictions_on([0, 0, 2, 2], [answer(around(g, 0.9)) for g in (0, 2, 2, 2)]), grader)
        moderate = result.stages[Grade.MODERATE]
        assert (moderate.stage, moderate.support, moderate.predicted) == ("moderate", 2, 3)
        assert moderate.sensitivity.value == 1.0
        assert moderate.specificity.value == 0.5
        assert moderate.precision.value == pytest.approx(2 / 3)
        assert result.stages[Grade.SEVERE].sensitivity.value is None

    def test_operating_points_are_the_bundles(self, tmp_path: Path) -> None:
        grader = load(write_tiny_bundle(tmp_path / "t.onnx"), operating_point="screening")
        result = evaluation_of(some_predictions(80), grader)
        assert [(point.name, point.threshold, point.in_use) for point in result.points] == [
            ("default", 0.4, False),
            ("screening", 0.2, True),
        ]
        default, screening = (point.sensitivity.value for point in result.points)
        assert default is not None
        assert screening is not None
        assert screening >= default

    def test_accuracy_by_confidence_leaves_out_the_unsure(self, grader: Grader) -> None:
        right = [answer(around(1, 0.95))] * 20
        wrong = [answer(around(3, 0.35))] * 20
        result = evaluation_of(predictions_on([1] * 40, [*right, *wrong]), grader)
        curve = {point.at_least: (point.photos, point.accuracy.value) for point in result.coverage_curve}
        assert curve[0.0] == (40, 0.5)
        assert curve[0.4] == (20, 1.0)
        assert result.rises is True

    def test_accuracy_that_falls_with_confidence_is_said(self, grader: Grader) -> None:
        result = evaluation_of(
            predictions_on([1] * 20, [answer(around(3, 0.95))] * 10 + [answer(around(1, 0.35))] * 10), grader
        )
        assert result.rises is False
        assert "does not rise" in as_markdown(compose(result, {}))

    def test_prediction_sets_that_hold_less_than_promised(self, tmp_path: Path) -> None:
        conformal = Conformal(coverage=0.9, quantile=0.5)
        grader = load(write_tiny_bundle(tmp_path / "t.onnx", conformal=conformal))
        wide, narrow = (Grade.MILD, Grade.MODERATE), (Grade.MODERATE,)
        gradings = [answer(around(2, 0.8), prediction_set=members) for members in (wide, narrow, narrow, wide)]
        sets = evaluation_of(predictions_on([1, 2, 3, 2], gradings), grader).prediction_sets
        assert sets is not None
        assert (sets.promised, sets.coverage.value, sets.size.value) == (0.9, 0.75, 1.5)
        assert sets.sizes == (2, 2, 0, 0, 0)
        result = evaluation_of(predictions_on([1, 2, 3, 3] * 10, gradings * 10), grader)
        assert any("0.500 (" in remark and "against 90%" in remark for remark in result.remarks)

    def test_quality_is_cut_into_thirds_and_sources_are_kept_apart(self, grader: Grader) -> None:
        result = evaluation_of(some_predictions(31), grader)
        assert [part.photos for part in result.quality] == [11, 10, 10]
        assert [(part.name, part.photos) for part in result.sources] == [("all photographs", 31)]

    def test_the_same_figure_has_the_same_value_and_interval_wherever_it_stands(self, grader: Grader) -> None:
        predictions = some_predictions(60, refuse=3)
        result = evaluation_of(predictions, grader)
        (everyone,) = result.sources
        assert (everyone.name, everyone.photos, everyone.graded) == ("all photographs", 60, 57)
        shared = set(everyone.figures) & set(result.headline)
        assert len(shared) == 8
        assert all(everyone.figures[key] == result.headline[key] for key in shared)
        point = result.points[0]
        assert point.in_use
        assert point.sensitivity == result.headline["referable_sensitivity"]
        assert point.specificity == result.headline["referable_specificity"]
        assert result.coverage_curve[0].accuracy == result.headline["accuracy"]
        stored = {figure.metric: figure.estimate for figure in result.stored_figures()}
        assert all(stored[key] == everyone.figures[key] for key in stored)
        assert {(figure.photos, figure.graded) for figure in result.stored_figures()} == {(60, 57)}

    def test_equal_thresholds_have_equal_intervals(self, tmp_path: Path) -> None:
        grader = load(write_tiny_bundle(tmp_path / "t.onnx", referable_threshold=0.2))
        default, screening = evaluation_of(some_predictions(80), grader).points
        assert (default.sensitivity, default.specificity) == (screening.sensitivity, screening.specificity)

    def test_sources_are_measured_apart(self, grader: Grader) -> None:
        one, other = some_predictions(20), some_predictions(30, seed=1)
        entries = [replace(entry, name=f"b{entry.name}", source="b") for entry in other.labelled.entries]
        labelled = LabelledSet((*one.labelled.entries, *entries), np.arange(50))
        predictions = Predictions(labelled, (*one.gradings, *other.gradings))
        everyone, b, first = measure_sources(predictions, Bootstrap(rounds=20))
        assert [(part.name, part.photos) for part in (everyone, b, first)] == [
            ("all photographs", 50),
            ("b", 30),
            ("set", 20),
        ]
        assert b.figures["accuracy"].value == other.graded.sample.correct.mean()

    def test_origins_within_a_source_are_measured_apart(self, grader: Grader) -> None:
        predictions = some_predictions(20)
        entries = [
            replace(entry, origin="native" if number < 5 else "n/a")
            for number, entry in enumerate(predictions.labelled.entries)
        ]
        named = Predictions(LabelledSet(tuple(entries), np.arange(20)), predictions.gradings)
        slices = measure_sources(named, Bootstrap(rounds=20))
        assert [(part.name, part.photos) for part in slices] == [
            ("all photographs", 20),
            ("set", 20),
            ("set/n/a", 15),
            ("set/native", 5),
        ]
        same = [replace(entry, origin="native") for entry in entries]
        assert len(measure_sources(Predictions(LabelledSet(tuple(same), np.arange(20)), predictions.gradings))) == 1

    def test_photographs_that_the_bundle_learned_from_are_counted_and_named(self, tmp_path: Path) -> None:
        predictions = some_predictions(12)
        known = [entry.sha256 for entry in predictions.labelled.entries[3:8]]
        training = tiny_card().training.model_copy(update={"photo_hashes": Training.pack_hashes(known)})
        grader = load(write_tiny_bundle(tmp_path / "t.onnx", training=training))
        result = evaluation_of(predictions, grader)
        assert result.photographs.learned_from is not None
        assert len(result.photographs.learned_from) == 12  # by hand their digests begin with the same zeros
        assert result.remarks[0].startswith("The bundle learned from 12 of these 12 photographs (set/000.png, ")

    def test_refusals_are_counted_by_source_stage_and_reason(self, grader: Grader) -> None:
        gradings = [
            refused(reason="too dark: light 0.05"),
            refused(reason="too dark: light 0.03"),
            answer([1, 0, 0, 0, 0]),
        ]
        (count,) = evaluation_of(predictions_on([3, 3, 3], gradings), grader).refusal_counts
        assert (count.source, count.true_grade, count.reason, count.refused, count.photos) == (
            "set",
            3,
            "too dark",
            2,
            3,
        )

    def test_mistakes_are_sorted_by_cost_then_confidence(self, grader: Grader) -> None:
        gradings = [answer(around(g, sure)) for g, sure in ((1, 0.9), (4, 0.5), (0, 0.9), (4, 0.7), (1, 0.6))]
        result = evaluation_of(predictions_on([0, 0, 0, 0, 0], gradings), grader)
        assert [(one.name, one.cost) for one in result.mistakes] == [
            ("set/003.png", 16),
            ("set/001.png", 16),
            ("set/000.png", 1),
            ("set/004.png", 1),
        ]

    def test_second_readers_are_counted(self, grader: Grader) -> None:
        gradings = [answer(around(1, 0.9)), answer(around(1, 0.4), reasons=(LOW_CONFIDENCE,))]
        assert evaluation_of(predictions_on([1, 1], gradings), grader).second_reader == 0.5


class TestPoorInput:
    def test_no_positive(self, grader: Grader) -> None:
        result = evaluation_of(some_predictions(40, grades=(0, 1)), grader)
        assert result.headline["referable_auroc"].value is None
        assert result.points[0].sensitivity.value is None
        assert any("No photograph is referable" in remark for remark in result.remarks)

    def test_all_positive(self, grader: Grader) -> None:
        result = evaluation_of(some_predictions(40, grades=(3, 4)), grader)
        assert result.points[0].specificity.value is None
        assert any("Every photograph is referable" in remark for remark in result.remarks)

    def test_one_grade_only(self, grader: Grader) -> None:
        predictions = predictions_on([2] * 30, [answer(around(2, 0.9))] * 30)
        result = evaluation_of(predictions, grader)
        assert result.headline["quadratic_kappa"].value is None
        assert any("All photographs are of grade 2" in remark for remark in result.remarks)
        assert as_html(compose(result, draw_plots(predictions.graded, result)))

    @pytest.mark.parametrize("count", [1, 2, 9])
    def test_fewer_than_ten_give_no_intervals_and_say_so(self, grader: Grader, count: int) -> None:
        predictions = some_predictions(count)
        result = evaluation_of(predictions, grader)
        assert all(figure.low is None for figure in result.headline.values())
        assert result.gradable.low is None
        assert any("fewer than 10 give no intervals" in remark for remark in result.remarks)
        text = as_markdown(compose(result, draw_plots(predictions.graded, result)))
        assert "nan" not in text

    def test_nothing_graded(self, grader: Grader) -> None:
        predictions = predictions_on([0, 3], [refused(), refused(status=Status.UNGRADABLE, reason="too dark")])
        result = evaluation_of(predictions, grader)
        assert result.headline == {}
        assert result.gradable.value == 0.0
        text = as_markdown(compose(result, draw_plots(predictions.graded, result)))
        assert "No photograph was graded" in text
        assert "too dark" in text

    def test_a_bundle_without_calibration_says_what_it_lacks(self, tmp_path: Path) -> None:
        grader = load(write_tiny_bundle(tmp_path / "bare.onnx", operating_points={}, conformal=None))
        result = evaluation_of(some_predictions(20), grader)
        assert result.prediction_sets is None
        assert len(result.points) == 1
        assert len(result.missing) == 4
        text = as_markdown(compose(result, {}))
        assert "The bundle lacks operating points." in text
        assert "The bundle lacks prediction sets." in text


class TestFiles:
    def test_the_folder_holds_the_four_and_they_agree(self, grader: Grader, tmp_path: Path) -> None:
        predictions = some_predictions(50, refuse=2)
        result = evaluation_of(predictions, grader)
        write_report(tmp_path / "out", predictions, result)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "report.html",
            "report.md",
            "report.json",
            "predictions.csv",
        }
        assert EvaluationResult.read(tmp_path / "out" / "report.json") == result
        accuracy = str(result.headline["accuracy"])
        for name in ("report.html", "report.md"):
            text = (tmp_path / "out" / name).read_text(encoding="utf-8")
            assert accuracy in re.sub(r"<[^>]*>", "", text)

    def test_the_page_needs_no_other_file(self, grader: Grader) -> None:
        predictions = some_predictions(30)
        result = evaluation_of(predictions, grader)
        page = as_html(compose(result, draw_plots(predictions.graded, result)))
        assert page.count("data:image/svg+xml;base64,") == 4
        assert not re.search(r"https?://|@import|<script", page)

    def test_every_photograph_has_its_prediction(self) -> None:
        predictions = some_predictions(12, refuse=1)
        rows = list(csv.DictReader(io.StringIO(predictions_csv(predictions))))
        assert tuple(rows[0]) == COLUMNS
        assert [row["name"] for row in rows] == [entry.name for entry in predictions.labelled.entries]
        assert rows[-1]["status"] == "not_fundus"
        assert {rows[-1][name] for name in ("grade", "p0", "p_referable", "referable", "confidence")} == {""}
        graded = predictions.graded.sample
        np.testing.assert_allclose([float(row["confidence"]) for row in rows[:-1]], graded.confidence, atol=1e-8)

    def test_a_folder_that_cannot_be_written_is_said(self, grader: Grader, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        predictions = some_predictions(5)
        result = evaluation_of(predictions, grader)
        with pytest.raises(UsageError, match="not a folder"):
            write_report(tmp_path / "file", predictions, result)

    @pytest.mark.parametrize("text", ["{}", "[", '{"format": 1}'])
    def test_another_file_is_no_report(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(DataError, match="not the report of an evaluation"):
            EvaluationResult.read(tmp_path / "report.json")
        with pytest.raises(DataError, match="cannot be read"):
            EvaluationResult.read(tmp_path / "absent.json")


class TestModelCard:
    def test_it_tells_what_the_bundle_and_its_evaluation_say(self, grader: Grader) -> None:
        result = evaluation_of(some_predictions(40), grader)
        text = model_card(grader.bundle, result)
        for fact in (
            grader.bundle.identity,
            "Learned nothing.",
            "Tests.",
            "Apache-2.0",
            "macular oedema",
            "drawn 10",
            str(result.headline["quadratic_kappa"]),
            "not a medical device",
            "Not measured in this evaluation.",
        ):
            assert fact in text

    def test_it_says_what_to_expect_elsewhere(self, grader: Grader, tmp_path: Path) -> None:
        result = evaluation_of(some_predictions(40), grader)
        (tmp_path / "report.json").write_text(result.model_dump_json())
        assert "## Elsewhere" not in model_card(grader.bundle, result)
        elsewhere = Elsewhere.read([tmp_path / "report.json"], tmp_path / "report.json")
        _, _, rest = model_card(grader.bundle, result, elsewhere=elsewhere).partition("## Elsewhere")
        section, _, _ = rest.partition("\n## ")
        rows = [line for line in section.splitlines() if line.startswith("| set ")]
        assert len(rows) == 2
        assert str(result.headline["quadratic_kappa"]) in rows[0]
        assert "| all photographs |" not in section

    def test_it_refuses_the_evaluation_of_another_bundle(self, grader: Grader, tmp_path: Path) -> None:
        result = evaluation_of(some_predictions(10), grader)
        other = load(write_tiny_bundle(tmp_path / "other.onnx", temperature=2.0))
        with pytest.raises(DataError, match="evaluate this bundle"):
            model_card(other.bundle, result)

    def test_it_can_be_made_later_from_the_file(self, grader: Grader, tmp_path: Path) -> None:
        result = evaluation_of(some_predictions(10), grader)
        (tmp_path / "report.json").write_text(result.model_dump_json())
        main(Arguments(report=tmp_path / "report.json", bundle=tmp_path / "tiny.onnx", out=tmp_path / "CARD.md"))
        assert (tmp_path / "CARD.md").read_text() == model_card(grader.bundle, result)


def test_worst_leaves_out_what_is_right_or_refused() -> None:
    predictions = predictions_on([0, 1, 2], [answer(around(0, 0.9)), refused(), answer(around(0, 0.9))])
    assert worst(predictions) == [2]


def test_gradings_must_be_as_many_as_photographs() -> None:
    predictions = some_predictions(3)
    with pytest.raises(ValueError, match="2 gradings of 3"):
        Predictions(predictions.labelled, predictions.gradings[:2])


def test_the_json_has_no_nan(grader: Grader) -> None:
    text = evaluation_of(some_predictions(4, grades=(0,)), grader).model_dump_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
