"""Synthetic eyes: fundus photographs drawn from nothing, with the truth about what is in them."""

from retigrade.synthetic.eye import MASKS, Phantom, demo_eyes, draw_eye, write_eyes, write_labelled_eyes

__all__ = ["MASKS", "Phantom", "demo_eyes", "draw_eye", "write_eyes", "write_labelled_eyes"]
