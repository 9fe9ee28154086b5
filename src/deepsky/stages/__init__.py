"""One module per DVC stage, each one run() over files."""
