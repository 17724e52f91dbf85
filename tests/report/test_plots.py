import subprocess
import sys
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import reliability
from retigrade.report import plots as figures

SVG = "{http://www.w3.org/2000/svg}"


def scores(n=300):
    rng = np.random.default_rng(0)
    positive = rng.uniform(size=n) < 0.4
    return np.clip(rng.normal(0.35 + 0.3 * positive, 0.2), 0, 1), positive


def all_figures(format="svg"):
    rng = np.random.default_rng(0)
    score, positive = scores()
    one_kind = score, np.zeros_like(positive)
    confidence = rng.uniform(0.2, 1, 400)
    diagram = reliability(confidence, rng.uniform(size=400) < confidence)
    counts = rng.integers(0, 300, (5, 5))
    counts[3] = 0
    return {
        "confusion": figures.confusion_plot({f"fold {n}": counts for n in range(4)}, format=format),
        "referable": figures.referable_plot(
            {"honest": (score, positive), "empty": one_kind},
            points={"screening": metrics.at_threshold(score, positive, 0.4)},
            format=format,
        ),
        "reliability": figures.reliability_plot({"before": diagram, "after": diagram}, format=format),
        "counts": figures.counts_plot({"before": (1805, 370, 999, 193, 295), "after": (1805,) * 5}, format=format),
        "training": figures.training_plot(
            {"training": [1.2, 0.8, 0.6], "validation": [1.3, float("nan"), 0.9]},
            {"QWK": [0.6, 0.8, 0.75], "unmeasured": [float("nan")] * 3},
            format=format,
        ),
    }


@pytest.fixture(scope="module")
def drawn():
    return all_figures()


NAMES = ("confusion", "referable", "reliability", "counts", "training")


@pytest.mark.parametrize("name", NAMES)
def test_svg_is_sound_and_carries_no_date_or_address(drawn, name):
    root = ElementTree.fromstring(drawn[name])
    assert root.tag == f"{SVG}svg"
    assert len(list(root.iter(f"{SVG}path"))) > 10
    text = drawn[name].decode()
    assert "<dc:date>" not in text
    assert "matplotlib.org" not in text.lower()
    assert "<image" not in text
    assert len(text) < 250_000


@pytest.mark.slow
def test_the_same_bytes_again_and_in_another_process(drawn):
    assert all_figures() == drawn
    code = (
        "import sys; from retigrade.report.plots import counts_plot; "
        "sys.stdout.buffer.write(counts_plot({'before': (1805, 370, 999, 193, 295), 'after': (1805,) * 5}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert other.stdout == drawn["counts"]


def test_png_is_a_picture_of_light_ground():
    for data in all_figures("png").values():
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 300
        assert picture.mean() > 180
        assert picture.min() < 100


def test_settings_of_the_user_neither_show_nor_change(drawn):
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "black"}):
        before = dict(mpl.rcParams)
        again = figures.counts_plot({"before": (1805, 370, 999, 193, 295), "after": (1805,) * 5})
        assert dict(mpl.rcParams) == before
    assert again == drawn["counts"]


def test_pyplot_stays_unloaded():
    code = "import sys, retigrade.report.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figures_follow_their_numbers():
    assert figures.counts_plot({"a": (1, 2, 3, 4, 5)}) != figures.counts_plot({"a": (1, 2, 3, 4, 6)})
    assert figures.confusion_plot({"a": np.eye(5, dtype=int)}) != figures.confusion_plot({"b": np.eye(5, dtype=int)})


def test_little_to_draw_is_drawn_and_nothing_is_refused():
    assert figures.confusion_plot({"empty": np.zeros((5, 5), int)})
    assert figures.training_plot({"loss": [0.5]}, {})
    assert figures.reliability_plot({"one": reliability(np.array([0.9]), np.array([True]))})
    for call in (
        lambda: figures.confusion_plot({}),
        lambda: figures.referable_plot({}, points={}),
        lambda: figures.reliability_plot({}),
        lambda: figures.counts_plot({}),
        lambda: figures.training_plot({}, {}),
    ):
        with pytest.raises(ValueError, match="at least one"):
            call()
    with pytest.raises(ValueError, match="got \\(4, 4\\)"):
        figures.confusion_plot({"small": np.zeros((4, 4), int)})
