"""Does a copy in another colour space get the grade of the plain file as often as the plain file saved again does?

    python benchmarks/profiles.py FOLDER... [--count 100] [--bundle FILE]

Each photograph is saved as a JPEG: plain, and with its colours in Display P3 and in Adobe RGB beside the profile that
says so. The plain one is also read and saved a second time. Prints, for each copy, how many have the plain one's grade.
Exit code 1 where a space has fewer of them than the second saving has, by more than chance gives (one in twenty).
"""

from __future__ import annotations

import io
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from retigrade import load
from retigrade.arrays import Pixels, Reals
from retigrade.fundus.decode import decode
from retigrade.icdr import Status
from retigrade.inputs import expand

Columns = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

QUALITY = 90
CHANCE = 1.64  # deviations
D50 = (0.9642, 1.0, 0.8249)
# XYZ under D50 of red, green and blue (IEC 61966-2-1; Adobe RGB (1998); SMPTE EG 432-1).
SRGB: Columns = (
    (0.4360747, 0.2225045, 0.0139322),
    (0.3850649, 0.7168786, 0.0971045),
    (0.1430804, 0.0606169, 0.7141733),
)
SPACES: dict[str, tuple[Columns, float]] = {
    "Display P3": (
        ((0.5151187, 0.2411892, -0.0010505), (0.2919778, 0.6922441, 0.0418791), (0.1571035, 0.0665668, 0.7840714)),
        2.2,
    ),
    "Adobe RGB": (
        ((0.6097559, 0.3111242, 0.0194811), (0.2052401, 0.6256560, 0.0608902), (0.1492240, 0.0632197, 0.7448387)),
        563 / 256,
    ),
}


@dataclass(frozen=True)
class Arguments:
    """Folders or lists of photographs, and how many to use."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    count: int = 100
    bundle: Path | None = None


def profile(columns: Columns, power: float) -> bytes:
    """An ICC profile, version 2, of three primaries and a power."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256)) + b"\0\0"
    text = (b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78)).ljust(96, b"\0")
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(D50)}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, columns), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def converted(rgb: Pixels, columns: Columns, power: float) -> Pixels:
    """The same colours in another space, uint8 (h, w, 3)."""
    levels = np.arange(256) / 255
    light: Reals = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)[rgb]
    matrix = np.linalg.inv(np.array(columns).T) @ np.array(SRGB).T
    return np.asarray(np.rint(np.clip(light @ matrix.T, 0, 1) ** (1 / power) * 255), np.uint8)


def saved(rgb: Pixels, icc: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=QUALITY, icc_profile=icc)
    return buffer.getvalue()


def main(arguments: Arguments) -> int:
    grader = load(arguments.bundle, threads=1)
    paths = [item.path for item in expand(list(arguments.folders)).items]
    counts: dict[str, Counter[str]] = {}
    for path in paths[:: max(1, len(paths) // arguments.count)][: arguments.count]:
        rgb = decode(path).pixels
        plain = saved(rgb)
        grading = grader.grade(plain, heat=False)
        if grading.status is not Status.GRADED:
            continue
        copies = {"saved twice": saved(np.asarray(Image.open(io.BytesIO(plain))))}
        copies |= {name: saved(converted(rgb, *space), profile(*space)) for name, space in SPACES.items()}
        for name, copy in copies.items():
            found = grader.grade(copy, heat=False)
            seen = counts.setdefault(name, Counter())
            seen.update(copies=1, same=found.grade == grading.grade, refused=found.status is not Status.GRADED)
            seen.update(referral=found.grade is not None and found.referable != grading.referable)
    rates = {name: seen["same"] / seen["copies"] for name, seen in counts.items()}
    for name, seen in counts.items():
        print(f"{name:12} {seen['same']} of {seen['copies']} ({rates[name]:.1%}) have the same grade, "
              f"{seen['referral']} another referral, {seen['refused']} are refused")  # fmt: skip
    twice, number = rates["saved twice"], counts["saved twice"]["copies"]
    chance = CHANCE * np.sqrt(2 * max(twice * (1 - twice), 1 / number) / number)
    return int(min(rates.values()) < twice - chance)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
