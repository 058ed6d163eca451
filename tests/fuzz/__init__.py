"""Everything that reads bytes from outside, driven by bytes that nobody would send.

`targets` holds one function for each reader: it takes bytes and fails where the reader does
something that it does not promise. ``tests/llmctl/test_fuzz.py`` feeds them what hypothesis
makes up, in every run; ``python -m tests.fuzz`` feeds them what a coverage-guided fuzzer does.
"""
