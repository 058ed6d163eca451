"""The screen and the keyboard. Only here are prompt_toolkit and rich imported."""
