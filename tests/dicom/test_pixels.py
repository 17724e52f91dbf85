"""One drawn eye, stored in every way that DICOM knows, is the same picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import ImageCms
from pydicom import uid
from pydicom.pixels import apply_color_lut, pixel_array

from dicom_files import by_dcmtk, compressed, jpeg, photograph, save, with_jpeg, ybr
from retigrade.arrays import Pixels
from retigrade.dicom.dataset import hushed, read_dataset
from retigrade.dicom.photograph import list_dicom
from retigrade.dicom.pixels import decode_frame
from retigrade.errors import UnreadablePhoto
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on files that are odd on purpose


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return draw_eye(grade=Grade.MODERATE, size=160, rng=np.random.default_rng(2)).pixels


def read(path: Path, frame: int = 1) -> Pixels:
    return list(list_dicom(path, path.name))[frame - 1].read().pixels


def difference(found: Pixels, expected: Pixels) -> float:
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    return float(np.abs(found.astype(float) - expected).mean())


class TestUncompressed:
    @pytest.mark.parametrize(
        "syntax",
        [
            uid.ImplicitVRLittleEndian,
            uid.ExplicitVRLittleEndian,
            uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian,
        ],
    )
    def test_every_encoding(self, tmp_path: Path, pixels: Pixels, syntax: str) -> None:
        assert difference(read(save(tmp_path / "a.dcm", photograph(pixels, syntax=syntax))), pixels) == 0

    def test_without_preamble_and_meta_group(self, tmp_path: Path, pixels: Pixels) -> None:
        path = save(tmp_path / "a", photograph(pixels, syntax=uid.ImplicitVRLittleEndian))
        data = path.read_bytes()
        path.write_bytes(data[data.index(b"\x08\0\x05\0") :])
        assert difference(read(path), pixels) == 0

    def test_colour_by_plane(self, tmp_path: Path, pixels: Pixels) -> None:
        planes = photograph(pixels, PlanarConfiguration=1, PixelData=np.moveaxis(pixels, 2, 0).tobytes())
        assert difference(read(save(tmp_path / "a.dcm", planes)), pixels) == 0

    def test_ybr_full(self, tmp_path: Path, pixels: Pixels) -> None:
        stored = photograph(ybr(pixels), PhotometricInterpretation="YBR_FULL")
        assert difference(read(save(tmp_path / "a.dcm", stored)), pixels) < 1

    def test_ybr_full_422(self, tmp_path: Path, pixels: Pixels) -> None:
        colours = ybr(pixels)
        first, second = colours[:, ::2], colours[:, 1::2]
        halved = np.stack([first[..., 0], second[..., 0], first[..., 1], first[..., 2]], axis=2)
        stored = photograph(pixels, PhotometricInterpretation="YBR_FULL_422", PixelData=halved.tobytes())
        assert difference(read(save(tmp_path / "a.dcm", stored)), pixels) < 1

    @pytest.mark.parametrize(("stored", "high"), [(16, 15), (12, 11), (10, 9), (12, 15)])
    def test_deeper_samples_are_scaled(self, tmp_path: Path, pixels: Pixels, stored: int, high: int) -> None:
        deep = np.round(pixels * ((2**stored - 1) / 255)).astype(np.uint16) << (high + 1 - stored)
        dataset = photograph(deep.astype(np.uint16), BitsStored=stored, HighBit=high)
        assert difference(read(save(tmp_path / "a.dcm", dataset)), pixels) == 0

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, tmp_path: Path, pixels: Pixels, bits: int) -> None:
        colours, places = np.unique(pixels.reshape(-1, 3) // 16 * 16, axis=0, return_inverse=True)
        colours = np.concatenate([colours, colours[: len(colours) % 2]])  # an even number, so that nothing is padded
        table = colours.astype(f"<u{bits // 8}") * (1 if bits == 8 else 257)
        elements = {}
        for column, colour in enumerate(("Red", "Green", "Blue")):
            elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(colours), 0, bits]
            elements[f"{colour}PaletteColorLookupTableData"] = table[:, column].tobytes()
        dataset = photograph(
            pixels,
            SamplesPerPixel=1,
            PlanarConfiguration=None,
            PhotometricInterpretation="PALETTE COLOR",
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PixelData=places.astype("<u2").tobytes(),
            **elements,
        )
        for keyword in elements:
            dataset[keyword].VR = "US" if keyword.endswith("Descriptor") else "OW"
        found = read(save(tmp_path / "a.dcm", dataset))
        assert difference(found, colours[places].reshape(pixels.shape)) == 0

    def test_frames_are_inputs_of_their_own(self, tmp_path: Path, pixels: Pixels) -> None:
        path = save(tmp_path / "a.dcm", photograph(np.stack([pixels, pixels[:, ::-1]])))
        items = list(list_dicom(path, "a.dcm"))
        assert [(str(item), item.name) for item in items] == [(f"{path}#1", "a.dcm#1"), (f"{path}#2", "a.dcm#2")]
        assert difference(items[0].read().pixels, pixels) == 0
        assert difference(items[1].read().pixels, pixels[:, ::-1]) == 0

    def test_window_is_left_alone(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = photograph(pixels, WindowCenter=40, WindowWidth=10)
        assert difference(read(save(tmp_path / "a.dcm", dataset)), pixels) == 0

    def test_colour_profile_is_converted(self, tmp_path: Path, pixels: Pixels) -> None:
        plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        swapped = plain.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")  # red for green
        path = save(tmp_path / "a.dcm", photograph(pixels, ICCProfile=swapped))
        assert difference(read(path), pixels[..., [1, 0, 2]]) < 3

    def test_colour_profile_that_is_none_is_said(self, tmp_path: Path, pixels: Pixels) -> None:
        path = save(tmp_path / "a.dcm", photograph(pixels, ICCProfile=b"\0" * 128))
        (item,) = list_dicom(path, "a.dcm")
        assert item.read().notes == ("its colour profile cannot be used, its colours are taken as sRGB",)


class TestCompressed:
    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    def test_lossless(self, tmp_path: Path, pixels: Pixels, syntax: str) -> None:
        assert difference(read(save(tmp_path / "a.dcm", compressed(photograph(pixels), syntax))), pixels) == 0

    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    def test_lossless_16_bit(self, tmp_path: Path, pixels: Pixels, syntax: str) -> None:
        dataset = compressed(photograph(pixels.astype(np.uint16) * 257), syntax)
        assert difference(read(save(tmp_path / "a.dcm", dataset)), pixels) == 0

    def test_lossless_frames(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = compressed(photograph(np.stack([pixels, pixels[:, ::-1]])), uid.RLELossless)
        assert difference(read(save(tmp_path / "a.dcm", dataset), frame=2), pixels[:, ::-1]) == 0

    def test_lossy_jpeg_2000_and_jpeg_ls(self, tmp_path: Path, pixels: Pixels) -> None:
        lossy = photograph(pixels, PhotometricInterpretation="YBR_ICT")
        lossy.compress(uid.JPEG2000, j2k_cr=[4], generate_instance_uid=False)
        assert difference(read(save(tmp_path / "a.dcm", lossy)), pixels) < 3
        near = photograph(pixels)
        near.compress(uid.JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
        assert difference(read(save(tmp_path / "b.dcm", near)), pixels) <= 2

    def test_jpeg_has_the_pixels_of_the_jpeg_file(self, tmp_path: Path, pixels: Pixels) -> None:
        data = jpeg(pixels)
        as_file = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert difference(read(save(tmp_path / "a.dcm", with_jpeg(pixels, data))), as_file) == 0

    def test_jpeg_that_the_header_calls_rgb_is_what_its_own_marker_says(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = with_jpeg(pixels, jpeg(pixels), PhotometricInterpretation="RGB")  # JFIF: YCbCr whatever else is said
        assert difference(read(save(tmp_path / "a.dcm", dataset)), pixels) < 3

    def test_jpeg_without_markers_is_what_the_header_says(self, tmp_path: Path, pixels: Pixels) -> None:
        data = jpeg(pixels)
        assert data[2:4] == b"\xff\xe0"
        bare = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
        said = {
            colours: read(save(tmp_path / "a.dcm", with_jpeg(pixels, bare, PhotometricInterpretation=colours)))
            for colours in ("YBR_FULL_422", "RGB")
        }
        assert difference(said["YBR_FULL_422"], pixels) < 3
        assert difference(said["RGB"], ybr(pixels)) < 3  # the samples as stored, which are YCbCr here

    @pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="dcmtk is not installed")
    @pytest.mark.parametrize(
        ("options", "limit"), [(("+el",), 0), (("+e1",), 0), (("+eb",), 3), (("+ee",), 3), (("+es",), 3), (("+ep",), 3)]
    )
    def test_jpeg_by_dcmtk(self, tmp_path: Path, pixels: Pixels, options: tuple[str, ...], limit: float) -> None:
        source = save(tmp_path / "a.dcm", photograph(pixels))
        by_dcmtk("dcmcjpeg", *options)(source, tmp_path / "b.dcm")
        assert difference(read(tmp_path / "b.dcm"), pixels) <= limit

    @pytest.mark.skipif(shutil.which("dcmcjpls") is None, reason="dcmtk is not installed")
    @pytest.mark.parametrize("tool", ["dcmcjpls", "dcmcrle"])
    def test_jpeg_ls_and_rle_by_dcmtk(self, tmp_path: Path, pixels: Pixels, tool: str) -> None:
        by_dcmtk(tool)(save(tmp_path / "a.dcm", photograph(pixels)), tmp_path / "b.dcm")
        assert difference(read(tmp_path / "b.dcm"), pixels) == 0


REFUSED = {
    "SC_rgb_rle_32bit.dcm": "32 bits",
    "SC_rgb_rle_32bit_2frame.dcm": "32 bits",
    "SC_rgb_small_odd_jpeg.dcm": "too few",
}
FILES = Path(pydicom.__file__).parent / "data/test_files"
NOT_BY_PYDICOM = {"SC_rgb_jpeg_gdcm.dcm": "SC_rgb_small_jpeg"}  # JPEG lossless


def colour_files() -> list[str]:
    """The test files of pydicom that hold colours, by name."""
    found = []
    for path in FILES.glob("*.dcm"):
        with hushed():
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        if dataset.get("SamplesPerPixel") == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            found.append(path.name)
    return sorted(found)


@pytest.mark.parametrize("name", colour_files())
def test_colour_files_of_pydicom(name: str) -> None:
    path = FILES / name
    with path.open("rb") as file:
        dataset = read_dataset(file, name=name, pixels=True)
    if name in REFUSED:
        with pytest.raises(UnreadablePhoto, match=REFUSED[name]):
            decode_frame(dataset, 1, name=name, sha256="")
        return
    found = decode_frame(dataset, 1, name=name, sha256="").pixels
    if name in NOT_BY_PYDICOM:
        assert found.mean() == pytest.approx(127, abs=64)
        return
    expected = pixel_array(pydicom.dcmread(path), index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset)
    if expected.dtype == np.uint16:
        expected = np.round(expected / 257)
    assert difference(found, expected) <= 1
