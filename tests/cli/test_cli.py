from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import cv2
import numpy as np
import pytest

import retigrade
from retigrade.cli import COMMANDS, main
from retigrade.cli.train import Train
from retigrade.output.rows import COLUMNS
from retigrade.synthetic import Phantom
from retigrade.training.recipe import RECIPES
from tiny_bundle import write_tiny_bundle

MakePhoto = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx")


@pytest.fixture
def photos(eye: Phantom, photo_path: MakePhoto) -> Path:
    """A folder with two eyes, one file that is none, and one that is not a picture."""
    folder = photo_path(eye, "photos/b.jpg").parent
    photo_path(eye, "photos/sub/a b.png")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("x")
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "retigrade", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_grade_writes_everything_and_names_what_it_skipped(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["grade", str(photos), "--bundle", str(bundle), "--out", str(out), "--format", "csv"]) == 1
    said = capsys.readouterr()
    found = rows(said.out)
    assert [row["path"] for row in found] == [str(photos / name) for name in ("b.jpg", "empty.jpg", "sub/a b.png")]
    assert [row["status"] for row in found] == ["graded", "error", "graded"]
    assert (out / "gradings.csv").read_text(encoding="utf-8") == said.out
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "gradings.csv",
        "gradings.jsonl",
        "report.html",
        "heat/b.jpg.png",
        "heat/sub/a b.png",
    }
    assert cv2.imread(str(out / "heat" / "b.jpg.png")).shape[1] == 1280
    assert "skipped 1 (not a picture file): notes.txt" in said.err
    assert "research use only, not a medical device" in said.err
    assert str(out / "report.html") in said.err


