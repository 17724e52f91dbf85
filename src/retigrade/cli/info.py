"""`retigrade info`: what a bundle says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from retigrade.cli.command import Command


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """Say what a bundle is, what it learned from, how well it does, and what it may be used for."""

    bundle: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[BUNDLE]", help_behavior_hint="(default: as shipped)"),
    ] = None
    """The bundle's file."""

    schema: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Print the JSON Schema of gradings.jsonl and patients.jsonl instead."""

    def run(self) -> int:
        """Check the bundle and print its metadata."""
        if self.schema:
            import json
            import sys

            from retigrade.output.schema import json_schema

            sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
            return 0
        from rich.console import Console

        from retigrade.grader import load
        from retigrade.output.describe import describe

        bundle = load(self.bundle).bundle
        Console().print(describe(bundle.metadata, bundle=bundle.identity))
        return 0
