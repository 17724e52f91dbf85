"""From a file to the canonical field: decode, find the disc, judge the quality, crop."""
