"""Attacks on privacy and integrity, and what each party of a round sees: the parts of ``benchmarks/attacks.py``."""
