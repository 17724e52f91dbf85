"""A segmentation network learns where lesions are, and says so of photographs that nobody annotated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.data.manifest import read_manifest
from retigrade.errors import UsageError
from retigrade.fundus.decode import Photo
from retigrade.icdr import Grade
from retigrade.metrics.classification import auroc
from retigrade.synthetic import draw_eye
from retigrade.training import lesion_maps as module
from retigrade.training.device import open_fabric
from retigrade.training.lesion_maps import MAP_SIDE, SIDE, find_lesions, lesion_maps
from retigrade.training.network import Network
from retigrade.training.segmentation import Annotated, SegmentationNetwork, fit_segmentation, segmentation_loss
from small_data import write_small_data

HAEMORRHAGE = list(KINDS).index("haemorrhage")


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return open_fabric(accelerator="cpu")


def start(backbone: str = "test_efficientnet") -> Network:
    torch.manual_seed(1)
    return Network(backbone, pretrained=False)


def drawn(numbers: range) -> Iterator[AnnotatedPhoto]:
    for number in numbers:
        eye = draw_eye(grade=Grade.SEVERE, size=SIDE, rng=np.random.default_rng(number))
        height, width = eye.pixels.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[eye.masks["haemorrhage"]] |= KINDS["haemorrhage"]
        yield AnnotatedPhoto(Path(f"{number}.png"), Photo(eye.pixels, width, height, str(number)), mask)


def test_a_missed_lesion_costs_more_than_a_false_one_and_the_truth_nothing() -> None:
    masks = torch.zeros(1, 4, 8, 8)
    masks[:, :, 2:4, 2:4] = 1
    truth = (2 * masks - 1) * 20
    missed, false = truth.clone(), truth.clone()
    missed[:, 0, 2, 2], false[:, 0, 6, 6] = -20, 20
    right, missed_one, false_one = (float(segmentation_loss(logits, masks)) for logits in (truth, missed, false))
    assert right == pytest.approx(0, abs=1e-3)
    assert missed_one > false_one > right + 0.1


def test_its_logits_are_of_every_fourth_pixel() -> None:
    network = SegmentationNetwork(start()).eval()
    assert network(torch.zeros(2, 3, 96, 96)).shape == (2, len(KINDS), 24, 24)


def test_a_saved_network_answers_alike(tmp_path: Path) -> None:
    network, file, x = SegmentationNetwork(start()).eval(), tmp_path / "s.safetensors", torch.rand(1, 3, 96, 96) * 255
    network.save(file)
    again = SegmentationNetwork.read(file, backbone="test_efficientnet")
    assert torch.equal(again(x), network(x))
    with pytest.raises(UsageError, match="no segmentation network of the backbone mobilenetv2_050"):
        SegmentationNetwork.read(file, backbone="mobilenetv2_050")


def test_a_network_without_the_feature_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="need feature maps of strides"):
        SegmentationNetwork(start("test_vit"))


@pytest.mark.slow
def test_lesions_are_found_on_eyes_that_it_did_not_learn_from(fabric: Fabric) -> None:
    *taught, unseen = drawn(range(5))
    masks = np.stack([np.zeros((*each.mask.shape, len(KINDS)), np.uint8) for each in taught])
    for mask, each in zip(masks, taught, strict=True):
        mask[each.lesions, HAEMORRHAGE] = 255
    annotated = Annotated(
        np.stack([each.photo.pixels for each in taught]), masks, np.empty((0, SIDE, SIDE, 3), np.uint8)
    )
    network = fit_segmentation(start(), annotated, steps=60, seed=1, fabric=fabric)
    found = find_lesions(network, unseen.photo.pixels[None], fabric=fabric)[0, ..., HAEMORRHAGE]
    there = cv2.resize(unseen.lesions.astype(np.uint8), (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA) > 0
    assert auroc(found.ravel().astype(float), there.ravel()) > 0.9
    assert not found[[0, -1]].any()  # the rim is no retina


def test_each_half_is_seen_by_the_network_of_the_other(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest([write_small_data(tmp_path / "eyes", photos=8)])
    halves = (np.array([0, 2, 4]), np.array([1, 3]))
    healthy = {index for index in range(8) if manifest.entries[index].grade == Grade.NONE}
    taught: list[Annotated] = []

    def fit(network: Network, annotated: Annotated, **_: object) -> SegmentationNetwork:
        taught.append(annotated)
        return SegmentationNetwork(network).eval()

    monkeypatch.setattr(module, "fit_segmentation", fit)
    annotated = list(drawn(range(4)))
    maps, networks = lesion_maps(manifest.entries, halves, annotated, make_start=start, seed=1, fabric=fabric)
    assert len(networks) == 2
    assert maps.shape == (8, MAP_SIDE, MAP_SIDE, len(KINDS))
    assert maps.dtype == np.uint8
    assert [index for index in range(8) if maps[index].any()] == [0, 1, 2, 3, 4]
    first, second = taught
    assert (len(first.healthy), len(second.healthy)) == (len(healthy & {1, 3}), len(healthy & {0, 2, 4}))
    np.testing.assert_array_equal(first.masks.max((1, 2, 3)), 255)
    assert len(first.photos) == len(second.photos) == 2
    assert not np.array_equal(first.photos[0], second.photos[0])
    with pytest.raises(UsageError, match="at least 4 annotated photographs"):
        lesion_maps(manifest.entries, halves, annotated[:3], make_start=start, seed=1, fabric=fabric)
