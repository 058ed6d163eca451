"""The first code block, whatever the chunks."""

from __future__ import annotations

import random
import re

import pytest

from llmctl.extract import FirstBlock, code_blocks
from tests.support.markdown_corpus import CORPUS, real_texts
from tests.support.markdown_oracle import fenced

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


# -- where a fence may stand


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("- a\n  ```\n  x\n    y\n  ```\n", ["x\n  y"]),
        ("- a\n  - b\n\n    ```py\n    x\n    ```\n", ["x"]),
        ("1. a\n   - b\n     ~~~\n     x\n\n       y\n     ~~~\n2. c", ["x\n\n  y"]),
        ("- ```\n  x\n  ```", ["x"]),
        ("10) ```\n    x\n    ```", ["x"]),
        ("> ```\n> x\n>\n>  y\n>z\n> ```\n", ["x\n\n y\nz"]),
        ("> - > ```\n>   > x\n>   > ```\n", ["x"]),
        ("1. Makefile:\n\n   ```make\n   all:\n   \tcc\n   ```\n", ["all:\n\tcc"]),
        ("-\ta\n\n\t```\n\tx\n\t```\n", ["x"]),
        ("- ```\n\tx\n  ```", ["  x"]),
    ],
)
def test_blocks_in_lists_and_quotes(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks == fenced(text)
    assert extracted(text) == blocks[0] + "\n"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("- ```\n  x\ny\n", ["x"]),
        ("> ```\n> x\ny\n", ["x"]),
        ("> ```\n> x\n```\ny\n```", ["x", "y"]),
        ("- ```\n  x\n- ```\n  y\n", ["x", "y"]),
    ],
)
def test_a_block_ends_with_its_list_or_quote(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks == fenced(text)
    assert extracted(text) == blocks[0] + "\n"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("~~~ a`b\nx\n~~~\n", ["x"]),
        ("~~~ ~~~\nx\n~~~\n", ["x"]),
        ("``` a`b\nx\n", []),
        ("    ```\n    x\n    ```", []),
        ("a\n    ```\nx\n", []),
        ("``\nx\n``", []),
        ("a\n2. ```\nx\n", []),
        ("a\n-\n      ```\nx\n", []),
        ("-\n\n  ```\n  x\n", ["x"]),
        ("-\n  ```\n  x\n", ["x"]),
    ],
)
def test_what_opens_a_block(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks == fenced(text)


def test_the_language_may_hold_a_backtick_behind_tildes() -> None:
    assert extracted("~~~ a`b\nx\n~~~\n", "a`b") == "x\n"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```\naaa\n    ```\nbbb", ["aaa\n    ```\nbbb"]),
        ("```\naaa\n   ```\nbbb", ["aaa"]),
        ("```\naaa\n\t```\nbbb", ["aaa\n\t```\nbbb"]),
        ("- ```\n  aaa\n     ```\n  bbb", ["aaa"]),
        ("- ```\n  aaa\n      ```\n  bbb", ["aaa\n    ```\nbbb"]),
        ("```\naaa\n``` x\nbbb", ["aaa\n``` x\nbbb"]),
        ("```\naaa\n````  \nbbb", ["aaa"]),
    ],
)
def test_what_closes_a_block(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks == fenced(text)
    assert extracted(text) == blocks[0] + "\n" * (text.count("bbb") - blocks[0].count("bbb"))


@pytest.mark.parametrize(
    ("text", "block"),
    [("```\nhalf", "half"), ("- a\n  ```\n  half", "half"), ("> ~~~\n> half", "half"), ("```", "")],
)
def test_a_block_that_is_never_closed(text: str, block: str) -> None:
    assert code_blocks(text) == [block] == fenced(text)
    assert extracted(text) == block


def test_line_ends_of_two_characters() -> None:
    assert code_blocks("a\r\n```py\r\nx\r\n```\r\n- \r\n  ~~~\r\n  y\r\n  ~~~\r\n") == [
        "x\r",
        "y\r",
    ]
    assert extracted("```py\r\nx\r\n```\r\n", "py") == "x\r\n"


@pytest.mark.parametrize("name", CORPUS)
def test_blocks_are_those_that_markdown_it_finds(name: str) -> None:
    assert code_blocks(CORPUS[name]) == fenced(CORPUS[name])


def test_blocks_of_real_texts() -> None:
    for name, text in real_texts(40).items():
        assert code_blocks(text) == fenced(text), name


_ATOMS = (
    "a", "b ", " ", "  ", "    ", "\n", "\n\n", "```\n", "```", "~~~\n", "````", "`", "> ", "- ",
    "* ", "1. ", "2) ", "10. ", "\n\t", "\n- ", "\n  ", "\n    ", "\n> ", "# ", "---\n", "===\n",
)  # fmt: skip
_ITS_OWN = re.compile(r"(?:    |\t *)>")
"""Where the judge itself errs: a quote does not go on behind four columns."""


def test_blocks_of_wild_texts() -> None:
    drawn = random.Random(3)  # noqa: S311  (repeatable)
    for _ in range(3000):
        text = "".join(drawn.choices(_ATOMS, k=drawn.randrange(1, 25))) + "\n"
        if not _ITS_OWN.search(text):
            assert code_blocks(text) == fenced(text), repr(text)
