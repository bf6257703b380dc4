"""The layers: one lecture's idea a file."""
