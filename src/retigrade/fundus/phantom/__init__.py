"""Synthetic eyes: fundus photographs drawn from nothing, with the truth about what is in them."""

from retigrade.fundus.phantom.demo import demo_eyes, write_demo
from retigrade.fundus.phantom.eye import MASKS, Phantom, draw_eye

__all__ = ["MASKS", "Phantom", "demo_eyes", "draw_eye", "write_demo"]
