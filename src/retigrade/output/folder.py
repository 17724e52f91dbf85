"""The output folder of one run: gradings.csv, gradings.jsonl, report.html and the thermal pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from retigrade.files import Draft, make_folder, write_whole, writing
from retigrade.metadata import Metadata
from retigrade.output.illustrate import Illustrated
from retigrade.output.report import Report
from retigrade.output.rows import csv_header, csv_line, json_line

_HEAT = PurePosixPath("heat")


class OutputFolder:
    """Takes verdicts one by one; its three listings appear, whole, when `publish` is called, or else not at all."""

    def __init__(self, folder: Path, *, metadata: Metadata, bundle: str, operating_point: str | None = None) -> None:
        """Make the folder and open the listings; UsageError where it cannot be written, before anything is graded."""
        self.folder = folder
        self._drafts: list[Draft] = []
        make_folder(folder)
        try:
            self._csv = self._draft("gradings.csv")
            self._jsonl = self._draft("gradings.jsonl")
            self._report = Report(self.report_file, metadata=metadata, bundle=bundle, operating_point=operating_point)
        except BaseException:
            self._discard()
            raise
        self._csv.write(csv_header())

    @property
    def report_file(self) -> Path:
        """Where the report is written."""
        return self.folder / "report.html"

    def add(self, verdict: Illustrated, *, name: str) -> None:
        """Write one verdict; `name` is the input's own, a relative path that no other input has."""
        picture = _HEAT / f"{name}.png"
        if verdict.picture is None:
            self._remove_older(self.folder / picture)
        else:
            write_whole(self.folder / picture, verdict.picture)
        self._csv.write(csv_line(verdict.row))
        self._jsonl.write(json_line(verdict.row))
        self._report.add(verdict, picture=None if verdict.picture is None else picture)

    def publish(self, *, total: int, skipped: Sequence[str]) -> None:
        """Give the listings their names; `total` inputs there were, `skipped` says what was passed over and why."""
        for draft in self._drafts:
            draft.publish()
        self._report.publish(total=total, skipped=tuple(skipped))

    def close(self) -> None:
        """Remove the listings that were not published."""
        self._report.close()
        self._discard()

    def _draft(self, name: str) -> Draft:
        draft = Draft(self.folder / name)
        self._drafts.append(draft)
        return draft

    def _discard(self) -> None:
        for draft in self._drafts:
            draft.discard()

    @staticmethod
    def _remove_older(picture: Path) -> None:
        """Remove an earlier run's map of this input: beside the new listings it would pass for today's."""
        with writing(picture):
            picture.unlink(missing_ok=True)
