"""What a DICOM file says of itself, and everything that is refused, each with its true reason."""

from __future__ import annotations

import datetime
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from dicom_files import OP_8, STUDY, element, file_of, jpeg, photograph, save, with_jpeg
from retigrade.arrays import Pixels
from retigrade.dicom.dataset import identifier_of, read_dataset, text_of
from retigrade.dicom.photograph import check_studies, header_of, list_dicom
from retigrade.dicom.pixels import READABLE
from retigrade.errors import NotAFundus, UnreadablePhoto
from retigrade.fundus import decode
from retigrade.grading import Acquisition, Eye, Subject
from retigrade.inputs import Input, expand

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on files that are odd on purpose


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)


def listed(path: Path) -> Input:
    (item,) = list_dicom(path, path.name)
    return item


def refusal(path: Path) -> str:
    with pytest.raises((UnreadablePhoto, NotAFundus)) as caught:
        next(iter(list_dicom(path, path.name))).read()
    return str(caught.value)


class TestHeader:
    def test_who_when_and_how(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels)))
        assert item.subject == Subject("P001", Eye.RIGHT, datetime.date(2024, 5, 2))
        assert item.acquisition == Acquisition("Maker Camera 7", 45.0, (0.006, 0.006))
        assert item.warnings == ()

    @pytest.mark.parametrize(
        ("elements", "eye"),
        [
            ({"ImageLaterality": "L"}, Eye.LEFT),
            ({"ImageLaterality": None, "Laterality": "L"}, Eye.LEFT),
            ({"ImageLaterality": None}, None),
            ({"ImageLaterality": "B", "Laterality": None}, None),
            ({"ImageLaterality": ""}, None),
        ],
    )
    def test_eye_is_stated_or_unknown(
        self, tmp_path: Path, pixels: Pixels, elements: dict[str, Any], eye: Eye | None
    ) -> None:
        item = listed(save(tmp_path / "OD.dcm", photograph(pixels, **elements)))
        assert item.subject.eye is eye

    def test_eye_that_contradicts_itself_is_unknown_and_said(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels, Laterality="L")))
        assert item.subject.eye is None
        assert item.warnings == ("eye unknown: the header says right for the image and left for its series",)

    def test_eye_that_contradicts_the_name_is_said(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "P1_left_2.dcm", photograph(pixels)))
        assert item.subject.eye is Eye.RIGHT
        assert item.warnings == ("the file's name says left eye, its header right",)

    @pytest.mark.parametrize(
        ("charset", "patient"),
        [("ISO_IR 100", "Müller-1"), ("ISO_IR 192", "患者-1"), ("GB18030", "患者-1"), ("ISO_IR 144", "Люкceмбypг")],
    )
    def test_character_sets(self, tmp_path: Path, pixels: Pixels, charset: str, patient: str) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels, SpecificCharacterSet=charset, PatientID=patient)))
        assert item.subject.patient == patient

    def test_unknown_character_set_costs_no_grade(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels, SpecificCharacterSet="KLINGON")))
        assert item.read().pixels.shape == (40, 48, 3)
        assert item.subject.patient == "P001"

    @pytest.mark.parametrize("date", ["20240231", "yesterday", "", "00000000"])
    def test_impossible_date_is_unknown(self, tmp_path: Path, pixels: Pixels, date: str) -> None:
        dataset = photograph(pixels, StudyDate=None, ContentDate=None)
        dataset.add(pydicom.DataElement("StudyDate", "LO", date))
        assert listed(save(tmp_path / "a.dcm", dataset)).subject.date is None

    def test_patient_that_is_several_is_unknown_and_said(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels, PatientID="123\\456")))
        assert item.subject.patient is None
        assert item.warnings == ("patient unknown: the header names several in its Patient ID",)

    def test_burned_in_text_that_the_header_admits(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels, BurnedInAnnotation="YES")))
        assert item.warnings == ("the header says that text is burned into the picture",)


