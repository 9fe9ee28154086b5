"""What a person runs beside the stages: repro side by side, add data, predict, the UI."""
