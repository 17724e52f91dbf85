"""Labelled folders: layouts, manifest, duplicates, groups, splits, audit, annotations, cache."""