class TestOtherSubjects:
    """Refused by class or code before a pixel is decoded: the pixel data is nonsense each time."""

    @pytest.mark.parametrize(
        ("sop_class", "reason"),
        [
            ("1.2.840.10008.5.1.4.1.1.77.1.5.4", "Ophthalmic Tomography Image Storage"),
            ("1.2.840.10008.5.1.4.1.1.77.1.5.7", "Ophthalmic Optical Coherence Tomography En Face"),
            ("1.2.840.10008.5.1.4.1.1.12.1", "X-Ray Angiographic Image Storage"),
            ("1.2.840.10008.5.1.4.1.1.77.1.5.5", "Wide Field Ophthalmic Photography"),
            ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage"),
            ("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage"),
            ("1.2.3.4", "private or unknown SOP class"),
        ],
    )
    def test_by_class(self, tmp_path: Path, pixels: Pixels, sop_class: str, reason: str) -> None:
        path = save(tmp_path / "a.dcm", photograph(pixels, SOPClassUID=sop_class, PixelData=b"nonsense"))
        with pytest.raises(NotAFundus, match=reason):
            listed(path).read()

    @pytest.mark.parametrize(
        ("keyword", "code", "reason"),
        [
            ("AcquisitionDeviceTypeCodeSequence", "397247004", "slit lamp"),
            ("AnatomicRegionSequence", "28726007", "cornea"),
            ("ContrastBolusAgentSequence", "59108006", "angiography"),
        ],
    )
    def test_by_code(self, tmp_path: Path, pixels: Pixels, keyword: str, code: str, reason: str) -> None:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "as the code says"
        path = save(tmp_path / "a.dcm", photograph(pixels, PixelData=b"nonsense", **{keyword: [item]}))
        with pytest.raises(NotAFundus, match=reason):
            listed(path).read()

    def test_grey(self, tmp_path: Path, pixels: Pixels) -> None:
        grey = photograph(pixels, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PixelData=b"nonsense")
        with pytest.raises(NotAFundus, match="a grey picture"):
            listed(save(tmp_path / "a.dcm", grey)).read()


