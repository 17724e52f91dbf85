"""DICOM files made from one drawn eye, in every way that pixels can be stored."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

OP_8, OP_16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
STUDY = "1.2.826.0.1.3680043.8.498.1"


def photograph(
    pixels: npt.NDArray[np.generic], *, number: int = 1, syntax: str = uid.ExplicitVRLittleEndian, **elements: Any
) -> FileDataset:
    """An Ophthalmic Photography image of RGB pixels, uncompressed; `elements` by keyword, None leaves one out."""
    bits = 8 * pixels.dtype.itemsize
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SOPClassUID": OP_8 if bits == 8 else OP_16,
        "SOPInstanceUID": f"{STUDY}.2.{number}",
        "StudyDate": "20240502",
        "StudyTime": "101500",
        "ContentDate": "20240503",
        "ContentTime": "101500",
        "AccessionNumber": "A1",
        "Modality": "OP",
        "Manufacturer": "Maker",
        "ManufacturerModelName": "Camera",
        "DeviceSerialNumber": "7",
        "ReferringPhysicianName": "",
        "PatientName": "Doe^Jane",
        "PatientID": "P001",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
        "StudyID": "S1",
        "SeriesNumber": "1",
        "InstanceNumber": str(number),
        "ImageLaterality": "R",
        "HorizontalFieldOfView": 45.0,
        "PixelSpacing": [0.006, 0.006],
        "BurnedInAnnotation": "NO",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": pixels.shape[-3],
        "Columns": pixels.shape[-2],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
        **({"NumberOfFrames": str(len(pixels))} if pixels.ndim == 4 else {}),
        **elements,
    }
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=FileMetaDataset())
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    return dataset


def file_bytes(dataset: Dataset) -> bytes:
    """The dataset as a file, even where it breaks rules."""
    syntax = dataset.file_meta.TransferSyntaxUID
    known = syntax.is_transfer_syntax and not syntax.is_private
    buffer = io.BytesIO()
    dcmwrite(
        buffer,
        dataset,
        **({} if known else {"implicit_vr": False, "little_endian": True, "enforce_file_format": False}),  # type: ignore[arg-type]
    )
    return buffer.getvalue()


def save(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(file_bytes(dataset))
    return path


def jpeg(pixels: npt.NDArray[np.uint8], *, quality: int = 92) -> bytes:
    """A JPEG file, YCbCr with JFIF marker and halved colour, as cameras write it."""
    written, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    return data.tobytes()


def with_jpeg(pixels: npt.NDArray[np.uint8], data: bytes, **elements: Any) -> FileDataset:
    """The photograph with these JPEG bytes as its pixel data."""
    stored = {"PixelData": encapsulate([data]), "PhotometricInterpretation": "YBR_FULL_422"}
    dataset = photograph(pixels, syntax=uid.JPEGBaseline8Bit, **{**stored, **elements})
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def compressed(dataset: FileDataset, syntax: str) -> FileDataset:
    """The photograph in a compressed transfer syntax that pydicom's own encoders write."""
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def by_dcmtk(tool: str, *options: str) -> Callable[[Path, Path], None]:
    """A converter of dcmtk: reads the first file, writes the second."""

    def convert(source: Path, target: Path) -> None:
        subprocess.run([tool, *options, str(source), str(target)], check=True, capture_output=True, timeout=60)

    return convert


def ybr(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB to YBR_FULL (PS3.3, C.7.6.3.1.2)."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.round(pixels @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """One element, explicit VR little endian, with whatever value."""
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", *tag, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


def file_of(body: bytes, *, syntax: str = uid.ExplicitVRLittleEndian, deflate: bool = False) -> bytes:
    """A file of hand-made elements behind a correct meta group."""
    meta = element((2, 0x10), b"UI", syntax.encode())
    if deflate:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    return b"\0" * 128 + b"DICM" + element((2, 0), b"UL", struct.pack("<I", len(meta))) + meta + body
