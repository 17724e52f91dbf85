"""What MkDocs asks while it builds: pages made from the program, and a navigation of the pages that exist."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_log = logging.getLogger("mkdocs.hooks.retigrade")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what neither lies in docs/ nor is made here."""
    known = {
        path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*") if path.is_file()
    }
    config.nav = _existing(config.nav, known | set(_made()))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the program."""
    for address, text in _made().items():
        files.append(File.generated(config, address, content=text))
    return files


_cache: dict[str, str] = {}


def _made() -> dict[str, str]:
    if not _cache:
        _cache.update(
            {
                "reference/cli.md": command_line(),
                "reference/schema.md": schema(),
                "reference/bundle.md": bundle(),
                "model-card.md": (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8"),
                "contributing.md": _from_root("CONTRIBUTING.md"),
                "changelog.md": _from_root("CHANGELOG.md"),
            }
        )
    return _cache


def _from_root(name: str) -> str:
    """A page at the repository's root, whose links into docs/ become links beside it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", text)


def _existing(nav: Any, known: set[str]) -> Any:
    """The navigation, without pages that are not known and without what is empty then."""
    if isinstance(nav, str):
        return nav if nav in known or "://" in nav else None
    if isinstance(nav, dict):
        kept = {title: _existing(below, known) for title, below in nav.items()}
        return {title: below for title, below in kept.items() if below} or None
    return [below for each in nav if (below := _existing(each, known))]


def command_line() -> str:
    """Every command's own help."""
    from retigrade.cli import COMMANDS, main

    lines = ["# Command line", "", "What `retigrade COMMAND --help` prints.", ""]
    for name in COMMANDS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), _wide():
            main([name, "--help"])
        lines += [f"## {name}", "", "```text", _plain(printed.getvalue()), "```", ""]
    return "\n".join(lines)


@contextlib.contextmanager
def _wide() -> Any:
    """A terminal of 100 columns without colours."""
    import os

    before = {key: os.environ.get(key) for key in ("COLUMNS", "NO_COLOR", "TERM")}
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _plain(text: str) -> str:
    lines = (line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines())
    return "\n".join("\n".join(textwrap.wrap(line, 100)) if len(line) > 100 else line for line in lines)


def schema() -> str:
    """The JSON Schema of the JSON lines, and its fields as tables."""
    from retigrade.output.schema import json_schema

    whole = json_schema()
    lines = [
        "# JSON Schema of the JSON lines",
        "",
        "Lines of `gradings.jsonl` (`grading`) and `patients.jsonl` (`visit`); `retigrade info --schema` prints it.",
        "",
    ]
    for name, part in whole["$defs"].items():
        lines += [f"## {name}", "", "| key | type |", "|---|---|"]
        lines += [f"| `{key}` | {_type(value)} |" for key, value in part["properties"].items()] + [""]
    return "\n".join([*lines, "## The whole", "", "```json", json.dumps(whole, indent=1), "```", ""])


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(map(_type, value["anyOf"]))
    if "$ref" in value:
        return f"`{value['$ref'].rpartition('/')[2]}`"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}" if "items" in value else "list"
    span = [value.get("minimum"), value.get("maximum")]
    limits = "" if span == [None, None] else f", {span[0]} to {span[1]}" if span[1] is not None else f", from {span[0]}"
    return f"{value.get('type', 'anything')}{limits}"


def bundle() -> str:
    """The bundle's file format: a text, and the fields of its metadata from their classes."""
    from retigrade import metadata as records
    from retigrade.onnx_file import OPERATORS

    text = (ROOT / "docs" / "reference" / "bundle.md.in").read_text(encoding="utf-8")
    tables = []
    for record in (records.Metadata, records.Training, records.Figure, records.OutOfDistributionDetector):
        about = "\n\n".join(" ".join(part.split()) for part in (record.__doc__ or "").split("\n\n"))
        tables += [f"### {record.__name__}", "", about, "", "| key | type |", "|---|---|"]
        properties = record.model_json_schema()["properties"]
        tables += [f"| `{key}` | {_type(value)} |" for key, value in properties.items()] + [""]
    return text.replace("{{metadata}}", "\n".join(tables)).replace("{{operators}}", ", ".join(sorted(OPERATORS)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print a page that is made from the program.")
    parser.add_argument("page", choices=sorted(_made()))
    print(_made()[parser.parse_args().page])