class TestBadInput:
    @pytest.mark.parametrize(
        ("elements", "reason"),
        [
            ({"PixelData": None}, "holds no pixel data"),
            ({"PixelData": b"\0" * 100}, "the pixel data has 100 bytes where its header declares 5760"),
            ({"PixelData": b"\0" * 9000}, "the pixel data has 9000 bytes where its header declares 5760"),
            ({"Rows": 65535, "Columns": 65535}, "declares 65535 x 65535 pixels, more than"),
            ({"Rows": 0}, "0 pixels are too few"),
            ({"Rows": None}, "holds no picture"),
            ({"NumberOfFrames": "2147483647"}, "declares 2147483647 frames"),
            ({"NumberOfFrames": "-1"}, "declares -1 frames"),
            ({"NumberOfFrames": "2"}, "has 5760 bytes where its header declares 11520"),
            ({"PhotometricInterpretation": "CMYK"}, "photometric interpretation CMYK"),
            ({"SamplesPerPixel": 1}, "1 samples per pixel beside RGB"),
            ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "declares 32 bits stored of 32"),
            ({"BitsStored": 12}, "declares 12 bits stored of 8"),
            ({"HighBit": 3}, "high bit 3 of 8"),
            ({"PixelRepresentation": 1}, "signed samples"),
        ],
    )
    def test_header_that_does_not_fit(
        self, tmp_path: Path, pixels: Pixels, elements: dict[str, Any], reason: str
    ) -> None:
        assert reason in refusal(save(tmp_path / "a.dcm", photograph(pixels, **elements)))

    @pytest.mark.parametrize("syntax", ["1.3.6.1.4.1.5962.300.2", "1.2.840.113619.5.2"])
    def test_transfer_syntax_that_is_not_read(self, tmp_path: Path, pixels: Pixels, syntax: str) -> None:
        assert f"transfer syntax {uid.UID(syntax).name}" in refusal(
            save(tmp_path / "a", photograph(pixels, syntax=syntax))
        )

    def test_every_other_transfer_syntax_is_refused_by_name(self, tmp_path: Path, pixels: Pixels) -> None:
        others = [syntax for syntax in uid.AllTransferSyntaxes if syntax not in READABLE]
        assert len(others) + len(READABLE) >= 40
        for syntax in others:
            dataset = with_jpeg(pixels, b"nonsense")
            dataset.file_meta.TransferSyntaxUID = syntax
            assert f"the transfer syntax {syntax.name}" in refusal(save(tmp_path / "a.dcm", dataset)), syntax

    def test_video(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = with_jpeg(pixels, b"nonsense")
        dataset.file_meta.TransferSyntaxUID = uid.UID("1.2.840.10008.1.2.4.100")
        assert "the transfer syntax MPEG2 Main Profile" in refusal(save(tmp_path / "a.dcm", dataset))

    def test_deflated_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("retigrade.dicom.dataset.MAX_BYTES", 2**20)
        body = element((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.5.1") + element((9, 1), b"OB", b"\0" * 2**24)
        (tmp_path / "a.dcm").write_bytes(file_of(body, syntax=uid.DeflatedExplicitVRLittleEndian, deflate=True))
        assert (tmp_path / "a.dcm").stat().st_size < 2**16
        assert "its deflated data set is larger than the 1 MiB that are read" in refusal(tmp_path / "a.dcm")

    @pytest.mark.parametrize("length", [None, "true"])
    def test_sequence_nested_ten_thousand_deep(self, tmp_path: Path, length: str | None) -> None:
        body = b""
        if length is None:  # undefined lengths
            body = struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1) * 10_000
        for _ in range(0 if length is None else 10_000):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
            body = element((8, 0x2218), b"SQ", item)
        start = element((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.5.1")
        (tmp_path / "a.dcm").write_bytes(file_of(start + body))
        expected = "nested too deeply" if length is None else "holds no picture"  # which is looked into one deep
        assert expected in refusal(tmp_path / "a.dcm")

    @pytest.mark.parametrize(
        ("stored", "text"),
        [
            (b"P001", "P001"),
            (b"P001\0", "P001"),
            (b" P  001 ", "P 001"),
            (b"A\\B", "A"),  # of several values the first
            (b"A\tB\x07", "A B"),
            (b"  ", None),
            (b"", None),
            ("Müller".encode(), "Müller"),
        ],
    )
    def test_text_of_one_line(self, tmp_path: Path, stored: bytes, text: str | None) -> None:
        body = element((8, 5), b"CS", b"ISO_IR 192") + element((8, 0x16), b"UI", OP_8.encode())
        (tmp_path / "a.dcm").write_bytes(file_of(body + element((0x10, 0x20), b"LO", stored)))
        with (tmp_path / "a.dcm").open("rb") as file:
            dataset = read_dataset(file, name="a.dcm", pixels=False)
        assert text_of(dataset, "PatientID") == text
        assert dataset.get("PatientID") is not None
        assert text_of(dataset, "PatientID") == text  # converted by pydicom meanwhile

    @pytest.mark.parametrize(
        ("stored", "patient"),
        [(b" 12  34 ", "12  34"), (b"P001\0", "P001"), (b"  ", None), ("Jürgen  1".encode(), "Jürgen  1")],
    )
    def test_identifier_to_the_letter(self, tmp_path: Path, stored: bytes, patient: str | None) -> None:
        assert identifier_of(self.stored(tmp_path, stored), "PatientID") == patient

    @pytest.mark.parametrize("stored", [b"123\\456", b"123\\", "Ä\\B".encode()])
    def test_identifiers_that_are_several(self, tmp_path: Path, stored: bytes) -> None:
        dataset = self.stored(tmp_path, stored)
        for _ in range(2):
            with pytest.raises(ValueError, match="PatientID has several values"):
                identifier_of(dataset, "PatientID")
            assert dataset.get("PatientID") is not None  # converted by pydicom meanwhile

    @staticmethod
    def stored(folder: Path, patient: bytes) -> pydicom.Dataset:
        body = element((8, 5), b"CS", b"ISO_IR 192") + element((8, 0x16), b"UI", OP_8.encode())
        (folder / "a.dcm").write_bytes(file_of(body + element((0x10, 0x20), b"LO", patient)))
        with (folder / "a.dcm").open("rb") as file:
            return read_dataset(file, name="a.dcm", pixels=False)

    def test_millions_of_elements(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("retigrade.dicom.dataset._READS", 10_000)
        body = element((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.5.1")
        body += b"".join(element((0x11, number), b"LO", b"") for number in range(0x1000, 0xF000))
        (tmp_path / "a.dcm").write_bytes(file_of(body))
        assert "declares more elements than any photograph needs" in refusal(tmp_path / "a.dcm")

    def test_file_cut_short_anywhere(self, tmp_path: Path, pixels: Pixels) -> None:
        whole = save(tmp_path / "whole.dcm", photograph(pixels)).read_bytes()
        for length in range(132, len(whole) - 1, 97):
            (tmp_path / "a.dcm").write_bytes(whole[:length])
            assert "a.dcm: " in refusal(tmp_path / "a.dcm")

    @pytest.mark.parametrize("added", [1, 3, 8, 60])
    def test_bytes_added_to_the_pixels(self, tmp_path: Path, pixels: Pixels, added: int) -> None:
        whole = save(tmp_path / "a.dcm", photograph(pixels)).read_bytes()
        (tmp_path / "a.dcm").write_bytes(whole[:-3000] + whole[-3000 : -3000 + added] + whole[-3000:])
        assert "bytes behind its pixel data that belong to nothing" in refusal(tmp_path / "a.dcm")

    def test_padding_behind_the_pixels(self, tmp_path: Path, pixels: Pixels) -> None:
        path = save(tmp_path / "a.dcm", photograph(pixels, DataSetTrailingPadding=b"\0" * 100))
        assert listed(path).read().pixels.tolist() == pixels.tolist()

    def test_jpeg_cut_short(self, tmp_path: Path, pixels: Pixels) -> None:
        assert "part of the JPEG is missing" in refusal(
            save(tmp_path / "a.dcm", with_jpeg(pixels, jpeg(pixels)[:-200]))
        )

    def test_jpeg_of_another_size(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = with_jpeg(pixels, jpeg(np.tile(pixels, (2, 2, 1))))
        assert "declares 48 x 40 pixels, and its JPEG has 96 x 80" in refusal(save(tmp_path / "a.dcm", dataset))

    def test_compressed_data_that_is_none(self, tmp_path: Path, pixels: Pixels) -> None:
        assert "is no JPEG" in refusal(save(tmp_path / "a.dcm", with_jpeg(pixels, b"nonsense" * 9)))

    def test_fragments_that_are_none(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = with_jpeg(pixels, b"nonsense")
        dataset.PixelData = b"\xfe\xff\0\xe0\0\0\0\0"  # an empty offset table, and nothing after it
        assert "is no JPEG" in refusal(save(tmp_path / "a.dcm", dataset))

    @pytest.mark.parametrize("change", [-30, -2, 6])
    def test_bytes_lost_or_added_in_compressed_pixels(self, tmp_path: Path, pixels: Pixels, change: int) -> None:
        whole = save(tmp_path / "a.dcm", with_jpeg(pixels, jpeg(pixels))).read_bytes()
        middle = len(whole) - 300
        (tmp_path / "a.dcm").write_bytes(whole[:middle] + b"\7" * change + whole[middle - min(change, 0) :])
        assert "the compressed pixel data" in refusal(tmp_path / "a.dcm")

    def test_run_length_bomb(self, tmp_path: Path, pixels: Pixels) -> None:
        segment = b"\x81\0" * 2**12  # 128 zeros each, where a plane has 1,920
        offsets = [64 + place * len(segment) for place in range(3)]
        data = struct.pack("<16I", 3, *offsets, *[0] * 12) + segment * 3
        dataset = photograph(pixels, syntax=uid.RLELossless, PixelData=encapsulate([data]))
        dataset["PixelData"].is_undefined_length = True
        assert "a segment is not as long as its plane" in refusal(save(tmp_path / "a.dcm", dataset))

    def test_jpeg_2000_that_declares_a_huge_picture(self, tmp_path: Path, pixels: Pixels) -> None:
        dataset = photograph(pixels)
        dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
        data = bytearray(dataset.PixelData)
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">2I", 65535, 65535)
        dataset.PixelData = bytes(data)
        assert "and its compressed data (65535, 65535)" in refusal(save(tmp_path / "a.dcm", dataset))

    @pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 500])
    def test_no_dicom_at_all(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.dcm").write_bytes(content)
        assert "a.dcm: " in refusal(tmp_path / "a.dcm")

    def test_pdf_in_dicom(self, tmp_path: Path, pixels: Pixels) -> None:
        pdf = photograph(
            pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", PixelData=None, EncapsulatedDocument=b"%PDF-1.4"
        )
        assert "Encapsulated PDF Storage is no class of fundus photographs" in refusal(save(tmp_path / "a.dcm", pdf))

    def test_file_that_changed_after_it_was_listed(self, tmp_path: Path, pixels: Pixels) -> None:
        item = listed(save(tmp_path / "a.dcm", photograph(pixels)))
        save(tmp_path / "a.dcm", photograph(pixels, number=2))
        with pytest.raises(UnreadablePhoto, match="has changed since"):
            item.read()

    def test_zip_called_dcm(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.dcm", "w") as archive:
            archive.writestr("a", "b")
        (item,) = expand([tmp_path / "a.dcm"], list_dicom=list_dicom).items
        assert item.reader is decode.decode  # by content it is no DICOM


class TestStudies:
    def test_two_patients_in_one_study(self, tmp_path: Path, pixels: Pixels) -> None:
        save(tmp_path / "a.dcm", photograph(pixels))
        save(tmp_path / "b.dcm", photograph(pixels, number=2, PatientID="P002"))
        save(tmp_path / "c.dcm", photograph(pixels, number=3, PatientID="P003", StudyInstanceUID=f"{STUDY}.9"))
        first, second, other = check_studies(expand([tmp_path], list_dicom=list_dicom).items)
        assert [item.subject.patient for item in (first, second, other)] == [None, None, "P003"]
        assert first.warnings == ("patient unknown: other files of its study name another patient",)
        assert other.warnings == ()

    def test_other_pictures_are_left_as_they_are(self) -> None:
        items = (Input(Path("a.jpg"), "a.jpg"),)
        assert check_studies(items) == items
        assert header_of(items[0]) is None


class TestDirectory:
    """A DICOMDIR, named by itself; in a folder, the files are found without it."""

    @staticmethod
    def write(folder: Path, *names: list[str]) -> Path:
        directory = photograph(
            np.zeros((1, 1, 3), np.uint8), SOPClassUID=uid.MediaStorageDirectoryStorage, PixelData=None
        )
        records = []
        for parts in names:
            record = Dataset()
            record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
            records.append(record)
        directory.DirectoryRecordSequence = records
        return save(folder / "DICOMDIR", directory)

    def test_lists_its_files(self, tmp_path: Path, pixels: Pixels) -> None:
        (tmp_path / "IMAGES").mkdir()
        save(tmp_path / "IMAGES/IM1", photograph(pixels))
        path = self.write(tmp_path, ["IMAGES", "IM1"], ["IMAGES", "GONE"])
        items = expand([path], list_dicom=list_dicom).items
        assert [item.name for item in items] == ["IMAGES/IM1", "IMAGES/GONE"]
        assert items[0].read().pixels.shape == (40, 48, 3)
        with pytest.raises(UnreadablePhoto, match="cannot be opened"):
            items[1].read()

    def test_names_itself(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, ["DICOMDIR"], ["DICOMDIR"])
        first, second = expand([path], list_dicom=list_dicom).items
        for item in (first, second):
            with pytest.raises(UnreadablePhoto, match="DICOMDIR: a DICOM directory where a picture should be"):
                item.read()

    def test_names_another(self, tmp_path: Path, pixels: Pixels) -> None:
        (tmp_path / "B").mkdir()
        save(tmp_path / "B/IM1", photograph(pixels))
        self.write(tmp_path / "B", ["IM1"])
        (item,) = list_dicom(self.write(tmp_path, ["B", "DICOMDIR"]), "DICOMDIR")
        with pytest.raises(UnreadablePhoto, match="a DICOM directory where a picture should be"):
            item.read()

    def test_is_passed_over_in_a_folder(self, tmp_path: Path, pixels: Pixels) -> None:
        save(tmp_path / "IM1", photograph(pixels))
        self.write(tmp_path, ["IM1"])
        found = expand([tmp_path], list_dicom=list_dicom)
        assert [item.name for item in found.items] == ["IM1"]
        assert "found by themselves" in found.skipped[0].reason

    @pytest.mark.parametrize("parts", [["..", "secret"], ["/etc/passwd"], [""]])
    def test_leads_nowhere_else(self, tmp_path: Path, parts: list[str]) -> None:
        (item,) = list_dicom(self.write(tmp_path, parts), "DICOMDIR")
        with pytest.raises(UnreadablePhoto, match="outside its own folder"):
            item.read()
