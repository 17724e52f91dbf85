"""The REST interface, below /v1, and what those who run the server ask it."""
