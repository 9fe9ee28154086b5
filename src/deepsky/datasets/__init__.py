"""Images and labels ready to learn from."""
