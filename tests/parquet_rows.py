"""What a run of many photographs wrote, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def rows_of(out: Path | str) -> list[dict[str, Any]]:
    """All rows of a run, by path."""
    import fsspec
    import pyarrow.parquet as pq

    system, root = fsspec.core.url_to_fs(str(out))
    rows: list[dict[str, Any]] = []
    for name in sorted(system.glob(f"{root}/*.parquet")):
        with system.open(name, "rb") as file:
            rows += pq.ParquetFile(file).read().to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))
