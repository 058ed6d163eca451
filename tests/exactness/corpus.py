"""What the model is asked, so that its replies are text of every kind. Pure.

The prompts, seeds and bounds were chosen by trying: the embedded model is tiny, and this is
what it answers in the kind of text that was asked for. A kind is a conversation of three
questions; its bounds differ so that replies end in the middle of a word, of a line of code
and of a character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TURNS = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """One conversation.

    Attributes:
        name: the kind of text.
        prompts: the questions, in order.
        seed: the sampler's seed.
        max_tokens: the bound on every reply.
        fits: what a reply of this kind contains.
    """

    name: str
    prompts: tuple[str, str, str]
    seed: int
    max_tokens: int
    fits: re.Pattern[str]


KINDS = (
    Kind(
        "prose",
        (
            "Tell me a long story about a river.",
            "And what happened to the river after that?",
            "How does the story end?",
        ),
        7,
        44,
        re.compile(r"^[\x20-\x7e\s]{60,}$"),
    ),
    Kind(
        "code",
        (
            "Write a Python function that adds two numbers.",
            "Now write a function that multiplies a list of numbers.",
            "Write a Python class with both of them as methods.",
        ),
        7,
        40,
        re.compile(r"^(def|class) .*:$", re.MULTILINE),
    ),
    Kind(
        "json",
        (
            "Write a JSON object with the fields name, age and city.",
            "Write a JSON list with three such objects.",
            "Answer with JSON only: an object with the fields title, year and tags.",
        ),
        8,
        36,
        re.compile(r'^\s+"\w+": \S', re.MULTILINE),
    ),
    Kind(
        "cjk",
        (
            "Repeat exactly: 你好，世界。我喜欢喝茶，也喜欢看书。今天天气很好。",  # noqa: RUF001  (Chinese)
            "请用中文写一个关于河流的故事。",
            "Continue this list in Chinese: 一月, 二月, 三月, 四月,",
        ),
        8,
        41,
        re.compile("[\u4e00-\u9fff]"),
    ),
    Kind(
        "emoji",
        (
            "🦊🎉🌈🚀🍕🦊🎉🌈🚀🍕🦊🎉🌈🚀🍕",
            "Write only emoji. Continue: 🍎🍌🍇🍎🍌🍇🍎🍌🍇",
            "List five animals, each with its emoji. For example: Fox 🦊, Cat 🐱",
        ),
        8,
        46,
        re.compile("[\U0001f300-\U0001faff]{3}"),
    ),
    Kind(
        "mixed",
        (
            "Repeat: Zoë naïve café 你好 🦊 -> ok! ",
            "Add the Chinese word and an emoji: cat, dog, fox, tree. Example: cat = 猫 🐱",
            'Repeat: {"größe": "très bien", "茶": "🍵"} # tea',
        ),
        7,
        42,
        re.compile(r"[A-Za-z].*[^\x00-\x7f]|[^\x00-\x7f].*[A-Za-z]", re.DOTALL),
    ),
)
TEMPERATURES = (0.0, 0.8)
