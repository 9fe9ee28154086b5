"""Images and labels ready to learn from; one file per published dataset, all of them in ``registry``."""
