"""Markdown as it streams in: lines that stay, and a short tail that may still change."""
