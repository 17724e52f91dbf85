"""Where the files of a list lie on this disk, which may spell their names another way than the list does.

Letters with accents are one character or two, upper and lower case differ, and spreadsheets drop the zeros of 007. A
file is taken for the listed one only where no other could be meant; case and zeros are said in any event.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from retigrade.text import listing, shown

Change = Literal["", "case", "zeros"]
"""By what a file's name differs from the listed one; nothing where they look the same to a person."""

SUFFIX = re.compile(
    r"\.(jpe|jpe?g|jfif|png|apng|tiff?|webp|bmp|dib|gif|hei[cf]|avif|jp2|j2k|jpx|jpf|jls|jxl|jxr|psd|dcm|dicom"
    r"|cr2|cr3|nef|arw|dng|raf|orf|rw2)([^.a-z0-9][^.]*)?$",
    re.IGNORECASE,
)
"""A picture's suffix, with whatever browsers and viewers hang on it, as in `eye.jpg_large`."""

_CHANGES: Mapping[Change, str] = {"case": "differ in upper and lower case", "zeros": "have lost their leading zeros"}
_DRIVE = re.compile(r"[A-Za-z]:(\\|$)|\\\\")  # C:\photos, \\server\photos
_LONGEST_NAME = 255  # bytes
_NUMBER_WRITTEN_SHORT = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)


def stem(name: str) -> str:
    """The name without a picture's suffix; what follows the dots of an identifier such as 1.2.840 is no suffix."""
    return SUFFIX.sub("", name)


def same(name: str) -> str:
    """What two spellings of one name have in common: composed letters, without regard to case."""
    return unicodedata.normalize("NFC", name).casefold()


def without_zeros(name: str) -> str | None:
    """A number's digits without leading zeros, as a spreadsheet leaves them; None for any other name."""
    return name.lstrip("0") or "0" if name.isascii() and name.isdigit() else None


def pick(names: Iterable[str], name: str) -> tuple[list[str], Change]:
    """Those of the names that are spelled most like `name`, and what still differs."""
    names = list(names)
    composed = unicodedata.normalize("NFC", name)
    if equal := [other for other in names if other == name]:
        return equal, ""
    if equal := [other for other in names if unicodedata.normalize("NFC", other) == composed]:
        return equal, ""
    return names, "case"


@dataclass(slots=True)
class Changes:
    """What the names of one list and of its files differed by, for one note on each."""

    of: Path
    seen: dict[Change, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, change: Change, listed: str, path: PurePath) -> None:
        """Remember one."""
        if change:
            self.seen[change].append(f"{shown(listed)} taken for {shown(path.name)}")

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence on each kind."""
        return tuple(
            f"{shown(self.of.name)}: {len(names)} names {_CHANGES[change]}: {listing(names)}"
            for change, names in self.seen.items()
        )


class Locator:
    """Finds the files of one list below its folder; reads each folder once."""

    def __init__(self, root: Path) -> None:
        """root: where relative names start."""
        self._root = root
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, spellings: Sequence[str]) -> tuple[Path | None, Change]:
        """Return where a listed file lies, and by what its name differs; None where no single file can be meant."""
        for spelling in spellings:
            if os.path.lexists(self._root / spelling):
                return self._root / spelling, ""
        for spelling in spellings:
            path, change = self._respelled(PurePath(spelling))
            if path is not None:
                return path, change
        return None, ""

    def why(self, path: Path) -> str:
        """Why there is no such file: which folder is missing, or what its folder holds instead."""
        if any(_DRIVE.match(part) for part in path.parts):
            return "a path of another computer; write it as it starts at the folder of the list"
        path = Path(str(path).replace("\\", "/"))
        hint = " (a spreadsheet has shortened the number)" if _NUMBER_WRITTEN_SHORT.fullmatch(stem(path.name)) else ""
        if "\0" in str(path):
            return "its name holds a NUL character"
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            return f"its name is longer than the {_LONGEST_NAME} bytes that file systems allow"
        for folder in reversed(path.parents):
            if not os.path.isdir(folder):  # noqa: PTH112 - never raises, not even for a path that is too long
                return f"there is no folder {shown(str(folder))}"
        names = sorted(name for names in self._entries(path.parent).values() for name in names)
        digits = without_zeros(stem(path.name))
        if digits is not None and (close := [name for name in names if without_zeros(stem(name)) == digits]):
            hint = f" (leading zeros lost? there is {listing(map(shown, close))})"
        held = f"holds {len(names)} others, such as {shown(names[0])}" if names else "is empty"
        return f"no such file{hint}; its folder {held}"

    def _respelled(self, name: PurePath) -> tuple[Path | None, Change]:
        folder, changes = self._root, set[Change]()
        parts = name.parts
        if name.is_absolute():
            folder, parts = Path(name.anchor), parts[1:]
        for place, part in enumerate(parts):
            if part == ".." or os.path.lexists(folder / part):
                folder = folder / part
                continue
            found, change = pick(self._entries(folder).get(same(part), ()), part)
            if not found and place == len(parts) - 1:
                found, change = self._with_zeros(folder, part), "zeros"
            if len(found) != 1:
                return None, ""
            folder = folder / found[0]
            changes.add(change)
        return folder, "zeros" if "zeros" in changes else "case" if "case" in changes else ""

    def _with_zeros(self, folder: Path, part: str) -> list[str]:
        digits = without_zeros(stem(part))
        if digits is None:
            return []
        suffix = same(part[len(stem(part)) :])
        names = (name for names in self._entries(folder).values() for name in names)
        return [name for name in names if without_zeros(stem(name)) == digits and same(name).endswith(suffix)]

    def _entries(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._folders:
            entries = defaultdict(list)
            try:
                for name in os.listdir(folder):  # noqa: PTH208 - names suffice
                    entries[same(name)].append(name)
            except (OSError, ValueError):
                pass  # the file below it is then not found, and why() says so
            self._folders[folder] = dict(entries)
        return self._folders[folder]
