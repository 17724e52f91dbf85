"""The columns of a part: those of a grading's JSON Schema, what is known of the file, and the thermal picture."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa

from retigrade.output.schema import json_schema

Heat = Literal["none", "bytes", "files"]
"""What becomes of the thermal pictures: nothing, JPEG in the column `heat`, or files that this column names."""

_TYPES = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
_OF_VALUES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


@lru_cache
def arrow_schema(heat: Heat) -> pa.Schema:
    """Return the schema of the parts, made of `retigrade.output.schema.json_schema`.

    size, etag: of the file, as its store lists it; with the path they say which bytes a row tells of.
    """
    properties: dict[str, Any] = json_schema()["$defs"]["grading"]["properties"]
    fields = [pa.field(name, *_type(schema)) for name, schema in properties.items()]
    fields += [pa.field("size", pa.int64()), pa.field("etag", pa.string())]
    if heat != "none":
        fields.append(pa.field("heat", pa.binary() if heat == "bytes" else pa.string()))
    return pa.schema(fields)


def _type(schema: dict[str, Any]) -> tuple[pa.DataType, bool]:
    """The Arrow type of a JSON Schema of one value, and whether it may be null."""
    if "anyOf" in schema:
        others = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        if len(others) != 1:
            raise ValueError(f"a column has one type, got {schema}")
        return _type(others[0])[0], True
    if "const" in schema:
        return _OF_VALUES[type(schema["const"])], False
    if "enum" in schema:
        return _OF_VALUES[type(schema["enum"][0])], False
    if schema["type"] == "array":
        return pa.list_(pa.field("item", _type(schema["items"])[0])), False
    return _TYPES[schema["type"]], False
