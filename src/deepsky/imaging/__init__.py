"""WHAT pixels are: arrays in, arrays out, no paths of its own."""
