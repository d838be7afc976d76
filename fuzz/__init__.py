"""Every parser that reads bytes from elsewhere, with bytes that nobody of ours wrote.

Each module of `fuzz.parsers` has ``seeds()``, good inputs made by code, and ``check(data)``, which
returns for any bytes whatever: what the parser may raise are its documented errors, and what it
takes obeys a law (it is written again as the same bytes, it lies within limits). Anything else is
a bug. ``python -m fuzz`` runs Atheris over them, coverage-guided; ``tests/property/test_fuzz.py``
runs the same checks with hypothesis on every platform.
"""
