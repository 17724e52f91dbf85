"""Augmentation: drawn parameters replay, black stays black, and switched off it changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from retigrade.training.augment import apply, draw, draw_recompressions, move, recompress
from retigrade.training.recipe import PAPER, ROBUST, AugmentationConfig

NONE = AugmentationConfig(
    rotate=0,
    zoom=0,
    shift=0,
    aspect=0,
    horizontal_flip=0,
    vertical_flip=0,
    brightness=0,
    contrast=0,
    saturation=0,
    channel_gain=0,
    blur=0,
    noise=0,
)


def photos(n: int = 3, size: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(20, 255, (n, size, size, 3), dtype=torch.uint8, generator=generator)
    drawn[:, :6] = 0
    return drawn


def test_switched_off_it_leaves_the_photograph() -> None:
    x = photos()
    drawn = draw(torch.zeros(3, 2), NONE, torch.Generator().manual_seed(0))
    same = apply(x, drawn, size=48)
    torch.testing.assert_close(same, x.permute(0, 3, 1, 2).float(), atol=0.05, rtol=0)


def test_maps_go_where_the_photograph_goes_and_are_cut_as_it_is() -> None:
    x = torch.full((6, 96, 96, 3), 60, dtype=torch.uint8)
    x[:, 30:36, 54:60] = 255
    maps = (x[:, ::2, ::2, :1] > 200).byte() * 255
    config = replace(NONE, rotate=180, zoom=0.1, shift=0.05, horizontal_flip=0.5)
    drawn = draw(torch.zeros(6, 2), config, torch.Generator().manual_seed(2))
    seen, moved = apply(x, drawn, size=96)[:, 0], move(maps, drawn, size=48)[:, 0]
    assert moved.amax() <= 1
    for photo, each in zip(seen, moved, strict=True):
        bright, marked = (torch.nonzero(values > values.max() / 2).float().mean(0) for values in (photo - 60, each))
        assert (bright / 2 - marked).abs().max() < 1
    whole = draw(torch.tensor([[0.4, 0.0]]), NONE, torch.Generator())
    assert not move(maps[:1], whole, size=48).any()


def test_flips_are_to_the_side_and_upside_down_each_by_its_own_chance() -> None:
    x = photos(n=40)
    plain = x.permute(0, 3, 1, 2).float()
    for config, allowed in (
        (replace(NONE, horizontal_flip=0.5), [plain, plain.flip(3)]),
        (replace(NONE, vertical_flip=0.5), [plain, plain.flip(2)]),
        (replace(NONE, horizontal_flip=1, vertical_flip=1), [plain.flip(2, 3)]),
    ):
        seen = apply(x, draw(torch.zeros(40, 2), config, torch.Generator().manual_seed(0)), size=48)
        near = torch.stack([(seen - way).abs().amax((1, 2, 3)) < 0.05 for way in allowed])
        assert near.any(0).all()
        assert near.any(1).all()


def test_the_publication_flips_to_the_side_alone() -> None:
    assert (PAPER.augmentation.horizontal_flip, PAPER.augmentation.vertical_flip) == (0.5, 0)


def test_a_draw_replays() -> None:
    x = photos()
    drawn = draw(torch.full((3, 2), 0.1), AugmentationConfig(), torch.Generator().manual_seed(3))
    torch.testing.assert_close(apply(x, drawn, size=32), apply(x, drawn, size=32), atol=0, rtol=0)
    other = draw(torch.full((3, 2), 0.1), AugmentationConfig(), torch.Generator().manual_seed(4))
    assert not torch.equal(apply(x, drawn, size=32), apply(x, other, size=32))


def test_black_stays_black_and_light_stays_in_range() -> None:
    x = torch.zeros(4, 40, 40, 3, dtype=torch.uint8)
    x[:, 10:30, 10:30] = 200
    out = apply(x, draw(torch.zeros(4, 2), AugmentationConfig(), torch.Generator().manual_seed(5)), size=40)
    assert out.min() >= 0
    assert out.max() <= 255
    assert out[:, :, 0, 0].abs().max() == 0
    assert out.amax((1, 2, 3)).min() > 20


def test_the_cut_blackens_top_and_bottom() -> None:
    x = torch.full((1, 40, 40, 3), 150, dtype=torch.uint8)
    out = apply(x, draw(torch.tensor([[0.25, 0.1]]), NONE, torch.Generator().manual_seed(0)), size=40)
    lit = out[0].amax(0).amax(1) > 0
    assert lit.nonzero().flatten().tolist() == list(range(10, 36))


def test_some_rows_can_be_taken() -> None:
    drawn = draw(torch.zeros(4, 2), AugmentationConfig(), torch.Generator().manual_seed(6))
    part = drawn.rows(slice(1, None, 2))
    torch.testing.assert_close(part.affine, drawn.affine[1::2])
    assert part.seed == drawn.seed


def test_specks_are_small_dark_or_bright_and_lie_on_some_photographs_only() -> None:
    x = torch.full((40, 64, 64, 3), 120, dtype=torch.uint8)
    drawn = draw(torch.zeros(40, 2), replace(NONE, specks=8), torch.Generator().manual_seed(5))
    change = (apply(x, drawn, size=64) - 120).mean(1)
    changed = change.abs() > 2
    specked = changed.flatten(1).any(1)
    assert 10 < specked.sum() < 30
    assert changed[specked].float().mean() < 0.2
    assert change.min() < -20
    assert change.max() > 20


@pytest.mark.parametrize("part", ["illumination", "dust", "specks", "colour_noise", "channel_gamma"])
def test_each_part_of_the_stronger_augmentation_changes_the_light_alone(part: str) -> None:
    x = torch.full((30, 40, 40, 3), 120, dtype=torch.uint8)
    x[:, :8] = 0
    plain = replace(NONE, noise=9, **{part: 0.5})
    seen = apply(x, draw(torch.zeros(30, 2), plain, torch.Generator().manual_seed(0)), size=40)
    without = apply(x, draw(torch.zeros(30, 2), replace(NONE, noise=9), torch.Generator().manual_seed(0)), size=40)
    assert (seen - without).abs().max() > 3
    assert seen[:, :, :8].abs().max() == 0
    assert seen.min() >= 0
    assert seen.max() <= 255


def test_recompression_changes_its_share_and_keeps_the_picture() -> None:
    x = photos(n=40).numpy()
    changes = draw_recompressions(len(x), 0.3, np.random.default_rng(0))
    assert 4 < len({change.place for change in changes}) == len(changes) < 20
    for change in changes:
        changed = recompress(x[change.place], change)
        assert changed.shape == x[change.place].shape
        assert not np.array_equal(changed, x[change.place])
        assert abs(changed.astype(float).mean() - x[change.place].mean()) < 3
    assert np.array_equal(x, photos(n=40).numpy())
    assert ROBUST.augmentation.recompression == 0.3
