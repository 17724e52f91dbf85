"""Millions of photographs on Ray Data: from folders, object stores, manifests and tar shards to Parquet."""
