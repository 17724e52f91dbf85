"""From labelled photographs to a bundle."""
