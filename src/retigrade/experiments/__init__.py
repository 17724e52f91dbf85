"""Experiments: a training run with its record on disk, runs compared, bundles combined."""
