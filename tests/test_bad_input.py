"""Whatever it is pointed at, the command gives each input one verdict and one sentence, and harms no other."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retigrade.bundle import reseal
from retigrade.cli import main
from retigrade.icdr import Grade
from retigrade.input_names import picture_name
from retigrade.output.rows import COLUMNS
from retigrade.synthetic import Phantom, draw_eye
from tiny_bundle import tiny_card, tiny_model

Image = npt.NDArray[np.uint8]
Row = dict[str, str]

SIZE = 224
TIMEOUT = 300  # seconds; only what hangs comes near it
ANSWERS = ("grade", "stage", "p0", "p1", "p2", "p3", "p4", "p_referable", "referable")
GOOD = ("a good eye.png", "z good eye.jpg")
NO_VERDICT = ("not_fundus", "ungradable")


def encoded(pixels: Image, suffix: str = ".png") -> bytes:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
    assert done
    return data.tobytes()


def png_bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def flat(*colour: int) -> Image:
    return np.full((300, 400, 3), colour, np.uint8)


def on_a_disc(pixels: Image) -> Image:
    height, width = pixels.shape[:2]
    y, x = np.ogrid[-height / 2 : height / 2, -width / 2 : width / 2]
    return pixels * (np.hypot(x, y) < 0.48 * height)[..., None].astype(np.uint8)


def everyday() -> Image:
    """Sky, a meadow, a red house with windows, and a sun."""
    ramp = np.linspace(0, 1, 300)[:, None, None]
    scene = (np.array([90, 150, 235]) * (1 - ramp) + np.array([225, 235, 245]) * ramp).repeat(400, axis=1)
    scene[190:] = np.array([60, 140, 50]) + np.random.default_rng(0).normal(0, 18, (110, 400, 1))
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    cv2.rectangle(picture, (130, 110), (270, 230), (170, 60, 45), -1)
    cv2.fillPoly(picture, [np.array([[115, 112], [200, 50], [285, 112]])], (90, 60, 50))
    for left in (150, 185, 220):
        cv2.rectangle(picture, (left, 135), (left + 22, 165), (240, 235, 200), -1)
    cv2.circle(picture, (340, 50), 26, (255, 240, 150), -1)
    return picture


def oct_slice() -> Image:
    """Bright layers that dip at the fovea, in speckle."""
    rng = np.random.default_rng(1)
    depth = np.arange(300)[:, None] - 30 * np.exp(-(((np.arange(400) - 200) / 45) ** 2))[None]
    layers = sum(np.exp(-(((depth - at) / wide) ** 2)) * light for at, wide, light in
                 ((110, 9, 0.8), (140, 7, 0.4), (165, 6, 0.5), (190, 8, 1.0)))  # fmt: skip
    grey = np.clip((0.08 + layers) * rng.gamma(4, 0.25, (300, 400)) * 190, 0, 255).astype(np.uint8)
    return grey[..., None].repeat(3, axis=2)


NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)

UNREADABLE: Mapping[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"Dear doctor,\nplease find enclosed nothing.\n", "not a picture"),
    "page.png": (b"<!doctype html><title>404</title>", "not a picture"),
    "bomb.png": (png_bomb(), "60000 x 60000 pixels"),
    "one pixel.png": (encoded(np.zeros((1, 1, 3), np.uint8)), "1 x 1 pixels are too few"),
    "zeros.tif": (bytes(4096), "not a picture"),
}
UNGRADED: Mapping[str, Image] = {
    "black.png": flat(0, 0, 0),
    "white.png": flat(255, 255, 255),
    "orange.png": flat(220, 110, 40),
    "orange disc.png": on_a_disc(flat(220, 110, 40)),
    "noise.png": NOISE,
    "noise disc.png": on_a_disc(NOISE),
    "house.png": everyday(),
    "house disc.png": on_a_disc(everyday()),
    "oct.png": oct_slice(),
    "oct disc.png": on_a_disc(oct_slice()),
}


@dataclass(frozen=True)
class Run:
    """What one run of the command left: exit code, rows by file name, what it said, and its output folder."""

    code: int
    rows: dict[str, Row]
    names: list[str]
    said: str
    out: Path
    folder: Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network that sees what the shipped one sees, so that the gate sees it too."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.onnx"
    path.write_bytes(reseal(tiny_model(size=SIZE), tiny_card(input_size=SIZE)))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, eye: Phantom, bundle: Path) -> Run:
    """Grade, as a process of its own, a folder that has every kind of bad input between two good eyes."""
    folder, out = tmp_path_factory.mktemp("bad"), tmp_path_factory.mktemp("out") / "new"
    good = encoded(eye.pixels)
    (folder / GOOD[0]).write_bytes(good)
    (folder / GOOD[1]).write_bytes(encoded(eye.pixels, ".jpg"))
    (folder / "truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "truncated.jpg").write_bytes(encoded(eye.pixels, ".jpg")[:5000])
    (folder / "grey.png").write_bytes(encoded(eye.pixels[..., 1:2].repeat(3, axis=2)))
    for name, (data, _) in UNREADABLE.items():
        (folder / name).write_bytes(data)
    for name, pixels in UNGRADED.items():
        (folder / name).write_bytes(encoded(pixels))
    (folder / "dangling.jpg").symlink_to("gone.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "below").mkdir()
    (folder / "below" / "around").symlink_to("..")
    (folder / "below" / GOOD[0]).write_bytes(good)
    (folder / "notes.txt").write_text("none of yours")
    os.mkfifo(folder / "fifo.jpg")
    before = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)  # a socket's whole path may have about a hundred bytes
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(before)
        command = [sys.executable, "-m", "retigrade", "grade", str(folder), "--bundle", str(bundle)]
        done = subprocess.run(
            [*command, "--out", str(out), "--format", "csv"],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    found = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    names = [str(Path(row["path"]).relative_to(folder)) for row in found]
    return Run(done.returncode, dict(zip(names, found, strict=True)), names, done.stderr, out, folder)


def check_sentence(row: Row) -> str:
    """Return the reason of a row without a grade: one line, for people."""
    assert not any(row[column] for column in ANSWERS)
    reason = row["reasons"]
    assert reason
    assert reason.isprintable()
    for technical in ("Traceback", "internal error", "Error:", "Exception", "cv2.", "0x"):
        assert technical not in reason
    return reason


class TestEveryKindInOneFolder:
    def test_exit_code_1_and_no_traceback(self, run: Run) -> None:
        assert run.code == 1
        assert "Traceback" not in run.said
        assert "defect" not in run.said

    def test_one_row_for_every_input_in_order(self, run: Run) -> None:
        passed_over = {"notes.txt"}
        files = {
            path.relative_to(run.folder).as_posix()
            for path in run.folder.rglob("*")
            if not path.is_dir() and "around" not in path.parts
        }
        assert sorted(run.names) == sorted(files - passed_over)
        assert run.names == sorted(run.names)
        assert "(not a picture file): notes.txt" in run.said
        assert "(the same folder as " in run.said

    @pytest.mark.parametrize("name", [*GOOD, f"below/{GOOD[0]}"])
    def test_a_good_eye_among_them_is_graded(self, run: Run, name: str) -> None:
        row = run.rows[name]
        assert row["status"] == "graded"
        assert all(row[column] for column in ANSWERS)
        assert (run.out / picture_name(name)).is_file()

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_what_cannot_be_read_is_an_error_that_says_why(self, run: Run, name: str) -> None:
        row = run.rows[name]
        assert row["status"] == "error"
        assert UNREADABLE[name][1] in check_sentence(row)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("truncated.png", "cut short"),
            ("truncated.jpg", "part of the JPEG is missing"),
            ("fifo.jpg", "a named pipe"),
            ("socket.jpg", "a socket"),
            ("dangling.jpg", "a link to a file that is missing"),
            ("loop.jpg", "a link that leads back to itself"),
        ],
    )
    def test_nothing_is_waited_for_or_guessed(self, run: Run, name: str, words: str) -> None:
        row = run.rows[name]
        assert row["status"] == "error"
        assert words in check_sentence(row)

    @pytest.mark.parametrize("name", [*UNGRADED, "grey.png"])
    def test_what_is_no_colour_photograph_of_an_eye_gets_no_grade(self, run: Run, name: str) -> None:
        row = run.rows[name]
        assert row["status"] in NO_VERDICT
        assert row["sha256"]
        check_sentence(row)
        assert not (run.out / "heat" / f"{name}.png").exists()

    def test_the_listings_are_whole_and_agree(self, run: Run) -> None:
        with (run.out / "gradings.csv").open(encoding="utf-8", newline="") as file:
            listed = list(csv.DictReader(file))
        lines = [json.loads(line) for line in (run.out / "gradings.jsonl").read_text("utf-8").splitlines()]
        assert tuple(listed[0]) == COLUMNS
        assert [row["path"] for row in listed] == [line["path"] for line in lines]
        assert listed == list(run.rows.values())
        assert [row["status"] for row in listed] == [line["status"] for line in lines]

    def test_the_report_has_a_row_for_every_input(self, run: Run) -> None:
        report = (run.out / "report.html").read_text("utf-8")
        assert report.rstrip().endswith("</html>")
        for name in run.names:
            assert Path(name).name in report

    def test_nothing_half_written_is_left(self, run: Run) -> None:
        assert {path.name for path in run.out.iterdir()} == {"gradings.csv", "gradings.jsonl", "report.html", "heat"}
        assert len([path for path in run.out.rglob("*.png") if path.is_file()]) == 3


def grade(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[Row], str]:
    code = main(["grade", *map(str, arguments), "--format", "csv"])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, list(csv.DictReader(io.StringIO(said.out, newline=""))), said.err


@pytest.fixture
def photos(tmp_path: Path, eye: Phantom, photo_path: Callable[..., Path]) -> Path:
    """A folder of one good eye."""
    return photo_path(eye, "photos/eye.png").parent


def test_a_file_that_may_not_be_read(
    photos: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = photos / "locked.png"
    shutil.copy(photos / "eye.png", locked)
    locked.chmod(0)
    opened = os.open

    def refuse(path: str | Path, *arguments: int, **options: int) -> int:  # root may read everything
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    code, found, _ = grade(capsys, photos, "--bundle", bundle)
    assert code == 1
    assert [row["status"] for row in found] == ["graded", "error"]
    assert check_sentence(found[1]) == "locked.png: no permission to read it"


def test_verdicts_without_errors_are_exit_code_0(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("black.png", "house disc.png"):
        (tmp_path / name).write_bytes(encoded(UNGRADED[name]))
    code, found, _ = grade(capsys, tmp_path, "--bundle", bundle)
    assert code == 0
    assert {row["status"] for row in found} <= set(NO_VERDICT)


def test_one_photo_given_twice_has_two_rows(photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = grade(capsys, photos / "eye.png", photos / "eye.png", "--bundle", bundle)
    assert code == 0
    assert [row["path"] for row in found] == [str(photos / "eye.png")] * 2


def test_the_folder_of_photographs_as_output_folder(
    photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        code, found, _ = grade(capsys, photos, "--bundle", bundle, "--out", photos)
        assert code == 0
        assert [row["path"] for row in found] == [str(photos / "eye.png")]


@pytest.mark.parametrize("name", ["gradings.csv", "report.html"])
def test_an_output_folder_that_cannot_be_written(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    code, _, said = grade(capsys, photos, "--bundle", bundle, "--out", out)
    assert code == 2
    (sentence,) = [line for line in said.splitlines() if line.startswith("retigrade: ")]
    assert name in sentence
    assert "defect" not in sentence
    assert not [path for path in out.rglob("*") if path.is_file() and path.name.startswith(".")]


def test_a_file_where_the_maps_should_lie_costs_the_rows_that_need_it(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "heat").write_text("a file of that name")
    code, rows, _ = grade(capsys, photos, "--bundle", bundle, "--out", out)
    assert code == 1
    assert {row["status"] for row in rows} == {"error"}
    assert all("heat" in row["reasons"] for row in rows)


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_a_bundle_cut_short(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: float
) -> None:
    data = bundle.read_bytes()
    short = tmp_path / "short.onnx"
    short.write_bytes(data[: int(part * len(data))])
    code, found, said = grade(capsys, photos, "--bundle", short, "--out", tmp_path / "out")
    assert (code, found) == (2, [])
    assert len(said.splitlines()) == 1
    assert "short.onnx" in said


def test_a_bundle_altered_by_one_byte_anywhere(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bundle.read_bytes()
    altered = tmp_path / "altered.onnx"
    for at in np.linspace(0, len(data) - 1, 25).astype(int):
        altered.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        code, found, said = grade(capsys, photos, "--bundle", altered)
        assert (code, found) == (2, []), at
        assert len(said.splitlines()) == 1, said


@pytest.mark.parametrize("grade_drawn", [Grade.NONE, Grade.SEVERE])
def test_an_eye_without_colour_gets_no_grade(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], grade_drawn: Grade
) -> None:
    phantom = draw_eye(grade=grade_drawn, size=320, aspect=1.5, rng=np.random.default_rng(3))
    ok, data = cv2.imencode(".jpg", phantom.pixels[..., 1])
    assert ok
    (tmp_path / "grey.jpg").write_bytes(data.tobytes())
    code, (row,), _ = grade(capsys, tmp_path, "--bundle", bundle)
    assert code == 0
    assert row["status"] in NO_VERDICT
    check_sentence(row)


@pytest.mark.slow
def test_real_pictures_of_other_things_get_no_grade(
    real_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_data / "not_fundus"
    if not folder.is_dir():
        pytest.skip(f"no pictures in {folder}")
    code, found, _ = grade(capsys, folder, "--bundle", bundle, "--no-heat")
    assert code == 0
    assert len(found) == len([path for path in folder.rglob("*") if path.is_file()])
    for row in found:
        assert row["status"] in NO_VERDICT, row["path"]
        check_sentence(row)
