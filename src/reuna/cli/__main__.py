"""``python -m reuna.cli`` is the ``reuna`` command."""

from reuna.cli import main

main()
