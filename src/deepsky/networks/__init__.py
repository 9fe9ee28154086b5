"""One file per architecture, heads and pretrained weights; one literal registry."""
