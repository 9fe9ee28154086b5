"""Figures of trained networks: scores, tables and pictures; needs no page."""
