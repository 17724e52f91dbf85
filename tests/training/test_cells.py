"""What cells show before any network looks: the same as pooling the photo says, by one convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)

from retigrade.training.cells import CELL, cells_of

SIDE = 288


def photos() -> torch.Tensor:
    x = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 200 + 30
    x[:, :, : SIDE // 3] = torch.linspace(0, 11, SIDE)
    return x


def test_retina_is_where_cells_are_light_and_no_dark_one_is_near() -> None:
    x = photos()
    light = F.avg_pool2d(x.mean(1, keepdim=True), CELL)[:, :, ::2, ::2]
    near = F.max_pool2d((light <= 12).float(), 5, stride=1, padding=2)
    assert torch.equal(cells_of(x).retina, 1 - near)
    assert 0 < near.mean() < 1


def test_fine_detail_is_a_ratio_of_what_is_lost_at_half_and_at_a_quarter() -> None:
    x = photos()
    grey, retina = x.mean(1, keepdim=True), cells_of(x).retina
    half = F.avg_pool2d(grey, 2)
    lost = []
    for before, after in ((grey, half), (half, F.avg_pool2d(half, 2))):
        again = F.interpolate(after, scale_factor=2.0, mode="nearest")
        each = F.avg_pool2d((before - again).abs(), CELL * before.shape[-1] // SIDE)[:, :, ::2, ::2]
        lost.append((each * retina).mean((1, 2, 3)))
    torch.testing.assert_close(cells_of(x).fine_detail, (lost[0] / lost[1]).log(), atol=0.02, rtol=0)


def test_a_coarse_pattern_has_no_fine_detail_and_a_fine_one_has() -> None:
    squares = torch.zeros(1, 1, SIDE, SIDE)
    squares[:, :, ::4, ::4] = squares[:, :, 1::4, ::4] = squares[:, :, ::4, 1::4] = squares[:, :, 1::4, 1::4] = 60
    dots = torch.zeros(1, 1, SIDE, SIDE)
    dots[:, :, ::2, ::2] = 60
    coarse, fine = (cells_of((100 + pattern).expand(-1, 3, -1, -1)).fine_detail for pattern in (squares, dots))
    assert coarse < -5 < 5 < fine
