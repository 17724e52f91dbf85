"""Lesions that segmentation networks find at twice the size are counted, and their evidence has an exact map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retigrade.training.cells import Detail, cells_of
from retigrade.training.counting import CountingNetwork, counted, lesion_counts, placed, shares_of_count
from retigrade.training.export import run_model, to_onnx
from retigrade.training.network import Network
from retigrade.training.segmentation import SegmentationNetwork, lesions_in_cells

BACKBONE, SIZE = "test_efficientnet", 64
KINDS = ("haemorrhage", "soft exudate")
COUNTS = counted(len(KINDS))


@pytest.fixture(scope="module")
def counting() -> CountingNetwork:
    torch.manual_seed(1)
    network = Network(BACKBONE, pretrained=False, high_resolution=True)
    finders = [SegmentationNetwork(Network(BACKBONE, pretrained=False)) for _ in range(2)]
    for finder in finders:
        torch.nn.init.constant_(finder.classify.bias, 0.5)  # type: ignore[arg-type]
    return CountingNetwork(network, finders, kinds=KINDS, receptive_field_offset=(0.7, 0.4)).eval()


def photos() -> torch.Tensor:
    x = torch.full((2, 3, 2 * SIZE, 2 * SIZE), 120.0)
    x[1] += 60 * torch.rand(x[1].shape, generator=torch.Generator().manual_seed(1))
    return x


def test_evidence_grows_with_the_logarithm_of_the_count_and_lies_where_lesions_are() -> None:
    here = torch.zeros(2, 1, 6, 6)
    here[0, 0, 1, :3] = 1
    here[1, 0, 2, 4] = 0.5
    evidence = shares_of_count(here)
    torch.testing.assert_close(evidence.mean((2, 3)).flatten(), torch.tensor([3.0, 0.5]).log1p())
    assert torch.equal(evidence > 0, here > 0)
    assert not shares_of_count(torch.zeros(1, 4, 6, 6)).any()


def test_a_map_in_smaller_cells_shows_evidence_where_the_network_looks() -> None:
    maps = torch.zeros(1, 5, 6, 6)
    maps[0, :, 3, 2] = torch.arange(1.0, 6.0)
    moved = placed(maps, receptive_field_offset=(0.75, 0.25), side=12)
    torch.testing.assert_close(moved.mean((2, 3)), maps.mean((2, 3)))
    warm = moved[0, 4] - moved[0, 4].min()
    middles = (torch.arange(12) + 0.5) / 2
    assert torch.allclose(warm.sum(0) @ middles / warm.sum(), torch.tensor(2.75))
    assert torch.allclose(warm.sum(1) @ middles / warm.sum(), torch.tensor(3.25))


def without_counts(counting: CountingNetwork) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = counting.network(photos()).logits
    return logits


def test_without_weights_it_is_the_network_itself(counting: CountingNetwork) -> None:
    counting.weigh(np.zeros((5, COUNTS + 1)))
    with torch.inference_mode():
        torch.testing.assert_close(counting(photos()).logits, without_counts(counting))


def test_counts_are_those_of_the_maps_and_the_map_is_exact(counting: CountingNetwork) -> None:
    weights = np.random.default_rng(1).normal(size=(5, COUNTS + 1))
    counting.weigh(weights)
    with torch.inference_mode():
        output = counting(photos())
        retina = cells_of(photos()).retina
        maps = [
            (lesions_in_cells(finder, photos(), retina) * 255).permute(0, 2, 3, 1).numpy()
            for finder in counting.finders
        ]
    counts = np.mean([lesion_counts(each[..., [1, 3]]) for each in maps], axis=0)
    assert counts.max() > 1
    expected = counts @ weights[:, :-1].T + weights[:, -1]
    np.testing.assert_allclose((output.logits - without_counts(counting)).numpy(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(output.maps.mean((2, 3)), output.logits, rtol=1e-4, atol=1e-4)


def test_counts_weigh_as_much_as_detail_says(counting: CountingNetwork) -> None:
    weights, detail = np.random.default_rng(1).normal(size=(5, COUNTS + 1)), Detail(-1.0, 3.0)
    alone = without_counts(counting)
    with torch.inference_mode():
        counting.weigh(weights)
        whole = counting(photos()).logits - alone
        counting.weigh(weights, detail)
        output = counting(photos())
    torch.testing.assert_close(
        output.logits - alone, detail.likely(cells_of(photos()).fine_detail)[:, None] * whole, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(output.maps.mean((2, 3)), output.logits, rtol=1e-4, atol=1e-4)


def test_nothing_is_found_where_no_retina_is(counting: CountingNetwork) -> None:
    x = photos()
    x[:, :, :, :SIZE] = 0
    with torch.inference_mode():
        cells = lesions_in_cells(counting.finders[0], x, cells_of(x).retina)
    assert not cells[..., : SIZE // 8].any()
    assert cells[..., -1].any()


def test_exported_it_answers_alike(counting: CountingNetwork) -> None:
    counting.weigh(np.random.default_rng(2).normal(size=(5, COUNTS + 1)), Detail(-1.0, 3.0))
    x = photos().round()
    with torch.inference_mode():
        expected = counting(x)
    pixels = x.permute(0, 2, 3, 1).byte().numpy()
    given = run_model(to_onnx(counting, size=2 * SIZE), pixels, np.arange(2))
    np.testing.assert_allclose(given.logits, expected.logits.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(given.maps.mean((2, 3)), given.logits, rtol=1e-3, atol=1e-3)
