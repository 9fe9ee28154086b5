"""The simulated sky: objects, fields, light, and files as the archives and publishers serve them."""
