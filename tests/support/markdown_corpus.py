"""Replies in Markdown: edge cases, each with a name, and real texts where packages have them."""

# ruff: noqa: E501  (a text on one line shows where its own lines end)

from __future__ import annotations

import random
from importlib.metadata import distributions

_LONG = " ".join(f"word{number}" for number in range(300))
_CODE = "\n".join(
    f"    value_{number} = compute({number})  # step {number}" for number in range(40)
)

CORPUS: dict[str, str] = {
    "empty": "",
    "one word": "Hello",
    "a number": "42",
    "blank lines only": "\n\n\n",
    "no newline at the end": "One line\n\nand another",
    "paragraphs": "First paragraph.\n\nSecond, which\nhas two lines.\n\n\n\nThird.",
    "long paragraph": _LONG,
    "long paragraph with styles": " ".join(f"**b{n}** _e{n}_ `c{n}` plain" for n in range(150)),
    "span over a long paragraph": f"**{_LONG}** end",
    "no spaces at all": "x" * 5000,
    "no spaces and wide": "漢字" * 900,
    "headings": "# One\n## Two\ntext\n### Three ###\n#### *Four*\n##### Five\n###### Six\n####### no",
    "setext": "Title\n=====\n\nOther *title*\n---\n\ntext\n\n---\n",
    "setext of two lines": "a\nb\n===\nc",
    "empty headings": "#\n\n## ##\n\n#nope",
    "emphasis": "*a* **b** ***c*** _d_ __e__ *f **g** h* **i *j* k** ~~l~~ ~m~",
    "emphasis that is none": "2 * 3 * 4, snake_case_name, a*, *b, ** c **, __init__, 5*6*7",
    "emphasis over lines": "**bold\nstill bold** and *it\nalic*",
    "rule of three": "*foo**bar**baz* **foo*bar*baz** ***strong** em* foo******bar*********baz",
    "unclosed": "**bold `code [link](http://example.com *more",
    "code spans": "`a` ``b`c`` ` d ` `e\nf` ```g``` `unclosed ``too",
    "escapes": r"\*no\* \[no\](x) \`no\` \\ \a \# 1\. \<b>",
    "entities": "&amp; &copy; &nbsp; &#65; &#x42; &nosuch; &#0; AT&T &lt;b&gt;",
    "links": "[a](http://a.example/x) [b](<c d> 't') [*c*](/d(e)f) [](x) [e]() <http://f.example>",
    "links that are none": "[a] [b](c d) [e](f [g]h] (i) [j] (k)",
    "links in links": "[a [b](c) d](e) ![x [y](z)](w) [![i](s)](l)",
    "dangerous links": "[a](javascript:alert(1)) [b](JavaScript:x) <javascript:y> [c](data:text/html,z)",
    "mail": "<me@example.com> and https://bare.example/path_with_underscores_",
    "references stay": "[a][b] and [c]\n\n[b]: http://b.example 'title'\n[c]: <d>",
    "images": "![alt *text*](pic.png) ![](empty.png)",
    "hard breaks": "one  \ntwo\\\nthree\nfour   \n\nfive  ",
    "html": "<div class='x'>\n*raw*\n</div>\n\n<b>in*li*ne</b> text\n\n<!-- a\n\ncomment -->\nafter",
    "html kinds": "<?php\n echo 1 ?>\n<!DOCTYPE html>\n<script>\n*a*\n\n*b*\n</script>\n<br>\n\nx<br/>y",
    "details": "<details>\n<summary>More</summary>\n\n- hidden\n\n</details>",
    "thematic breaks": "a\n\n---\n\n***\n_ _ _\n- - -\nb\n***\nc",
    "list": "- one\n- two\n- three",
    "loose list": "- one\n\n- two\n\n\n- three\n\nafter",
    "list of paragraphs": "- one\n\n  still one\n\n- two\n  lazily\ngoes on",
    "nested lists": "- a\n  - b\n    - c\n      - d\n  - e\n- f\n    1. g\n    2. h\n\n       i\n- j",
    "ordered": "1. one\n2. two\n3) other list\n7) eight\n\n10. ten\n11. eleven",
    "ordered all one": "1. a\n1. b\n1. c",
    "changing bullets": "- a\n* b\n+ c\n- d",
    "empty items": "-\n- b\n-\n\n  c\n1.\n2. d",
    "list after a paragraph": "Here:\n- a\n- b\nThere:\n2. not a list\n1. a list",
    "tasks": "- [ ] open\n- [x] done\n- [link](x) item",
    "code in a list": "1. Install:\n\n   ```sh\n   pip install x\n\n   x --help\n   ```\n\n2. Run:\n       indented\n",
    "quote in a list": "- a\n  > b\n  > c\n- d",
    "list in a quote": "> - a\n>   b\n>\n>   c\n> - d\n> 1. e\ntail",
    "quotes": "> a\n> b\n\n> c\n>\n> d\nlazy\n\n>e\n> > f\n>>> g\n> h",
    "quote with everything": "> # T\n> text\n>\n> ```py\n> x = 1\n>\n> y = 2\n> ```\n> | a | b |\n> |---|---|\n> | 1 | 2 |",
    "fence": "Before\n```python\ndef f(x):\n    return x  # why\n```\nAfter",
    "fence without a language": "```\nplain\n\n    kept\n```",
    "fence unclosed": "```js\nlet a = 1;\nlet b = `two",
    "fence of tildes": "~~~ ruby startline=3\nputs 'x'\n```\n~~~\n",
    "fences in fences": "````md\n```py\nx\n```\n````\n~~~\n```\n~~~",
    "fence ended by its container": "- ```\n  a\nb\n\n> ```\n> c\nd",
    "indented fence": "   ```\n   a\n     b\n  c\n   ```",
    "long code": f"```python\n{_CODE}\n```",
    "code of a very long line": f"```\n{'data' * 900}\nshort\n```",
    "code with tabs": "```go\nfunc f() {\n\treturn\n\tif x {\n\t\ty()\n\t}\n}\n```\n\n-\ttabbed\n\n\tcode",
    "docstrings": '```python\ndef f():\n    """One.\n\n    Two `three`.\n    """\n    return 1\n```',
    "block comments": "```c\n/* one\n   two */ int x = 1; // three\n#include <a.h>\n```",
    "languages": "".join(
        f"```{name}\n# a 'b' 12 if x == null // c\n```\n"
        for name in (
            "json",
            "yaml",
            "html",
            "css",
            "sql",
            "rust",
            "sh",
            "diff",
            "php",
            "lua",
            "make",
            "none",
        )
    ),
    "diff": "```diff\n--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n same\n```",
    "indented code": "text\n\n    code\n\n\n      more\n\ntext\n    lazy",
    "table": "| Name | Value |\n|:-----|------:|\n| a | 1 |\n| **b** | `2` |\n\nafter",
    "table without edges": "a | b | c\n--- | :-: | ---\n1 | 2\n3 | 4 | 5 | 6\n",
    "table after text": "Some text\n| a | b |\n|---|---|\n| 1 | 2 |\ntext row\n# heading",
    "table of wide cells": "| A | B |\n|---|---|\n| "
    + "long words here " * 8
    + "| "
    + "x" * 60
    + " |\n| c | d |",
    "table of wide characters": "| 名前 | 👩‍💻 |\n|---|---|\n| 日本語テキスト | é |\n| a \\| b | |",
    "table of many columns": "|" + "a|" * 30 + "\n|" + "-|" * 30 + "\n|" + "1|" * 30,
    "large table": "| n | text |\n|--:|---|\n"
    + "".join(f"| {n} | row number {n}, {'more ' * (n % 7)}|\n" for n in range(80)),
    "not a table": "| a | b |\n|---|\n| 1 | 2 |\n\n|---|---|",
    "table cut off": "| a | b |\n|---|---|\n| 1 | 2",
    "emoji": "👍 👩‍👩‍👧‍👦 🇩🇪 ❤️ 1️⃣ " * 12,
    "mixed scripts": "English 日本語テキスト、中文。한국어 русский עברית عربى ไทย हिन्दी " * 8,
    "combining": "e\u0301a\u0308o\u0302 " * 60,
    "deep nesting": "".join(f"{'  ' * depth}- level {depth}\n" for depth in range(30)),
    "deep quotes": "> " * 40 + "deep\n" + ">" * 60 + " deeper",
    "pathological brackets": "[" * 300 + "a" + "](b" * 100,
    "pathological stars": "*a **b " * 100 + "a*_" * 80,
    "pathological ticks": "".join("`" * n + "a" for n in range(1, 40)),
    "carriage returns": "one\r\ntwo\r\n\r\n- a\r\n- b\rc",
    "a reply": (
        "Sure! Here's how to **sort a list** in Python:\n\n1. Use `sorted()`:\n\n"
        "   ```python\n   data = [3, 1, 2]\n   print(sorted(data))  # [1, 2, 3]\n   ```\n\n"
        "2. Or sort in place:\n\n   ```python\n   data.sort(key=lambda x: -x)\n   ```\n\n"
        "### Comparison\n\n| Method | Returns | In place |\n|--------|---------|:--------:|\n"
        "| `sorted` | new list | no |\n| `.sort` | `None` | yes |\n\n"
        "> **Note:** both are *stable*; see the [docs](https://docs.example/sort).\n\n"
        "---\n\nLet me know if you have questions! 😊"
    ),
    "a poem": "Roses are red,\nviolets are blue,\n  indented a bit,\nand so are you.",
    "mathematics": "Let $x_i = \\frac{1}{2}$ and $$a_1 * b_2 = \\sum_{k=1}^n k$$ then\n\\[ x^2 \\]",
    "a conversation": "**User:** hi\n**Model:** hello\n\n* * *\n\n_End_ of `log`.",
}


