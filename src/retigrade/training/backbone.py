"""Backbones from timm by name: made, given starting weights, and brought to one contract, a feature map (N, C, h, w).

Convolutional networks give such a map. Transformers give tokens (ViT: N, 1 + h w, C) or channels last (Swin: N, h, w,
C), which are laid out as a map here.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from retigrade.errors import RetigradeError, UsageError
from retigrade.training.recipe import Recipe

HIGH_RESOLUTION_STRIDE = 8
"""Pixels from one cell of the high-resolution head to the next."""
FAMILIES = (
    "beit", "convnext", "convnextv2", "deit", "densenet", "efficientnet", "eva02", "ghostnet", "inception", "maxvit",
    "mixnet", "mobilenetv2", "mobilenetv3", "poolformer", "pvt_v2", "regnet", "repvgg", "resnet", "resnetv2",
    "resnext", "swin", "swinv2", "vgg", "vit", "xception",
)  # fmt: skip
"""Families of networks that are known to work; a test tries each."""
_PROBE_SIZE = 96


def create_backbone(name: str, *, pretrained: bool, size: int, same_padding: bool = False) -> tuple[Any, int]:
    """Return a timm network without its head, and the channels of its feature map.

    pretrained: start from timm's ImageNet weights, a download, rather than at random. size: the photo's side.
    Raises UsageError for an unknown name, weights that cannot be had, or a network that gives no feature map.
    """
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise UsageError(f"unknown backbone {name!r}; did you mean {', '.join(nearest) or 'mobilenetv2_100'}?")
    options: dict[str, Any] = {"pad_type": "same"} if same_padding else {}
    if has_fixed_size(name):
        options["img_size"] = size
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(_unsuited(name)) from error
    if pretrained:
        try:
            backbone = timm.create_model(name, pretrained=True, num_classes=0, global_pool="", **options)
        except Exception as error:  # of whatever fetches the weights; each of its versions raises its own kind
            raise UsageError(
                f"cannot fetch ImageNet weights for {name} ({type(error).__name__}); give a file with --weights, or "
                "start at random with --random-start"
            ) from error
    if name.startswith("vgg"):  # its two wide layers give way to the pooled head
        backbone.pre_logits = nn.Identity()
    return backbone, _channels(backbone, name, size=size if has_fixed_size(name) else _PROBE_SIZE)


def has_fixed_size(name: str) -> bool:
    """Whether a network takes photos of the one size that it was made for, as transformers do."""
    return bool(timm.get_pretrained_cfg_value(name, "fixed_input_size"))


def high_resolution_stage(backbone: Any) -> int | None:
    """The stage whose cells are `HIGH_RESOLUTION_STRIDE` pixels apart; None in a network without."""
    strides = [stage["reduction"] for stage in backbone.feature_info]
    if HIGH_RESOLUTION_STRIDE not in strides or not hasattr(backbone, "forward_intermediates"):
        return None
    return strides.index(HIGH_RESOLUTION_STRIDE)


def first_layers(backbone: Any, stride: int) -> list[nn.Module]:
    """The layers up to the last feature map of a stride, in pixels; UsageError where there is no such map."""
    strides = [stage["reduction"] for stage in backbone.feature_info]
    if stride not in strides:
        raise UsageError(f"this backbone has no feature map of stride {stride}: it has {sorted(set(strides))}")
    last = [stage["module"] for stage in backbone.feature_info if stage["reduction"] == stride][-1]
    layers: list[nn.Module] = []
    is_inside = False
    for name, module in backbone.named_modules():
        was_inside, is_inside = is_inside, f"{name}.".startswith(f"{last}.")
        if was_inside and not is_inside:
            break
        if name and not last.startswith(f"{name}."):  # what holds others stays as it is
            layers.append(module)
    return layers


def suited(recipe: Recipe, name: str) -> tuple[Recipe, list[str]]:
    """The recipe as far as a backbone can follow it, and a sentence on each thing that it cannot."""
    backbone, _ = create_backbone(name, pretrained=False, size=recipe.size)
    sentences = []
    if recipe.high_resolution and high_resolution_stage(backbone) is None:
        recipe = replace(recipe, high_resolution=0.0)
        sentences.append(f"{name} has no feature map of stride {HIGH_RESOLUTION_STRIDE}: no high-resolution head")
    if recipe.small_share and has_fixed_size(name):
        recipe = replace(recipe, small_share=0.0)
        sentences.append(f"{name} takes photos of one size: every epoch is trained at {recipe.size} pixels")
    return recipe, sentences


def as_feature_map(features: Tensor, backbone: Any) -> Tensor:
    """Lay out what `forward_features` of a timm network gives as (N, C, h, w); ValueError where it cannot be."""
    if not isinstance(features, Tensor):
        raise ValueError(f"features are a {type(features).__name__}")
    channels = int(backbone.num_features)
    if features.ndim == 3:  # tokens: prefixes such as the class token, then the places row by row
        tokens = features[:, int(getattr(backbone, "num_prefix_tokens", 0)) :]
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens are no square")
        return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], side, side)
    if features.ndim != 4:
        raise ValueError(f"features have {features.ndim} dimensions")
    if features.shape[3] == channels and features.shape[1] == features.shape[2] != channels:
        return features.permute(0, 3, 1, 2)
    return features


def _channels(backbone: Any, name: str, *, size: int) -> int:
    """Channels of the feature map, found by a trial."""
    was_training = backbone.training
    try:
        with torch.inference_mode():
            features = as_feature_map(backbone.eval().forward_features(torch.zeros(1, 3, size, size)), backbone)
    except RetigradeError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(_unsuited(name)) from error
    backbone.train(was_training)
    return int(features.shape[1])


def _unsuited(name: str) -> str:
    return f"the backbone {name} gives no feature map that can be graded; take one of {', '.join(FAMILIES)}"
