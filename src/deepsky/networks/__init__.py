"""One file per architecture, heads and pretrained weights; ``registry`` names them all."""
