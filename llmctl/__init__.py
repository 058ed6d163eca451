"""A terminal client for language models whose replies pause, resume and survive.

The program is a command, `llmctl`; nothing here is imported before it is needed.
"""
