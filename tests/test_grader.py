import hashlib
import io
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import retigrade.grader
from gradings import graded
from retigrade.errors import BundleError, UsageError
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.quality import Quality
from retigrade.grader import LOW_CONFIDENCE, Grader, Source, load
from retigrade.grading import Eye, Grading, Subject
from retigrade.icdr import GRADES, Grade, Status
from retigrade.inputs import Input
from retigrade.metadata import OutOfDistributionDetector, QualityHead
from retigrade.metrics.conformal import Conformal
from retigrade.metrics.decision import Decision, OperatingPoint
from retigrade.metrics.estimate import Estimate
from tiny_bundle import CHANNELS, SIZE, write_tiny_bundle

ALWAYS_NONE = Decision(rule="mean", cuts=(5, 6, 7, 8))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny.onnx")


@pytest.fixture
def grader(bundle: Path) -> Grader:
    return load(bundle, threads=1)


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that lets every fundus pass: what it measures has its own tests."""
    monkeypatch.setattr(retigrade.grader, "assess", lambda *seen: Quality(0.8, Status.GRADED))


def draw_disc(path: Path, *, seed: int = 0, size: tuple[int, int] = (400, 300)) -> Path:
    """Write a blotchy orange disc on black: a fundus as far as `find_field` looks."""
    width, height = size
    rng = np.random.default_rng(seed)
    blotches = cv2.resize(rng.integers(60, 200, (6, 8, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(columns - width / 2, rows - height / 2) < 0.46 * height
    cv2.imwrite(str(path), np.where(inside[..., None], blotches, 0))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [draw_disc(tmp_path / f"{seed}.png", seed=seed) for seed in range(5)]


def answers(grading: Grading) -> dict[str, object]:
    """Everything that a grading says, but the time that it took."""
    said = {name: getattr(grading, name) for name in Grading.__dataclass_fields__ if name not in ("seconds", "heatmap")}
    said["probabilities"] = None if grading.probabilities is None else grading.probabilities.tolist()
    said["heat"] = None if grading.heat is None else grading.heat.tobytes()
    return said


@pytest.mark.usefixtures("clear")
class TestOnePhoto:
    def test_a_graded_photo_has_every_answer(self, grader: Grader, photos: list[Path]) -> None:
        grading = grader.grade(photos[0])
        assert grading.status is Status.GRADED
        assert grading.path == str(photos[0])
        assert grading.bundle == grader.bundle.identity
        assert grading.sha256 == hashlib.sha256(photos[0].read_bytes()).hexdigest()
        assert grading.quality == 0.8
        assert 0 < grading.seconds < 60
        assert grading.probabilities is not None
        assert grading.reasons == grader.bundle.metadata.decide(grading.probabilities).reasons
        assert grading.grade is grader.bundle.metadata.decision.decide(grading.probabilities)
        assert grading.p_referable == pytest.approx(grading.probabilities[2:].sum())
        assert grading.referable == (grading.p_referable >= 0.4 or grading.grade >= Grade.MODERATE)
        assert grading.heat is not None
        assert grading.heat.shape == (300, 400)

    def test_bytes_get_what_their_file_gets(self, grader: Grader, photos: list[Path]) -> None:
        from_file, from_text = grader.grade(photos[0]), grader.grade(str(photos[0]))
        from_bytes = grader.grade(photos[0].read_bytes())
        assert from_bytes.path == "(bytes)"
        assert answers(from_file) == answers(from_text)
        assert answers(from_file) == {**answers(from_bytes), "path": str(photos[0])}

    def test_a_file_object_gets_what_its_file_gets(self, grader: Grader, photos: list[Path]) -> None:
        with photos[0].open("rb") as file:
            assert answers(grader.grade(file)) == answers(grader.grade(photos[0]))
        unnamed = grader.grade(io.BytesIO(photos[0].read_bytes()))
        assert answers(unnamed) == {**answers(grader.grade(photos[0])), "path": "(bytes)"}
        with photos[0].open(encoding="latin-1") as text, pytest.raises(TypeError, match="binary mode"):
            grader.grade(text)  # type: ignore[arg-type]

    def test_an_array_and_a_pil_image_get_what_their_pixels_say(self, grader: Grader, photos: list[Path]) -> None:
        pixels = np.asarray(cv2.cvtColor(cv2.imread(str(photos[0])), cv2.COLOR_BGR2RGB), np.uint8)
        from_array, from_file = grader.grade(pixels), grader.grade(photos[0])
        assert from_array.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert answers(from_array) == {**answers(from_file), "path": "(pixels)", "sha256": from_array.sha256}
        assert answers(grader.grade(np.asfortranarray(pixels))) == answers(from_array)
        with Image.open(photos[0]) as image:
            assert answers(grader.grade(image)) == {**answers(from_array), "path": str(photos[0])}
        image = Image.fromarray(pixels).rotate(90, expand=True)
        image.getexif()[0x0112] = 6
        assert grader.grade(image).sha256 == from_array.sha256

    @pytest.mark.parametrize(
        "source",
        [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8), Image.new("I", (9, 9))],
    )
    def test_pixels_of_another_kind_are_a_usage_error_alone_and_a_row_among_others(
        self, grader: Grader, photos: list[Path], source: Source
    ) -> None:
        with pytest.raises(UsageError, match=r"uint8 \(h, w, 3\)|convert it to RGB"):
            grader.grade(source)
        assert [grading.status for grading in grader.grade_many([source, photos[0]])] == [Status.ERROR, Status.GRADED]

    def test_what_is_no_photo_at_all_is_a_type_error(self, grader: Grader) -> None:
        with pytest.raises(TypeError, match="got int"):
            grader.grade(3)  # type: ignore[arg-type]

    def test_its_text_is_one_short_line(self, grader: Grader, bundle: Path) -> None:
        assert repr(grader) == f"<Grader {grader.bundle.identity}>"
        assert repr(load(bundle, operating_point="screening")).endswith(", operating point 'screening'>")
        assert repr(grader.bundle) == f"<Bundle {grader.bundle.identity}>"

    def test_heat_is_made_only_if_wanted(self, grader: Grader, photos: list[Path]) -> None:
        grading = grader.grade(photos[0], heat=False)
        assert grading.status is Status.GRADED
        assert grading.heatmap is grading.heat is None

    def test_temperature_is_applied(self, tmp_path: Path, photos: list[Path]) -> None:
        cold, hot = (
            load(write_tiny_bundle(tmp_path / "t.onnx", temperature=value)).grade(photos[0]).probabilities
            for value in (0.05, 1e6)
        )
        assert cold is not None
        assert hot is not None
        assert cold.max() > 0.99
        np.testing.assert_allclose(hot, 0.2, atol=1e-5)

    def test_the_bundles_decision_is_taken(self, tmp_path: Path, photos: list[Path]) -> None:
        path = write_tiny_bundle(tmp_path / "t.onnx", decision=Decision(rule="mean", cuts=(-4, -3, -2, -1)))
        assert load(path).grade(photos[0]).grade is Grade.PROLIFERATIVE

    def test_referable_starts_at_the_bundles_threshold(self, tmp_path: Path, photos: list[Path]) -> None:
        always, never = (
            load(write_tiny_bundle(tmp_path / "t.onnx", referable_threshold=value, decision=ALWAYS_NONE)).grade(
                photos[0]
            )
            for value in (0.0, 1.0)
        )
        assert (always.referable, never.referable) == (True, False)
        assert always.reasons[0] == f"refer: moderate or worse is possible at {always.p_referable:.2f}"

    def test_low_confidence_is_said(self, tmp_path: Path, photos: list[Path]) -> None:
        path = write_tiny_bundle(tmp_path / "t.onnx", second_reader_spread=0.0)
        grading = load(path).grade(photos[0])
        assert grading.status is Status.GRADED
        assert grading.reasons[-1] == LOW_CONFIDENCE

    def test_a_photo_unlike_those_learned_from_gets_no_grade(self, tmp_path: Path, photos: list[Path]) -> None:
        far = OutOfDistributionDetector.pack(
            mean=np.full(CHANNELS, 50.0), scale=np.ones(1), components=np.zeros((0, CHANNELS)), limit=1.0
        )
        grading = load(write_tiny_bundle(tmp_path / "t.onnx", out_of_distribution=far)).grade(photos[0])
        assert grading.status is Status.UNGRADABLE
        assert grading.reasons[0].startswith("unlike the photographs that the network learned from")
        near = far.model_copy(update={"limit": 1e6})
        assert (
            load(write_tiny_bundle(tmp_path / "t.onnx", out_of_distribution=near)).grade(photos[0]).status
            is Status.GRADED
        )

    def test_what_the_network_sees_decides_on_quality_where_the_bundle_has_a_head_for_it(
        self, tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed = Quality(0.8, Status.GRADED, poor="poor quality, too dark: take it again")
        monkeypatch.setattr(retigrade.grader, "assess", lambda *seen: passed)
        poor = QualityHead.pack(weights=np.zeros(CHANNELS), gate=0.5, offset=1.5, limit=1.0)
        grading = load(write_tiny_bundle(tmp_path / "poor.onnx", quality_head=poor)).grade(photos[0])
        assert grading.status is Status.UNGRADABLE
        assert grading.reasons[0].startswith("poor quality, ")
        assert grading.reasons[0].endswith(": take it again")
        clear = load(write_tiny_bundle(tmp_path / "t.onnx", quality_head=poor.model_copy(update={"limit": 9.0})))
        assert clear.grade(photos[0]).status is Status.GRADED
        assert grading.quality < 0.5 < clear.grade(photos[0]).quality

    def test_a_decoded_photo_gets_what_its_file_gets(self, grader: Grader, photos: list[Path]) -> None:
        photo = decode(photos[0], min_side=decode_side(SIZE))
        from_pixels = grader.grade_photo(photo, path="named")
        assert from_pixels.path == "named"
        assert 0 < from_pixels.seconds < 60
        assert answers(from_pixels) == {**answers(grader.grade(photos[0])), "path": "named"}
        assert grader.grade_photo(photo, heat=False).heatmap is None

    def test_an_operating_point_moves_the_threshold_and_nothing_else(self, bundle: Path, photos: list[Path]) -> None:
        point = Estimate(value=0.9, low=0.8, high=1.0)
        points = {"never": OperatingPoint(threshold=1.0, sensitivity=point, specificity=point)}
        path = write_tiny_bundle(bundle, operating_points=points, referable_threshold=0.0, decision=ALWAYS_NONE)
        plain, named = load(path).grade(photos[0]), load(path, operating_point="never").grade(photos[0])
        assert (plain.referable, named.referable) == (True, False)
        assert answers(named) == {**answers(plain), "referable": False, "reasons": plain.reasons[1:]}

    def test_possible_grades_come_from_the_card(self, grader: Grader, tmp_path: Path, photos: list[Path]) -> None:
        assert grader.grade(photos[0]).prediction_set is None
        sure = load(write_tiny_bundle(tmp_path / "t.onnx", conformal=Conformal(coverage=0.5, quantile=0.0)))
        grading = sure.grade(photos[0])
        assert grading.prediction_set is not None
        assert grading.grade in grading.prediction_set
        wide = load(write_tiny_bundle(tmp_path / "t.onnx", conformal=Conformal(coverage=0.99, quantile=1.0)))
        assert wide.grade(photos[0]).prediction_set == GRADES


@pytest.mark.parametrize("prediction_set", [(), (Grade.MILD,), (Grade.MODERATE, Grade.PROLIFERATIVE)])
def test_possible_grades_without_the_decided_one_or_with_a_gap_are_no_grading(
    prediction_set: tuple[Grade, ...],
) -> None:
    with pytest.raises(ValueError, match="must be a run"):
        graded(prediction_set=prediction_set)


def test_an_unknown_operating_point_is_refused_before_the_first_photo(bundle: Path) -> None:
    with pytest.raises(UsageError, match="there are: screening"):
        load(bundle, operating_point="screning")


def test_a_quality_head_of_another_network_does_not_fit(tmp_path: Path) -> None:
    other = QualityHead.pack(weights=np.ones(9), gate=0, offset=0, limit=0)
    with pytest.raises(BundleError, match=r"features is .* must be tensor\(float\) \[N, 9\]"):
        load(write_tiny_bundle(tmp_path / "t.onnx", quality_head=other))


def test_features_of_another_network_do_not_fit(tmp_path: Path) -> None:
    other = OutOfDistributionDetector.pack(mean=np.zeros(9), scale=np.ones(1), components=np.zeros((0, 9)), limit=1.0)
    with pytest.raises(BundleError, match=r"features is .* must be tensor\(float\) \[N, 9\]"):
        load(write_tiny_bundle(tmp_path / "t.onnx", out_of_distribution=other))


@pytest.mark.parametrize("status", [Status.UNGRADABLE, Status.NOT_FUNDUS])
def test_what_the_gate_refuses_gets_its_reasons_and_no_grade(
    grader: Grader, photos: list[Path], monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    monkeypatch.setattr(retigrade.grader, "assess", lambda *seen: Quality(0.1, status, ("blurred", "dark")))
    grading = grader.grade(photos[0])
    assert (grading.status, grading.reasons) == (status, ("blurred", "dark"))
    assert grading.quality == (0.1 if status is Status.UNGRADABLE else None)
    assert grading.probabilities is grading.grade is grading.heatmap is None
    assert grading.sha256 is not None


def test_a_refused_photo_keeps_what_was_noted_of_it(
    grader: Grader, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retigrade.grader, "assess", lambda *seen: Quality(0.1, Status.UNGRADABLE, ("dark",)))
    photo = replace(decode(photos[0]), notes=("text seems to be burned in",))
    assert grader.grade_photo(photo).reasons == ("dark", "text seems to be burned in")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_bytes_that_are_no_picture_are_an_error_with_a_reason(grader: Grader, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "named.jpg"
    path.write_bytes(data)
    for source in (path, data):
        grading = grader.grade(source)
        assert grading.status is Status.ERROR
        assert len(grading.reasons) == 1
        assert grading.grade is None


@pytest.mark.parametrize("name", ["absent.jpg", ".", "new\nline.jpg", "x" * 300, "nul\0.jpg", "café \udcff.jpg"])
def test_paths_that_cannot_be_read_are_an_error_with_a_reason(grader: Grader, tmp_path: Path, name: str) -> None:
    grading = grader.grade(tmp_path / name)
    assert (grading.status, grading.path) == (Status.ERROR, str(tmp_path / name))
    assert not grading.reasons[0].startswith("internal error")


@pytest.mark.parametrize("value", [0, 255])
def test_a_flat_picture_gets_no_grade(grader: Grader, tmp_path: Path, value: int) -> None:
    path = tmp_path / "flat.png"
    cv2.imwrite(str(path), np.full((300, 400, 3), value, np.uint8))
    grading = grader.grade(path)
    assert grading.status in (Status.NOT_FUNDUS, Status.UNGRADABLE)
    assert grading.reasons


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("retigrade")]


@pytest.mark.usefixtures("clear")
class TestManyPhotos:
    def test_order_is_kept_and_threads_change_nothing(self, grader: Grader, photos: list[Path], tmp_path: Path) -> None:
        sources = [photos[0], tmp_path / "absent.jpg", *photos[1:], photos[0].read_bytes(), b"rubbish"] * 3
        alone, together = (list(grader.grade_many(sources, jobs=jobs)) for jobs in (1, 4))
        assert [g.path for g in alone] == ["(bytes)" if isinstance(s, bytes) else str(s) for s in sources]
        assert list(map(answers, alone)) == list(map(answers, together))
        assert {grading.status for grading in alone} == {Status.GRADED, Status.ERROR}

    def test_many_is_one_after_another(self, grader: Grader, photos: list[Path]) -> None:
        assert list(map(answers, grader.grade_many(photos))) == [answers(grader.grade(photo)) for photo in photos]

    @pytest.mark.parametrize(("jobs", "most"), [(1, 3), (2, 7)])
    def test_an_endless_source_is_taken_a_few_at_a_time(
        self, grader: Grader, photos: list[Path], jobs: int, most: int
    ) -> None:
        taken = 0

        def endless() -> Iterator[Path]:
            nonlocal taken
            for photo in itertools.cycle(photos):
                taken += 1
                yield photo

        gradings = grader.grade_many(endless(), jobs=jobs)
        assert taken == 0
        assert [next(gradings).path for _ in range(3)] == [str(photo) for photo in photos[:3]]
        assert taken <= most
        gradings.close()  # type: ignore[attr-defined]
        assert threads_left() == []

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_no_photos_no_gradings(self, grader: Grader, jobs: int) -> None:
        assert list(grader.grade_many([], jobs=jobs)) == []
        assert threads_left() == []

    def test_an_interruption_ends_the_threads(
        self, grader: Grader, photos: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started = []

        def slow(self: Grader, source: Path, *, heat: bool) -> Grading:
            started.append(source)
            time.sleep(0.02)
            return grade(self, source, heat=heat)

        def interrupted() -> Iterator[Path]:
            yield from photos
            raise KeyboardInterrupt

        grade = Grader.grade
        monkeypatch.setattr(Grader, "grade", slow)
        gradings = grader.grade_many(interrupted(), jobs=2)
        assert next(gradings).path == str(photos[0])
        with pytest.raises(KeyboardInterrupt):
            list(gradings)
        assert threads_left() == []
        assert len(started) <= len(photos)

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_a_defect_costs_one_photo_only(
        self,
        grader: Grader,
        photos: list[Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        jobs: int,
    ) -> None:
        def find_field(photo: object) -> object:
            if hashlib.sha256(photos[1].read_bytes()).hexdigest() == photo.sha256:  # type: ignore[attr-defined]
                raise ZeroDivisionError("by zero")
            return found(photo)  # type: ignore[arg-type]

        found = retigrade.grader.find_field
        monkeypatch.setattr(retigrade.grader, "find_field", find_field)
        with caplog.at_level(logging.DEBUG, logger="retigrade"):
            gradings = list(grader.grade_many(photos, jobs=jobs))
        assert [grading.status is Status.ERROR for grading in gradings] == [False, True, False, False, False]
        assert gradings[1].reasons == ("internal error: ZeroDivisionError: by zero",)
        assert caplog.records[0].exc_info is not None
        with pytest.raises(ZeroDivisionError):
            grader.grade(photos[1])

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_a_photograph_that_fails_is_still_the_patients(self, grader: Grader, photos: list[Path], jobs: int) -> None:
        def read(*_: object, **__: object) -> Photo:
            raise MemoryError

        subject = Subject("P1", Eye.RIGHT, None)
        item = Input(photos[0], "a.png", reader=read, subject=subject, warnings=("date unknown: what",))
        (grading,) = grader.grade_many([item], jobs=jobs)
        assert (grading.status, grading.subject) == (Status.ERROR, subject)
        assert grading.reasons == ("not enough memory to grade it: grade fewer at once", "date unknown: what")

    @pytest.mark.parametrize("jobs", [0, -1])
    def test_no_jobs_is_a_usage_error_at_once(self, grader: Grader, jobs: int) -> None:
        with pytest.raises(UsageError, match="jobs must be 1 or more"):
            grader.grade_many([], jobs=jobs)


def test_load_takes_the_shipped_bundle_by_default(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.bundle.shipped_bundle", lambda: bundle)
    assert load().bundle.identity == load(str(bundle)).bundle.identity


def test_load_names_a_bundle_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx: there is no such file"):
        load(tmp_path / "absent.onnx")
