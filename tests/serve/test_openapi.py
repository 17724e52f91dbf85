"""Schemathesis over the whole OpenAPI document: whatever is sent, the answer is one that the document promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("schemathesis", reason="Schemathesis is not installed")

import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import checks

from retigrade.grader import Grader
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig
from retigrade.serve.security import new_token

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

_EXAMPLES = int(os.environ.get("RETIGRADE_EXAMPLES", "30"))  # of each operation
_UNSAID = {"positive_data_acceptance", "negative_data_rejection"}
"""Not judged: the document cannot say that a text holds no control character, or that a date is not in the future."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, grader: Grader, photograph: bytes) -> Iterator[tuple[Any, str]]:
    """A server with a token and a grading of a patient, and the token."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    token = new_token(folder / "tokens", "tester", "admin")
    config = ServeConfig(
        database=f"sqlite:///{folder / 'record.db'}", jobs=1, token_file=folder / "tokens", upload_seconds=5
    )
    app = create_app(config, grader=grader)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
    with TestClient(app) as client:
        answer = client.post("/v1/gradings?patient=P001&eye=right", content=photograph, headers=headers)
        assert answer.status_code == 201
        yield app, token


def test_every_answer_is_one_that_the_document_promises(served: tuple[Any, str]) -> None:
    app, token = served
    excluded = [checks.CHECKS.get_one(name) for name in _UNSAID]
    operations = [result.ok() for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=excluded)

        send()
