"""Figures of graded photographs: classification, calibration, conformal sets, decisions, bootstrap."""
