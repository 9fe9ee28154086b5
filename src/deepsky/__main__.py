"""python -m deepsky."""

from deepsky.cli import main

main()
