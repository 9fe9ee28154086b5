"""One file per dataset format: a reader of a published layout, and what it hands over to be packed."""