def real_texts(most: int) -> dict[str, str]:
    """Return the descriptions in Markdown of packages that are installed here."""
    found: dict[str, str] = {}
    for distribution in distributions():
        about = distribution.metadata
        text = about.json.get("description")
        if about.json.get("description_content_type") == "text/markdown" and isinstance(text, str):
            found[about["Name"]] = text[:6000]
    return dict(sorted(found.items())[:most])


_ATOMS = (
    "a", "b ", "word ", " ", "  ", "    ", "\n", "\n\n", "*", "**", "_", "`", "```\n", "~~", "[",
    "](x)", "!", "<", "<div>\n", "</div>", "<!--", "-->", "&amp;", "# ", "## ", "- ", "+ ", "1. ",
    "2) ", "> ", "| a | b |\n|---|---|\n", "---\n", "===\n", "\\", "py\n", "  - c\n", "1. x\n",
    "\n- ", "<b>", "(", ")", '"',
)  # fmt: skip
_MORE = ("日本", "👩‍💻", "\t", "x" * 50, "|", "http://a.example/b", "~~~\n", "é", "x" * 450)


def made_up(drawn: random.Random, length: int, *, wild: bool) -> str:
    """Return a document nobody would write; ``wild`` puts in what widths depend on."""
    atoms = _ATOMS + _MORE if wild else _ATOMS
    return "".join(drawn.choice(atoms) for _ in range(drawn.randrange(1, length)))
