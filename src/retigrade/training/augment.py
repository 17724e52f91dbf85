"""Augment a batch on its device: draw the parameters, then apply them.

Shift, rotate, zoom and flip as in the publication; aspect, cut, blur and colour beyond it. The parameters of a batch
are plain tensors, so a batch can be replayed from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor

from retigrade.arrays import Pixels
from retigrade.evaluation.corruptions import recompress as as_jpeg
from retigrade.training.recipe import AugmentationConfig


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What was drawn for N photographs: every tensor is float32 (N, ...), on the CPU; None for what is switched off."""

    affine: Tensor
    cut: Tensor
    gamma: Tensor
    contrast: Tensor
    tone: Tensor | None
    blur: Tensor | None
    noise: Tensor | None
    illumination: Tensor | None
    dust: Tensor | None
    specks: Tensor | None
    colour_noise: Tensor | None
    seed: int

    def to(self, device: torch.device) -> Self:
        """Copy to a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def rows(self, rows: slice) -> Self:
        """Take the parameters of some of the photographs."""
        return self._each(lambda value: value[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


def draw(cut: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Draw:
    """Draw the parameters for N photographs; cut: float32 (N, 2), fractions hidden at top and bottom."""
    n = len(cut)

    def either(width: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * width

    angle = either(config.rotate) * (math.pi / 180)
    zoom, stretch = torch.exp(either(config.zoom)), torch.exp(either(config.aspect) / 2)
    mirror = torch.where(torch.rand(n, generator=generator) < config.horizontal_flip, -1.0, 1.0)
    turn = torch.where(torch.rand(n, generator=generator) < config.vertical_flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    sx, sy = zoom * stretch * mirror, zoom / stretch * turn
    shift = either(2 * config.shift, 2)
    affine = torch.stack(
        [torch.stack([cos * sx, -sin * sx, shift[:, 0]], 1), torch.stack([sin * sy, cos * sy, shift[:, 1]], 1)], 1
    )
    gain = (1 + either(config.brightness, 1)) * torch.exp(either(config.channel_gain, 3))
    gamma = torch.exp(either(config.brightness, 1, 1, 1) + either(config.channel_gamma, 3, 1, 1))
    contrast = 1 + either(config.contrast, 1, 1)
    saturation = 1 + either(config.saturation, 1, 1)
    # Gain, then saturation about grey, then contrast: linear in the colour, so one matrix for all.
    tone = contrast * (saturation * torch.eye(3) + (1 - saturation) / 3) * gain[:, None]
    blur = torch.rand(n, generator=generator) * config.blur * (torch.rand(n, generator=generator) < 0.5)
    noise = torch.rand(n, 1, 1, 1, generator=generator) * (config.noise / 255)
    coloured = any((config.brightness, config.channel_gain, config.channel_gamma, config.contrast, config.saturation))
    by_colour = torch.rand(n, 1, 1, 1, generator=generator) < config.colour_noise
    return Draw(
        affine=affine,
        cut=cut,
        gamma=gamma,
        contrast=contrast,
        tone=tone if coloured else None,
        blur=blur if config.blur else None,
        noise=noise if config.noise else None,
        illumination=either(config.illumination, 3) if config.illumination else None,
        dust=_draw_dust(n, config.dust, generator) if config.dust else None,
        colour_noise=by_colour.float() if config.colour_noise else None,
        seed=int(torch.randint(2**31, (), generator=generator)),
        specks=_draw_specks(n, config.specks, generator) if config.specks else None,
    )


def apply(photos: Tensor, drawn: Draw, *, size: int) -> Tensor:
    """Apply drawn parameters: uint8 (N, S, S, 3) -> float32 (N, 3, size, size), 0..255, black stays black."""
    x = photos.permute(0, 3, 1, 2).float().div_(255)
    grid = F.affine_grid(drawn.affine, [len(x), 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    lit = _kept(grid, drawn)[:, None] & (x.amax(1, keepdim=True) > 0.03)
    if drawn.tone is not None:
        x = _colour(x, drawn.gamma, drawn.contrast, drawn.tone)
    if drawn.illumination is not None:
        x *= _illumination(drawn.illumination, size=size)
    if drawn.dust is not None:
        x *= _dust(drawn.dust, size=size)
    if drawn.blur is not None:
        x = _blur(x, drawn.blur)
    if drawn.noise is not None:  # of the light, alike in all colours, as JPEG leaves it
        generator = torch.Generator(device=x.device).manual_seed(drawn.seed)
        noise = torch.randn((len(x), 1, size, size), generator=generator, device=x.device) * drawn.noise
        if drawn.colour_noise is not None:  # as a sensor's; the same numbers from elsewhere are as good as others
            each = torch.cat([noise, noise.roll((7, 3), (2, 3)), noise.roll((2, 11), (2, 3))], 1)
            noise = torch.where(drawn.colour_noise > 0, each, noise)
        x += noise
    if drawn.specks is not None:
        _add_specks(x, drawn.specks)
    return (x.clamp_(0, 1) * lit).mul_(255).contiguous(memory_format=torch.channels_last)


def move(maps: Tensor, drawn: Draw, *, size: int) -> Tensor:
    """Carry maps of photographs to where `apply` puts these: uint8 (N, s, s, k) -> float32 (N, k, size, size), 0..1."""
    x = maps.permute(0, 3, 1, 2).float().div_(255)
    grid = F.affine_grid(drawn.affine, [*x.shape[:2], size, size], align_corners=False)
    moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved * _kept(grid, drawn)[:, None]


def _kept(grid: Tensor, drawn: Draw) -> Tensor:
    """Where the cut at top and bottom hides nothing: bool (N, s, s)."""
    y = grid[..., 1]
    return (y > drawn.cut[:, :1, None] * 2 - 1) & (y < 1 - drawn.cut[:, 1:, None] * 2)


class Recompression(NamedTuple):
    """How one photograph of a batch is made smaller, by a factor, and compressed, at a quality of JPEG."""

    place: int
    scale: float
    quality: int


def draw_recompressions(n: int, share: float, rng: np.random.Generator) -> tuple[Recompression, ...]:
    """Draw which of n photographs are recompressed, about a share of them, and how."""
    return tuple(
        Recompression(place, rng.uniform(0.4, 1.0), round(rng.uniform(20, 90)))
        for place in np.flatnonzero(rng.random(n) < share).tolist()
    )


def recompress(photo: Pixels, change: Recompression) -> Pixels:
    """Make a photograph smaller, compress it and enlarge it again: uint8 (S, S, 3).

    Afterwards neither sharpness nor the blocks of JPEG tell which data set it is from.
    """
    side = len(photo)
    small = round(side * change.scale)
    pixels = np.asarray(cv2.resize(photo, (small, small), interpolation=cv2.INTER_AREA), np.uint8)
    pixels = as_jpeg(pixels, change.quality)
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _draw_dust(n: int, depth: float, generator: torch.Generator) -> Tensor:
    """Draw eight soft spots a photograph: (n, 4, 8) of depth, place across and down, and size; depth 0 is none."""
    spots = torch.rand(n, 4, 8, generator=generator)
    present = (torch.rand(n, 1, generator=generator) < 1 / 3) & (torch.rand(n, 8, generator=generator) < 0.6)
    sign = torch.where(torch.rand(n, 8, generator=generator) < 0.8, -1.0, 1.0)
    return torch.stack([present * sign * spots[:, 0] * depth, spots[:, 1], spots[:, 2], 0.008 + 0.025 * spots[:, 3]], 1)


def _illumination(drawn: Tensor, *, size: int) -> Tensor:
    """What uneven light multiplies each place by: slope across, slope down and bowl (n, 3) -> (n, 1, size, size)."""
    along = torch.linspace(-1, 1, size, device=drawn.device)
    bowl = drawn[:, 2, None] * (along.square() - 0.25)
    across, down = drawn[:, 0, None] * along + bowl, drawn[:, 1, None] * along + bowl
    return torch.exp(across[:, None, None, :] + down[:, None, :, None])


def _dust(drawn: Tensor, *, size: int) -> Tensor:
    """What soft spots multiply each place by: (n, 4, k) -> (n, 1, size, size)."""
    place = (torch.arange(size, device=drawn.device) + 0.5) / size
    depth, x, y, width = drawn.unbind(1)
    across = torch.exp(-0.5 * ((place - x[..., None]) / width[..., None]) ** 2)
    down = torch.exp(-0.5 * ((place - y[..., None]) / width[..., None]) ** 2)
    return (1 + torch.einsum("nk,nky,nkx->nyx", depth, down, across))[:, None]


def _draw_specks(n: int, mean: float, generator: torch.Generator) -> Tensor:
    """Draw specks of dust, dark ones and bright ones, on half of the photographs: (n, k, 5).

    Of each the place across and down, the radius and the width of the edge, in parts of the side, and what it adds to
    the light, in parts of that, 0 for none. They are about as those of the corruption suite, which is not unseen then.
    """
    numbers = torch.rand(n, 2 * math.ceil(mean), 7, generator=generator)
    dusty = torch.rand(n, 1, generator=generator) < 0.5
    across, down, size, softness, strength, kind, there = numbers.unbind(2)
    radius = 0.0035 + 0.0125 * size
    present = dusty & (there < mean / numbers.shape[1])
    light = torch.where(kind < 0.7, -0.75, 0.7) * strength * present
    return torch.stack([across, down, radius, (0.1 + 0.5 * softness) * radius, light], 2)


def _add_specks(x: Tensor, specks: Tensor) -> None:
    """Lay specks over photographs, (n, c, s, s), which are changed."""
    side = x.shape[-1]
    pixels = (torch.arange(side, device=x.device) + 0.5) / side
    for photo, drawn in zip(x, specks, strict=True):
        for across, down, radius, edge, light in drawn[drawn[:, 4] != 0].tolist():
            rows, columns = (slice(*_reached(place, 2 * radius, side)) for place in (down, across))
            away = torch.hypot(pixels[rows, None] - down, pixels[columns] - across)
            photo[:, rows, columns] *= 1 + light * torch.sigmoid(4 * (radius - away) / edge)


def _reached(place: float, reach: float, side: int) -> tuple[int, int]:
    """The first pixel that something reaches, and that after the last."""
    return max(0, int((place - reach) * side)), min(side, math.ceil((place + reach) * side))


def _colour(x: Tensor, gamma: Tensor, contrast: Tensor, tone: Tensor) -> Tensor:
    """Gamma, then the linear tone, with contrast about the retina's own mean. Overwrites x."""
    flat = x.clamp_(min=1e-4).pow_(gamma).flatten(2)
    mean = (tone @ flat.mean(2, keepdim=True)).mean(1, keepdim=True) / contrast
    middle = 2 * mean  # about half of the square is retina
    return torch.baddbmm((1 - contrast) * middle, tone, flat).view(x.shape)


def _blur(x: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur with a deviation of its own for each photograph."""
    n, channels, height, width = x.shape
    taps = torch.arange(-3, 4, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / deviation.clamp(min=1e-2)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = x.reshape(1, n * channels, height, width)
    flat = F.conv2d(flat, kernel[:, None, :, None], padding=(3, 0), groups=n * channels)
    flat = F.conv2d(flat, kernel[:, None, None, :], padding=(0, 3), groups=n * channels)
    return flat.reshape(x.shape)
