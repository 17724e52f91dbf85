"""Whose eye a photograph shows: eyes and dates as people write them, names of files read by a pattern, pseudonyms.

Nothing is guessed: a word that names no eye and a date that can be read in two ways are errors that say so.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from retigrade.errors import UsageError
from retigrade.grading import Eye, Subject

EYES = {
    **dict.fromkeys(("right", "r", "od", "re"), Eye.RIGHT),
    **dict.fromkeys(("left", "l", "os", "le"), Eye.LEFT),
}
"""What people call either eye, in lower case."""

_EYE_WORDS = "|".join(sorted(EYES, key=len, reverse=True))
_DATE = r"(?P<date>\d{4}-?\d{2}-?\d{2})"
PATTERNS = {
    "eyepacs": r"(?P<patient>.+)_(?P<eye>left|right)",
    "patient-eye": rf"(?P<patient>.+?)[_ -](?P<eye>{_EYE_WORDS})(?:[_ -]\d{{1,2}})?",
    "patient-eye-date": rf"(?P<patient>.+?)[_ ](?P<eye>{_EYE_WORDS})[_ ]{_DATE}(?:[_ -]\d{{1,2}})?",
    "patient-date-eye": rf"(?P<patient>.+?)[_ ]{_DATE}[_ ](?P<eye>{_EYE_WORDS})(?:[_ -]\d{{1,2}})?",
}
"""Ready-made patterns by name: `10_left`, `P001_OD`, `P001_OD_2024-05-02`, `P001_2024-05-02_OD`, with a number."""

UNKNOWN = {"eye": "eye unknown: ", "date": "date unknown: "}
"""How a note begins that says why an eye or a date that was stated is not known."""

_GROUPS = {"patient", "eye", "date"}
_YEAR_FIRST = re.compile(r"(\d{4})([-/.]?)(\d{2})\2(\d{2})(?:[T ]\d{2}:\d{2}.*)?")
_YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
_NAMED_MONTH = ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y", "%Y %b %d")
_PSEUDONYM_DIGITS = 16
_MOST_NAMES = 0.9


def parse_eye(text: str) -> Eye | None:
    """Return the eye that a word names in either case, None for an empty one.

    Raises ValueError for a word that names no eye.

    >>> parse_eye("OD").value, parse_eye(" Left ").value, parse_eye("")
    ('right', 'left', None)
    """
    word = text.strip().casefold()
    if not word:
        return None
    if word not in EYES:
        raise ValueError(f"eye {text.strip()!r} is neither right (R, OD, RE) nor left (L, OS, LE)")
    return EYES[word]


def parse_date(text: str) -> datetime.date | None:
    """Return the day that a text names, None for an empty one.

    Year first, a month by its name, or day and month in either order where only one order can be meant.
    Raises ValueError for a date that does not exist, can be read in two ways, or is in another form.

    >>> parse_date("2 May 2024").isoformat(), parse_date("25/04/2024").isoformat()
    ('2024-05-02', '2024-04-25')
    >>> parse_date("03/04/2024")
    Traceback (most recent call last):
    ValueError: date '03/04/2024' can be read with the day or the month first; write 2024-MM-DD
    """
    text = text.strip()
    if not text:
        return None
    if year_first := _YEAR_FIRST.fullmatch(text):
        return _day(text, year_first[1], year_first[3], year_first[4])
    if year_last := _YEAR_LAST.fullmatch(text):
        first, second, year = year_last.groups()
        if int(first) > 12 or first == second:
            return _day(text, year, second, first)
        if int(second) > 12:
            return _day(text, year, first, second)
        raise ValueError(f"date {text!r} can be read with the day or the month first; write {year}-MM-DD")
    for form in _NAMED_MONTH:
        try:
            return datetime.datetime.strptime(text.replace(",", ""), form).date()
        except ValueError:
            continue
    raise ValueError(f"date {text!r} is in no form that is read; write YYYY-MM-DD")


def _day(text: str, year: str, month: str, day: str) -> datetime.date:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        raise ValueError(f"date {text!r} does not exist") from None


@dataclass(frozen=True, slots=True)
class NamePattern:
    """Reads patient, eye and date from the name of a file, without its suffix."""

    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> NamePattern:
        """Return a ready-made pattern by its name, or a regular expression with groups named patient, eye, date.

        Raises UsageError where it is neither, or has no group `patient`.
        """
        names = ", ".join(PATTERNS)
        try:
            expression = re.compile(PATTERNS.get(text, text), re.IGNORECASE)
        except re.error as problem:
            raise UsageError(
                f"the name pattern {text!r} is no regular expression ({problem}); ready-made ones are {names}"
            ) from None
        groups = set(expression.groupindex)
        if "patient" not in groups or groups - _GROUPS:
            raise UsageError(
                f"the name pattern {text!r} needs a group (?P<patient>...) and may have (?P<eye>...) and "
                f"(?P<date>...); it has {', '.join(sorted(groups)) or 'none'}; ready-made ones are {names}"
            )
        return cls(expression)

    def subject(self, path: PurePath) -> tuple[Subject, dict[str, str]] | None:
        """Return whom a file's name speaks of, and why its eye or date cannot be read, by "eye" and "date".

        None where the pattern does not match the whole name.

        >>> subject, unread = NamePattern.of("patient-eye-date").subject(PurePath("P001_OD_2024-05-02.jpg"))
        >>> subject.patient, subject.eye.value, subject.date.isoformat(), unread
        ('P001', 'right', '2024-05-02', {})
        """
        found = self.expression.fullmatch(path.stem) or self.expression.fullmatch(path.name)
        if found is None:
            return None
        groups: dict[str, str] = found.groupdict(default="")
        eye: Eye | None = None
        date: datetime.date | None = None
        unread: dict[str, str] = {}
        try:
            eye = parse_eye(groups.get("eye", ""))
        except ValueError as problem:
            unread["eye"] = str(problem)
        try:
            date = parse_date(groups.get("date", ""))
        except ValueError as problem:
            unread["date"] = str(problem)
        return Subject(groups["patient"] or None, eye, date), unread

    def check_any(self, paths: Iterable[PurePath]) -> None:
        """Raise UsageError, naming a file, where the pattern matches none of the paths."""
        first = None
        for path in paths:
            if self.expression.fullmatch(path.stem) or self.expression.fullmatch(path.name):
                return
            first = first or path
        if first is not None:
            fitting = fitting_pattern([first])
            others = f"{fitting} fits it" if fitting else f"ready-made ones are {', '.join(PATTERNS)}"
            raise UsageError(
                f"the name pattern {self.expression.pattern!r} matches no name, for instance not {first.name!r}; "
                f"{others}"
            )


def fitting_pattern(paths: Sequence[PurePath]) -> str | None:
    """Return the name of the ready-made pattern that fits nine of ten names, the one that reads most of them."""
    for name in ("patient-eye-date", "patient-date-eye", "eyepacs", "patient-eye"):
        pattern = NamePattern.of(name)
        fitting = sum(pattern.subject(path) is not None for path in paths)
        if fitting and fitting >= _MOST_NAMES * len(paths):
            return name
    return None


def pseudonym(patient: str, *, key: bytes) -> str:
    """Return 16 hexadecimal digits in a patient's place, the same for the same key (HMAC-SHA256, RFC 2104).

    >>> pseudonym("Ada Lovelace", key=b"a secret of 16 bytes or more")
    '3a2aec9b5197376d'
    """
    return hmac.new(key, patient.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]
