"""Predictions to figures, reports and model cards."""
