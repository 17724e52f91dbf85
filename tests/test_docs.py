"""The documentation: every snippet runs, every link within the repository leads somewhere, and the site builds.

A fence of the language `bash` is commands, `python` a script, `pycon` a session with its output; each page's run in
order, in one folder of drawn eyes. A fence `sh` is not run, and a comment before it says why.
"""

from __future__ import annotations

import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retigrade.cli import main
from retigrade.synthetic import write_eyes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OTHER_DOORS = {"benchmarks.md", "dicom.md", "programme.md", "scale.md", "serve.md"}
"""Pages whose commands need servers, clusters or other photographs: the tests of their rooms run what they show."""
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if path.parent.name not in ("bundle", "reproduction") and path.name not in OTHER_DOORS
)
AT_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S[^\n]*-->\s*$")
TRAINS = re.compile(r"^(retigrade (train|ensemble|paper)|bundle = retigrade\.train)", re.MULTILINE)
LANGUAGES = {"bash", "python", "pycon", "sh", "text", "json", "yaml", "ini"}


def snippets(page: Path) -> Iterator[tuple[str, str, str]]:
    """Each fence's language and text, and what stands before it."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        indent, language, body = fence.groups()
        yield (
            language,
            "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)),
            text[: fence.start()],
        )


def marked(page: Path) -> object:
    """A page that trains is a slow one."""
    name = page.relative_to(ROOT).as_posix()
    return pytest.param(
        page, id=name, marks=[pytest.mark.slow] if TRAINS.search(page.read_text(encoding="utf-8")) else []
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three built-in eyes in `eyes`, as the first page draws them."""
    folder = tmp_path_factory.mktemp("docs")
    write_eyes(folder / "eyes")
    return folder


def run_commands(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "retigrade":
            assert main(words[1:]) == 0, line
        elif words[:3] == ["python", "-m", "retigrade.synthetic"]:
            before, sys.argv = sys.argv, words[2:]
            try:
                runpy.run_module("retigrade.synthetic", run_name="__main__")
            finally:
                sys.argv = before
        else:
            pytest.fail(f"{line!r} is not run by this test: use another language than bash and say why")


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_every_snippet_of_a_page_runs(page: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(snippets(page))
    if not any(language in ("bash", "python", "pycon") for language, _, _ in found):
        pytest.skip("the page has no snippet to run")
    shutil.copytree(drawn / "eyes", tmp_path / "eyes")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text, _ in found:
        if language == "bash":
            run_commands(text)
        elif language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
            failed, _ = doctest.DocTestRunner().run(test, clear_globs=False)
            assert failed == 0
            names.update(test.globs)


@pytest.mark.parametrize("page", [*PAGES, *AT_ROOT], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_not_run_says_why(page: Path) -> None:
    for language, text, before in snippets(page):
        assert language in LANGUAGES, f"unknown language {language}"
        assert language != "sh" or NOT_RUN.search(before), f"no reason why this is not run:\n{text}"


@pytest.mark.parametrize(
    "page", [*DOCS.rglob("*.md"), *AT_ROOT, ROOT / "MODEL_CARD.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_link_within_the_repository_leads_to_a_file(page: Path) -> None:
    made = {DOCS / name for name in ("model-card.md", "contributing.md", "changelog.md")}
    made |= {DOCS / "reference" / name for name in ("cli.md", "schema.md", "bundle.md")}
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in address and not address.startswith(("#", "mailto:")):
            target = Path(os.path.normpath(page.parent / address.partition("#")[0]))
            assert target.exists() or target in made, f"{address} leads nowhere"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("verdict" in str(cell.get("outputs")) for cell in notebook.cells)


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "cli.html").exists()
