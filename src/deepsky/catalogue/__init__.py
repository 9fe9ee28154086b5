"""WHICH objects: rows with id, position, class and the frame that holds them."""
