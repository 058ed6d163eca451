"""The first code block, whatever the chunks."""

from __future__ import annotations

import pytest

from llmctl.extract import FirstBlock

REPLY = "See:\n\n```python\nprint('a')\n  x = 1\n```\nand\n~~~sh\nls\n~~~\n"


def extracted(text: str, language: str = "", *, size: int = 1) -> str:
    block = FirstBlock(language)
    parts = [block.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join(parts) + block.finish()


@pytest.mark.parametrize("size", range(1, len(REPLY) + 1))
def test_any_chunking_gives_the_same_block(size: int) -> None:
    assert extracted(REPLY, size=size) == "print('a')\n  x = 1\n"


def test_the_language_chooses_the_block() -> None:
    assert extracted(REPLY, "sh") == "ls\n"
    assert extracted(REPLY, "Python") == "print('a')\n  x = 1\n"
    assert extracted(REPLY, "rust") == ""


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert extracted("````md\n```\nin\n```\n````\n") == "```\nin\n```\n"


def test_a_block_without_an_end_ends_with_the_text() -> None:
    assert extracted("```\nhalf") == "half"


def test_the_indentation_of_the_fence_is_not_the_codes() -> None:
    assert extracted("  ```\n  a\n    b\n c\n  ```\n") == "a\n  b\nc\n"


def test_text_without_a_block_gives_nothing() -> None:
    assert extracted("a `code` b ``` c\n") == ""
