"""Facts of the SDSS imaging survey: its bands and frames."""

BANDS = ("u", "g", "r", "i", "z")
FRAME_SHAPE = (1489, 2048)  # rows, columns
PIXEL_ARCSEC = 0.396
UNIQUE_ROWS = 1361  # the other 128 rows of a frame are the first rows of the next field
# A frame's FRAME keyword: the field of the r frame was read out earlier or later by the other CCD rows.
FRAME_DELAY = {"u": 4, "g": 8, "r": 0, "i": 2, "z": 6}
