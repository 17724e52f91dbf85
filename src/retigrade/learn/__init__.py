"""From a folder of graded photographs to a bundle: manifest, splits, training, metrics, export."""
