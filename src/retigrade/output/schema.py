"""The JSON Schema of what is written as JSON lines: gradings and the visits of patients (draft 2020-12)."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from retigrade.icdr import GRADES, Status
from retigrade.output import patients
from retigrade.output.patients import Action, EyeStatus
from retigrade.output.rows import Row

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_GRADE = {"type": "integer", "minimum": 0, "maximum": len(GRADES) - 1}


def json_schema() -> dict[str, Any]:
    """Return one schema that every line of gradings.jsonl and patients.jsonl satisfies: `$defs` has both."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Retigrade",
        "oneOf": [{"$ref": "#/$defs/grading"}, {"$ref": "#/$defs/visit"}],
        "$defs": {"grading": _grading(), "visit": _visit()},
    }


def _grading() -> dict[str, Any]:
    schema = TypeAdapter(Row).json_schema()
    properties = schema["properties"]
    for name in ("p0", "p1", "p2", "p3", "p4", "p_referable", "quality"):
        properties[name] = _or_null(_SHARE)
    properties["grade"] = _or_null(_GRADE)
    properties["stage"] = _or_null({"enum": [grade.stage for grade in GRADES]})
    properties["status"] = {"enum": [status.value for status in Status]}
    properties["eye"] = _or_null({"enum": ["right", "left"]})
    properties["date"] = _or_null({"type": "string", "format": "date"})
    properties["prediction_set"] = _or_null({"type": "array", "items": _GRADE, "minItems": 1})
    for name in ("schema", "version"):
        properties[name] = {"const": properties[name]["default"]}
    return {**schema, "title": "One photograph", "required": list(properties), "additionalProperties": False}


def _visit() -> dict[str, Any]:
    text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    eye_status = {"enum": [status.value for status in EyeStatus]}
    properties = {
        "patient": text,
        "date": _or_null({"type": "string", "format": "date"}),
        "right_status": eye_status,
        "right_grade": _or_null(_GRADE),
        "left_status": eye_status,
        "left_grade": _or_null(_GRADE),
        "worst_grade": _or_null(_GRADE),
        "p_referable": _or_null(_SHARE),
        "action": {"enum": [action.value for action in Action]},
        "second_reader": {"type": "boolean"},
        "reasons": texts,
        "files": texts,
        "schema": {"const": patients.SCHEMA},
        "version": {"const": patients.SCHEMA_VERSION},
    }
    return {
        "type": "object",
        "title": "One patient on one day",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}
