"""Synthetic eyes: fundus photographs drawn from nothing, with the truth about what is in them."""

from retigrade.synthetic.demo import demo_eyes, write_demo
from retigrade.synthetic.eye import MASKS, Phantom, draw_eye

__all__ = ["MASKS", "Phantom", "demo_eyes", "draw_eye", "write_demo"]
