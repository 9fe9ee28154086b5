"""params.yaml as one experiment."""
