r"""Markdown, a line at a time: what is final leaves as rows, what may change stays inside. Pure.

The first phase of CommonMark's parsing strategy reads a document line by line anyway: a line
goes on with the containers that are open (quotes, lists, items), may close some and open
others, and the rest of it belongs to one leaf (a paragraph, code, a table). So a block is
final as soon as the next one begins, and a line of code as soon as it is there; nothing is
ever read twice, however long the document or deeply nested the block.

What differs from the specification, so that nothing that was shown has to be taken back:

- A paragraph of more than a few rows is parsed in pieces; each ends where nothing is open,
  unless two thousand characters have passed. Such a paragraph is no heading, whatever
  line is under it.
- References to links, and their definitions, stay as they were written.
- A blank row is where a blank line was, and above a heading; a list is as loose as its lines.
- A line end in a paragraph is a line end: so people and models mean it in a chat.
- A table's columns stay as they are once it has 16 rows or 4,000 characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from llmctl import fences
from llmctl.fences import DEEPEST
from llmctl.terminal.markdown import blocks
from llmctl.terminal.markdown.blocks import Bullets, Container, Item, Quote, follow, indent_of
from llmctl.terminal.markdown.inline import spans_of
from llmctl.terminal.markdown.leaves import Fence, Grid, Html, Indented, Leaf, Paragraph
from llmctl.terminal.markdown.table import Table, cells_of, is_delimiter
from llmctl.terminal.markdown.wrap import Wrap
from llmctl.terminal.spans import CODE, HEADING, NEWLINE, QUIET, Line, Span, width_of
from llmctl.terminal.width import cells

NARROWEST = 10
"""Cells that containers leave to the text, however deeply they nest."""

RULE_CELLS = 40
LANGUAGE_CHARS = 24


class Document:
    """A document that is being read.

    Args:
        width: the cells of a row.
        ticks: code keeps its backticks, since no colour tells it.
    """

    def __init__(self, width: int, *, ticks: bool) -> None:
        self._width = width
        self._ticks = ticks
        self._containers: list[Container] = []
        self._leaf: Leaf | None = None
        self._matched = 0
        self._blank = False
        self._begun = False
        self._cut_line = False
        self._opened = False
        self._out: list[Span] = []

    def copy(self) -> Document:
        """Return one that goes on by itself, with nothing to take yet."""
        other = Document(self._width, ticks=self._ticks)
        other._containers = [copy(container) for container in self._containers]
        other._leaf = self._leaf.copy() if self._leaf is not None else None
        other._blank, other._begun = self._blank, self._begun
        other._cut_line = self._cut_line
        return other

    def take(self) -> list[Span]:
        """Return, once, what is final."""
        out, self._out = self._out, []
        return out

    def resize(self, width: int) -> None:
        """Wrap what is to come for another width."""
        self._width = width
        if isinstance(self._leaf, Paragraph):
            self._leaf.wrap.resize(self._room())

    # -- lines

    @property
    def in_code(self) -> bool:
        """Whether the next line is code unless it ends it."""
        return isinstance(self._leaf, Fence)

    @property
    def in_table(self) -> bool:
        """Whether the next line may be a table's row."""
        return isinstance(self._leaf, Grid)

    def line(self, text: str) -> None:
        """Take a whole line, without its end."""
        self._matched, rest = self._match(text)
        self._opened = False
        whole = self._matched == len(self._containers)
        if whole and isinstance(self._leaf, Fence | Html):
            self._go_on(self._leaf, rest)
            return
        while rest.strip(" "):
            follows = self._begin(rest)
            if follows is None:
                break
            if follows is _DONE:
                return
            rest = follows
        self._text(rest)

    def begin(self, text: str) -> None:
        """Take the beginning of a line that is too long to be waited for."""
        if isinstance(self._leaf, Grid):
            self._close_leaf()
        self._cut_line = True
        self.line(text)
        if self._leaf is None:  # it began with what takes a whole line: a paragraph follows
            if self._out and self._out[-1] != NEWLINE:
                self._out.append(NEWLINE)
            self._leaf = Paragraph(Wrap(self._room()))

    def more(self, text: str) -> None:
        """Take more of a line that has begun."""
        if isinstance(self._leaf, Paragraph):
            self._leaf.text += text
            self._rows(self._leaf.settle(self._inline, begun=self._cut_line))
        elif text:
            self._out.append((text, 0))

    def end(self) -> None:
        """End a line that has begun."""
        self._cut_line = False
        if not isinstance(self._leaf, Paragraph):
            self._out.append(NEWLINE)
        elif self._leaf.style:
            self._close_leaf()

    def close(self, *, growing: bool = False) -> None:
        """End the document; ``growing``: show how it stands while more is to come."""
        if self._cut_line:
            self._cut_line = False
            if not isinstance(self._leaf, Paragraph | None):
                self._out.append(NEWLINE)
        self._close_leaf(growing=growing)
        self._close_to(0)

    def _match(self, line: str) -> tuple[int, str]:
        """Return how many of the open containers a line goes on with, and what is left of it."""
        for number, container in enumerate(self._containers):
            rest = follow(container, line)
            if rest is None:
                return number, line
            line = rest
        return len(self._containers), line

    def _go_on(self, leaf: Fence | Html, line: str) -> None:
        if isinstance(leaf, Fence):
            if leaf.closes(line):
                self._close_leaf()
            else:
                self._row(leaf.code(line))
            return
        ends = leaf.start.ends
        if ends is None and not line.strip(" "):
            self._leaf = None
            self._blank = True
            return
        self._row([(line, 0)])
        if ends is not None and ends.search(line):
            self._leaf = None

    def _text(self, line: str) -> None:
        """Take a line, or what its containers left of it, that begins no block."""
        if not line.strip(" "):
            if not self._opened:
                self._blank_line()
            return
        leaf = self._leaf
        if isinstance(leaf, Paragraph):  # it goes on, if need be lazily
            leaf.text += ("\n" if leaf.text or leaf.cut else "") + line.lstrip(" ")
            self._rows(leaf.settle(self._inline, begun=self._cut_line))
        elif isinstance(leaf, Grid) and self._matched == len(self._containers):
            leaf.table.add(line.strip(" "))
            if leaf.large:
                self._rows(leaf.table.rows(self._room(), self._inline))
        else:
            self._new_block()
            self._leaf = Paragraph(Wrap(self._room()), line.lstrip(" "))
            self._rows(self._leaf.settle(self._inline, begun=self._cut_line))

    def _blank_line(self) -> None:
        self._close_to(self._matched)
        if isinstance(self._leaf, Indented):
            self._leaf.blanks += 1
            return
        self._close_leaf()
        self._blank = True

    # -- beginnings; each returns what is left of the line, `_DONE`, or None if it is not the one

    def _begin(self, line: str) -> str | None:
        if indent_of(line) >= fences.CODE_INDENT:
            return self._indented(line)
        for begins in (
            self._table,
            self._quote,
            self._heading,
            self._fence,
            self._html,
            self._underline,
            self._rule,
            self._item,
        ):
            rest = begins(line)
            if rest is not None:
                return rest
        return None

    @property
    def _paragraph(self) -> Paragraph | None:
        """The paragraph that the line would go on with, if it began nothing."""
        leaf = self._leaf
        whole = self._matched == len(self._containers)
        return leaf if isinstance(leaf, Paragraph) and whole else None

    @property
    def _deep(self) -> bool:
        return self._matched >= DEEPEST

    def _indented(self, line: str) -> str | None:
        if isinstance(self._leaf, Paragraph):
            return None
        if isinstance(self._leaf, Indented) and self._matched == len(self._containers):
            for _ in range(self._leaf.blanks):
                self._row([])
            self._leaf.blanks = 0
        else:
            self._new_block()
            self._leaf = Indented()
        self._row([(line[fences.CODE_INDENT :], CODE)])
        return _DONE

    def _quote(self, line: str) -> str | None:
        found = blocks.QUOTE.match(line)
        if found is None or self._deep:
            return None
        self._new_block()
        self._open(Quote())
        return line[found.end() :]

    def _heading(self, line: str) -> str | None:
        found = fences.HEADING.match(line)
        if found is None:
            return None
        self._new_block(spaced=True)
        title = blocks.HEADING_END.sub("", line[found.end() :]).rstrip(" ")
        self._leaf = self._titled(Paragraph(Wrap(self._room()), title), found[1])
        if not self._cut_line:
            self._close_leaf()
        return _DONE

    def _titled(self, paragraph: Paragraph, signs: str) -> Paragraph:
        paragraph.style = HEADING
        paragraph.wrap.feed([(f"{signs} ", QUIET)])
        return paragraph

    def _fence(self, line: str) -> str | None:
        found = fences.FENCE.match(line)
        if found is None:
            return None
        self._new_block()
        self._leaf = Fence(found[2], len(found[1]), found[3][:LANGUAGE_CHARS])
        self._row(self._leaf.top())
        return _DONE

    def _html(self, line: str) -> str | None:
        start = next((start for start in blocks.HTML if start.begins.match(line)), None)
        if start is None:
            return None
        if isinstance(self._leaf, Paragraph | Grid) and not start.interrupts:
            return None
        self._new_block()
        self._leaf = Html(start)
        self._go_on(self._leaf, line)
        return _DONE

    def _table(self, line: str) -> str | None:
        paragraph = self._paragraph
        if paragraph is None or not is_delimiter(line):
            return None
        above, newline, head = paragraph.text.rpartition("\n")
        if (paragraph.cut and not newline) or "|" not in head:
            return None
        if len(cells_of(head)) != len(cells_of(line)):
            return None
        paragraph.text = above
        if above or paragraph.cut:
            self._close_leaf()
        self._leaf = Grid(Table(head, line.strip(" ")))
        return _DONE

    def _underline(self, line: str) -> str | None:
        found, paragraph = fences.UNDERLINE.match(line), self._paragraph
        if found is None or paragraph is None or paragraph.cut:
            return None
        self._titled(paragraph, "#" if "=" in found[1] else "##")
        self._close_leaf()
        return _DONE

    def _rule(self, line: str) -> str | None:
        if not fences.RULE.match(line):
            return None
        self._new_block()
        self._row([("─" * min(RULE_CELLS, self._room()), QUIET)])
        return _DONE

    def _item(self, line: str) -> str | None:
        found = fences.ITEM.match(line)
        if found is None or self._deep:
            return None
        rest = line[found.end() :]
        number = int(found[3]) if found[3] else None
        if self._paragraph is not None and (not rest or number not in (None, 1)):
            return None
        self._new_block(item=True)
        sign = found[4] or found[2]
        bullets = self._containers[-1] if self._containers else None
        if not (isinstance(bullets, Bullets) and bullets.sign == sign):
            if isinstance(bullets, Bullets):
                self._containers.pop()
            bullets = Bullets(sign, number)
            self._open(bullets)
        spaces = len(found[5])
        wide = not rest or spaces > fences.CODE_INDENT
        indent = found.start(5) + (1 if wide else spaces)
        self._open(Item(indent, bullets.bullet(), bare=not rest))
        return line[indent:]

    # -- opening and closing

    def _new_block(self, *, spaced: bool = False, item: bool = False) -> None:
        """Close what the line does not go on with, and leave a blank row where there was one."""
        self._close_leaf()
        self._close_to(self._matched)
        while self._containers and isinstance(self._containers[-1], Bullets) and not item:
            self._containers.pop()
        self._matched = len(self._containers)
        if spaced and not self._containers:
            self._blank = True
        self._space()
        for container in self._containers:
            if isinstance(container, Item):
                container.bare = False

    def _space(self) -> None:
        if self._blank and self._begun:
            self._row([])
        self._blank = False

    def _open(self, container: Container) -> None:
        self._containers.append(container)
        self._opened = True
        self._matched = len(self._containers)

    def _close_to(self, number: int) -> None:
        if number < len(self._containers):
            self._close_leaf()
        while number < len(self._containers):
            last = self._containers[-1]
            if isinstance(last, Item) and not last.shown:
                self._row([])
            self._containers.pop()

    def _close_leaf(self, *, growing: bool = False) -> None:
        leaf, self._leaf = self._leaf, None
        match leaf:
            case Paragraph():
                self._rows(leaf.finish(self._inline, growing=growing))
            case Fence() if not growing:
                self._row(leaf.bottom())
            case Grid(table) if growing:
                self._rows([[(line, 0)] for line in table.raw()])
            case Grid(table):
                self._rows(table.rows(self._room(), self._inline))
            case Indented(blanks):
                self._blank = self._blank or bool(blanks)
            case _:
                return

    # -- rows

    def _inline(self, text: str, style: int = 0, *, growing: bool = False) -> list[Span]:
        return spans_of(text, style, ticks=self._ticks, growing=growing)

    def _room(self) -> int:
        """Return the cells that the containers leave to the text."""
        return max(min(NARROWEST, self._width), self._width - width_of(self._lead()))

    def _lead(self) -> Line:
        return [_lead_of(container) for container in self._containers]

    def _rows(self, rows: Iterable[Line]) -> None:
        for row in rows:
            self._row(row)

    def _row(self, row: Line) -> None:
        """Take a row that is final; before it stands what its containers show."""
        lead = self._lead()
        for container in self._containers:
            if isinstance(container, Item):
                container.shown = True
        lead = _clipped(lead, max(0, self._width - NARROWEST))
        if not row:
            while lead and not lead[-1][0].strip():
                lead.pop()
            if lead:
                lead[-1] = (lead[-1][0].rstrip(), lead[-1][1])
        self._out += [span for span in lead if span[0]]
        self._out += row
        if not self._cut_line or isinstance(self._leaf, Paragraph) or self._leaf is None:
            self._out.append(NEWLINE)
        self._begun = True


_DONE = "\n"
"""The line has been used up; no line has this in it."""


def _lead_of(container: Container) -> Span:
    match container:
        case Quote():
            return ("│ ", QUIET)
        case Item(_, bullet, _, shown):
            return (" " * cells(bullet), 0) if shown else (bullet, QUIET)
        case _:
            return ("", 0)


def _clipped(lead: Line, width: int) -> Line:
    """Return what fits of what containers show: the innermost goes first."""
    kept: Line = []
    for text, style in lead:
        room = width - width_of(kept)
        if room <= 0:
            break
        kept.append((text[:room], style))
    return kept