def test_the_command_and_python_agree(photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = photos / "b.jpg"
    assert main(["grade", str(photo), "--bundle", str(bundle), "--format", "jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said, grading = json.loads(line), retigrade.load(bundle).grade(photo)
    assert said == {**grading.to_dict(), "seconds": said["seconds"]}
    assert tuple(said)[: len(COLUMNS)] == COLUMNS
    assert grading.probabilities is not None
    np.testing.assert_allclose([said[f"p{n}"] for n in range(5)], grading.probabilities, atol=1e-8)
    assert (said["grade"], said["stage"], said["referable"]) == (grading.grade, grading.stage, grading.referable)
    assert (said["sha256"], said["bundle"]) == (grading.sha256, grading.bundle)


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_jobs_change_nothing_but_time(
    photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    main(["grade", str(photos), "--bundle", str(bundle), "--format", "csv", "--jobs", jobs])
    found = [(row["path"][-8:], row["status"], row["grade"]) for row in rows(capsys.readouterr().out)]
    main(["grade", str(photos), "--bundle", str(bundle), "--format", "csv"])
    assert found == [(row["path"][-8:], row["status"], row["grade"]) for row in rows(capsys.readouterr().out)]


def test_no_heat_writes_no_maps_but_the_rest(photos: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["grade", str(photos / "b.jpg"), "--bundle", str(bundle), "--out", str(out), "--no-heat"]) == 0
    assert {path.name for path in out.iterdir()} == {"gradings.csv", "gradings.jsonl", "report.html"}
    assert "data:image/jpeg" in (out / "report.html").read_text(encoding="utf-8")


def test_maps_are_not_graded_again(photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["grade", str(photos), "--bundle", str(bundle), "--out", str(photos / "out"), "--format", "csv"]
    main(arguments)
    first = [row["path"] for row in rows(capsys.readouterr().out)]
    main(arguments)
    assert [row["path"] for row in rows(capsys.readouterr().out)] == first


@pytest.mark.parametrize(
    "name", ["spaces in it.jpg", "two\nlines.jpg", "\u7db2\u819c.jpg", "x" * 196 + ".jpg", "a\udce9.jpg"], ids=ascii
)
def test_strange_names_keep_their_row_and_map(photos: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    strange, out = tmp_path / "strange" / name, tmp_path / "out"
    strange.parent.mkdir()
    shutil.copy(photos / "b.jpg", strange)
    assert main(["grade", str(strange), "--bundle", str(bundle), "--out", str(out)]) == 0
    (line,) = (out / "gradings.jsonl").read_text(encoding="ascii").splitlines()
    assert json.loads(line)["path"] == str(strange)
    (row,) = rows((out / "gradings.csv").read_text(encoding="utf-8"))
    assert row["path"] == str(strange).encode(errors="backslashreplace").decode()
    (picture,) = (out / "heat").iterdir()
    assert picture.name == f"{name}.png"


def test_equal_names_in_two_folders_get_two_maps(photos: Path, bundle: Path, tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        shutil.copy(photos / "b.jpg", tmp_path / side / "eye.jpg")
    eyes = [str(tmp_path / side / "eye.jpg") for side in ("left", "right")]
    assert main(["grade", *eyes, "--bundle", str(bundle), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "heat").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["grad", "x.jpg"], "did you mean grade?"),
        (["Info"], "did you mean info?"),
        (["xyz"], "there are grade, check"),
        (["grade"], "No photographs"),
        (["grade", "x.jpg", "--jobs", "0"], "--jobs must be 1 or more"),
        (["grade", "x.jpg", "--formt", "csv"], "--format"),
        (["grade", "x.jpg", "--format", "xml"], "invalid choice"),
        (["grade", "."], "No photographs"),
        (["grade", "x.jpg", "--out", "file"], "not a folder"),
        (["grade", "x.jpg", "--out", "file/below"], "Not a directory"),
        (["grade", "x.jpg", "--bundle", "missing.onnx"], "no such file"),
        (["grade", "x.jpg", "--bundle", "file"], "seal"),
        (["info", "file"], "seal"),
        ([], "Missing subcommand"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_altered_by_one_byte_is_refused(
    photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert main(["grade", str(photos), "--bundle", str(bundle)]) == 2
    assert "altered" in capsys.readouterr().err


def test_a_missing_photo_is_exit_code_1(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path / "gone.jpg"), "--bundle", str(bundle), "--format", "csv"]) == 1
    (row,) = rows(capsys.readouterr().out)
    assert (row["status"], row["reasons"]) == ("error", "gone.jpg: no such file")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with start("grade", tmp_path, "--debug") as process:
        _, said = process.communicate()
    assert process.returncode != 0
    assert "Traceback" in said
    assert "No photographs" in said


def test_info_says_what_the_bundle_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(bundle)]) == 0
    said = capsys.readouterr().out
    for fact in ("tiny@", "drawn 10", "0.500", "0.100", "the median", "screening", "Apache-2.0", "Tests."):
        assert fact in said


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_exit_code_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "usage: retigrade" in capsys.readouterr().out


def test_the_command_takes_every_recipe() -> None:
    assert get_args(get_type_hints(Train, include_extras=False)["recipe"]) == tuple(RECIPES)


def test_help_and_wrong_usage_import_no_heavy_package() -> None:
    script = (
        "import sys; from retigrade.cli import main\n"
        "codes = [main(['grade', '--help']), main(['grde']), main(['grade', 'x', '--jobs', '0'])]\n"
        "heavy = {'cv2', 'jinja2', 'numpy', 'onnxruntime', 'pydantic', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'{codes} {heavy}' if heavy or codes != [0, 2, 2] else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_grading_imports_no_torch(photos: Path, bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from retigrade.cli import main\n"
        f"code = main(['grade', {str(photos / 'b.jpg')!r}, '--bundle', {str(bundle)!r}, '--out', {str(tmp_path)!r}])\n"
        "sys.exit('torch' if {'torch', 'matplotlib'} & set(sys.modules) else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def many(photos: Path, tmp_path: Path) -> Path:
    """A folder of 40 eyes, all the same file."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        os.link(photos / "b.jpg", folder / f"{number:03}.jpg")
    return folder


def rows_of(out: Path) -> list[str]:
    return [Path(row["path"]).name for row in rows((out / "gradings.csv").read_text(encoding="utf-8"))]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_what_is_done_written_and_valid(
    many: Path, bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with start("grade", many, "--bundle", bundle, "--out", out, "--format", "csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        head = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        # Not by communicate(), which passes by the lines that readline() has read ahead.
        rest, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    done = rows("".join(head) + rest)
    assert 2 <= len(done) < 40
    assert f"interrupted: {len(done)} of 40 inputs have a verdict: {len(done)} graded" in said
    assert "--resume goes on" in said
    assert [row["path"] for row in done] == [str(many / f"{number:03}.jpg") for number in range(len(done))]
    assert rows((out / "gradings.csv").read_text(encoding="utf-8")) == done
    lines = (out / "gradings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == [row["path"] for row in done]
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"{len(done)} of 40 inputs were finished" in report
    assert report.rstrip().endswith("</html>")
    assert len(list((out / "heat").iterdir())) == len(done)
    assert not list(out.glob(".*"))


def test_a_killed_run_is_taken_up_where_it_was(many: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["grade", many, "--bundle", bundle, "--out", out, "--format", "csv", "--resume"]
    done = 0
    for lines in (6, 12):
        with start(*arguments) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
        journal = (out / ".retigrade" / "journal.jsonl").read_bytes()
        assert journal.count(b"\n") - 1 >= lines - 2 > done
        done = lines - 2
        assert files_below(out) == {name for name in files_below(out) if name.startswith(".retigrade/")}
    with start(*arguments) as process:
        said, noted = process.communicate()
    assert process.returncode == 0, noted
    assert int(noted.split(" verdicts of an earlier run were kept")[0].splitlines()[-1]) >= done
    names = [f"{number:03}.jpg" for number in range(40)]
    assert [Path(row["path"]).name for row in rows(said)] == rows_of(out) == names
    listings = {"gradings.csv", "gradings.jsonl", "report.html"}
    assert files_below(out) == listings | {f"heat/{name}.png" for name in names}
    assert (out / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") == 40


def test_an_interrupted_second_run_keeps_the_fuller_listings(many: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["grade", str(many), "--bundle", str(bundle), "--out", str(out), "--format", "csv"]) == 0
    before = (out / "gradings.csv").read_bytes()
    with start("grade", many, "--bundle", bundle, "--out", out, "--format", "csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130
    assert "still the earlier, fuller ones" in said
    assert (out / "gradings.csv").read_bytes() == before


def test_two_runs_into_one_folder_are_refused(many: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start("grade", many, "--bundle", bundle, "--out", out, "--format", "csv") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)  # so that it does not come to its end before the other begins
        with start("grade", many, "--bundle", bundle, "--out", out) as second:
            _, said = second.communicate()
        assert second.returncode == 2
        assert f"another run is writing into {out} (process {process.pid})" in said
        process.kill()
        process.stdout.read()


def test_resume_without_a_folder_is_wrong_usage(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(photos), "--resume"]) == 2
    assert "--out DIR" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_neither_the_work_nor_the_exit_code(
    photos: Path, bundle: Path, tmp_path: Path, closed: str
) -> None:
    out = tmp_path / "out"
    command = f'exec "$0" -m retigrade grade "$1" --bundle "$2" --out "$3" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(photos), str(bundle), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1  # one file is empty
    assert len(rows_of(out)) == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["tyro", "retigrade.cli.grade", "numpy", "onnxruntime", "retigrade.output.run"])
def test_an_interrupt_while_it_starts_ends_it_without_a_word(photos: Path, bundle: Path, module: str) -> None:
    script = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from retigrade.__main__ import main\n"
        f"sys.exit(main(['grade', {str(photos)!r}, '--bundle', {str(bundle)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout == ""
    assert all(line.startswith("skipped ") for line in done.stderr.splitlines())


@pytest.mark.slow
def test_names_cannot_speak_to_the_terminal(photos: Path, bundle: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07=cmd.jpg"
    shutil.copy(photos / "b.jpg", photos / evil)
    (photos / "\x1b[31mnotes.txt").write_text("x")
    out = tmp_path / "out"
    for form in ("table", "csv", "jsonl"):
        with start("grade", photos, "--bundle", bundle, "--out", out, "--format", form) as process:
            said, noted = process.communicate()
        assert "\x1b" not in said + noted
        assert "\x07" not in said + noted
    for name in ("gradings.csv", "gradings.jsonl", "report.html"):
        assert b"\x1b" not in (out / name).read_bytes()


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"retigrade {retigrade.__version__}\n"


def test_the_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    said = capsys.readouterr().out
    assert all(code in said for code in ("0,", "1,", "2,", "130", "141"))


def test_a_reader_that_leaves_is_no_error(photos: Path, bundle: Path, tmp_path: Path) -> None:
    with start("grade", *[photos / "b.jpg"] * 50, "--bundle", bundle, "--format", "csv") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("path,")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_reader_that_leaves_before_the_end_of_a_list(photos: Path) -> None:
    with start("grade", *[photos / "b.jpg"] * 5000, "--dry-run") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "error" not in said
    assert process.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_does_not_stop_the_files(
    photos: Path, bundle: Path, tmp_path: Path, unbuffered: str
) -> None:
    out, environment = tmp_path / "out", {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with start("grade", *[photos / "b.jpg"] * 5, "--bundle", bundle, "--out", out, env=environment) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0
    assert len(rows((out / "gradings.csv").read_text(encoding="utf-8"))) == 5


def test_a_full_disk_is_one_sentence(photos: Path, bundle: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "retigrade", "grade", str(photos / "b.jpg"), "--bundle", str(bundle)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "retigrade: cannot write to standard output: No space left on device\n"


def test_a_pipe_in_the_folder_does_not_hang(photos: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(photos / "pipe.jpg")
    started = time.monotonic()
    assert main(["grade", str(photos), "--bundle", str(bundle), "--format", "csv"]) == 1
    assert time.monotonic() - started < 20
    statuses = {Path(row["path"]).name: row["status"] for row in rows(capsys.readouterr().out)}
    assert statuses["pipe.jpg"] == "error"
    assert statuses["b.jpg"] == "graded"


def test_a_photograph_listed_for_two_patients_is_of_neither(
    photos: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = tmp_path / "list.csv"
    path = photos / "b.jpg"
    listing.write_text(f"path,patient,eye\n{path},P1,right\n{path},P2,right\n")
    assert main(["grade", str(listing), "--bundle", str(bundle), "--format", "jsonl"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["error", "error"]
    assert "is listed for the patients P1 and P2" in rows[0]["reasons"][0]
    assert rows[0]["patient"] is None


def test_a_dry_run_lists_whose_eyes_the_names_speak_of(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    folder = tmp_path / "clinic"
    folder.mkdir()
    for name in ("10_left.jpg", "10_right.jpg", "other.jpg"):
        shutil.copy(photos / "b.jpg", folder / name)
    assert main(["grade", str(folder), "--name-pattern", "eyepacs", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "path,patient,eye,date",
        f"{folder / '10_left.jpg'},10,left,",
        f"{folder / '10_right.jpg'},10,right,",
        f"{folder / 'other.jpg'},,,",
    ]
    assert "1 patients; 0 of their photographs of an unknown eye; 1 of nobody known" in said.err


def test_patients_get_a_worklist_and_pseudonyms(photos: Path, bundle: Path, tmp_path: Path) -> None:
    listing, key, out = tmp_path / "list.csv", tmp_path / "key", tmp_path / "out"
    key.write_bytes(b"0123456789abcdef")
    eyes = (photos / "b.jpg", photos / "sub" / "a b.png")
    lines = [f"{path},Ada Lovelace,{eye},2024-05-02" for path, eye in zip(eyes, ("R", "OS"), strict=True)]
    listing.write_text("\n".join(["path,patient,eye,date", *lines]))
    arguments = ["grade", str(listing), "--bundle", str(bundle), "--pseudonym", str(key), "--out", str(out)]
    assert main(arguments) == 0
    (visit,) = csv.DictReader((out / "patients.csv").read_text().splitlines())
    assert (visit["date"], visit["right_status"], visit["left_status"]) == ("2024-05-02", "graded", "graded")
    assert visit["files"] == ";".join(map(str, eyes))
    for name in ("patients.csv", "patients.jsonl", "gradings.jsonl", "report.html"):
        assert "Lovelace" not in (out / name).read_text()
