"""Proof that `llmctl` is exact on the real engine: cut anywhere, resumed, compared.

``python -m tests.exactness --count 600`` tries that many combinations from outside, through
the command line, and says what it found; docs/exactness.md has the figures.
"""
