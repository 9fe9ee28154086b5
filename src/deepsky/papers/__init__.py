"""The studies that deepsky grew out of: what each ran, as params.yaml says it, and what it printed."""
