"""Completion scripts that start no Python: the tree of commands, written in a shell's language.

Each script walks the words before the cursor once, as the program would, to find out which
command they lead to and whether the last is an option that waits for its value; then it
offers what may follow. The walk and the offers are ``case`` tables made from the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from llmctl.cli.tree import Node, Parameter, Takes

Known = Mapping[str, tuple[str, ...]]
"""What values there are, by an option's long name or by the command whose argument it is."""

_SAFE = re.compile(r"[\w./:@%+-]+", re.ASCII)


def script(shell: str, tree: Node, known: Known) -> str:
    """Return the completion script for a shell.

    Args:
        shell: one of `SHELLS`.
        tree: all commands.
        known: values that the tree does not tell.
    """
    return SHELLS[shell](tree, known)


def _bash(tree: Node, known: Known) -> str:
    return f"""# Completion for bash: put it into ~/.local/share/bash-completion/completions/llmctl
_llmctl() {{
    local at word place= option= kind= words=
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        if [[ -n $option ]]; then # bash makes three words of --name=value
            [[ $word == = ]] || option=
            continue
        fi
        [[ $word == -- ]] && return
        case "$place:$word" in
{_walk(tree)}
        esac
    done
    word=${{COMP_WORDS[COMP_CWORD]}}
    [[ $word == = ]] && word=
    if [[ -n $option ]]; then
        case "$option" in
{_cases(_values(tree, known), "kind={kind} words={words}")}
        esac
    elif [[ $word == -* ]]; then
        case "$place" in
{_cases(_options(tree), "words={words}")}
        esac
    else
        case "$place" in
{_cases(_offers(tree, known), "kind={kind} words={words}")}
        esac
    fi
    local IFS=$' \\n'
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ "${{COMPREPLY[*]}}" == */ ]] && type compopt >/dev/null 2>&1 && compopt -o nospace
    if [[ -n $kind ]]; then
        IFS=$'\\n'
        type compopt >/dev/null 2>&1 && compopt -o filenames
        [[ $kind == file ]] && COMPREPLY+=($(compgen -f -- "$word"))
        [[ $kind == folder ]] && COMPREPLY+=($(compgen -d -- "$word"))
    fi
    return 0
}}
complete -F _llmctl llmctl
"""


def _zsh(tree: Node, known: Known) -> str:
    return f"""#compdef llmctl
# Completion for zsh: put it into a folder of $fpath as _llmctl
_llmctl() {{
    local word place= option= kind=
    local -a offers
    integer at
    for ((at = 2; at < CURRENT; at++)); do
        word=${{words[at]}}
        if [[ -n $option ]]; then
            option=
            continue
        fi
        [[ $word == -- ]] && return 1
        case "$place:$word" in
{_walk(tree)}
        esac
    done
    word=${{words[CURRENT]}}
    if [[ -z $option && $word == --*=* ]]; then
        option="$place:${{word%%=*}}"
        compset -P '*='
    fi
    if [[ -n $option ]]; then
        case "$option" in
{_cases(_values(tree, known), "kind={kind} offers=({list})")}
        esac
    elif [[ $word == -* ]]; then
        case "$place" in
{_cases(_described_options(tree), "offers=({list})")}
        esac
        _describe -o option offers
        return
    else
        case "$place" in
{_cases(_described_offers(tree, known), "kind={kind} offers=({list})")}
        esac
    fi
    [[ $kind == file ]] && _files
    [[ $kind == folder ]] && _files -/
    (( ${{#offers}} )) && _describe word offers
}}
if [[ ${{funcstack[1]}} == _llmctl ]]; then
    _llmctl "$@"
else
    compdef _llmctl llmctl
fi
"""


def _fish(tree: Node, known: Known) -> str:
    lines = [line for node in tree for line in _fish_node(node, known)]
    return f"""# Completion for fish: put it into ~/.config/fish/completions/llmctl.fish
function __llmctl_at
    set -l place
    set -l waits
    for word in (commandline -opc)[2..]
        if set -q waits[1]
            set -e waits
            continue
        end
        switch "$place:$word"
{_fish_walk(tree)}
        end
    end
    test "$place" = "$argv[1]"
end
complete -c llmctl -f
{chr(10).join(lines)}
"""


SHELLS: Mapping[str, Callable[[Node, Known], str]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
"""The shells that there is a script for."""

_Row = tuple[str, str, tuple[str, ...]]
"""What the case table says of one pattern: the pattern, the kind of file, the words."""


def _place(node: Node) -> str:
    return " ".join(node.path)


def _waiting(node: Node) -> Iterable[tuple[Parameter, str]]:
    """Yield each name of each option that waits for a value."""
    for option in node.options:
        if option.takes is not Takes.NOTHING:
            yield from ((option, f"{_place(node)}:{name}") for name in option.names)


def _walk(tree: Node) -> str:
    return "\n".join(f"        {line}" for node in tree for line in _walk_from(node))


def _walk_from(node: Node) -> Iterable[str]:
    for child in node.children:
        yield f"{_quoted(_step(node, child))}) place={_quoted(_place(child))} ;;"
    if names := [_quoted(name) for _, name in _waiting(node)]:
        yield f'{" | ".join(names)}) option="$place:$word" ;;'


def _step(node: Node, child: Node) -> str:
    return f"{_place(node)}:{child.path[-1]}"


def _values(tree: Node, known: Known) -> list[_Row]:
    return [
        (name, _kind(option), _words(option, option.names[-1], known))
        for node in tree
        for option, name in _waiting(node)
        if _kind(option) or _words(option, option.names[-1], known)
    ]


def _options(tree: Node) -> list[_Row]:
    return [(_place(node), "", _names(node)) for node in tree]


def _names(node: Node) -> tuple[str, ...]:
    return tuple(name for option in node.options for name in option.names)


def _offers(tree: Node, known: Known) -> list[_Row]:
    return [(_place(node), *_first(node, known)) for node in tree if any(_first(node, known))]


def _first(node: Node, known: Known) -> tuple[str, tuple[str, ...]]:
    """Return the kind of file and the words that may be a command's first argument."""
    children = tuple(child.path[-1] for child in node.children)
    kinds, words = "", children
    for argument in node.arguments[:1]:
        kinds = _kind(argument)
        words += _words(argument, _place(node), known)
    return kinds, words


def _described_options(tree: Node) -> list[_Row]:
    return [
        (
            _place(node),
            "",
            tuple(_told(name, option.help) for option in node.options for name in option.names),
        )
        for node in tree
    ]


def _described_offers(tree: Node, known: Known) -> list[_Row]:
    rows = []
    for node in tree:
        kind, words = _first(node, known)
        summaries = {child.path[-1]: child.summary for child in node.children}
        told = tuple(_told(word, summaries.get(word, "")) for word in words)
        if kind or told:
            rows.append((_place(node), kind, told))
    return rows


def _told(word: str, summary: str) -> str:
    """Return a word as zsh's ``_describe`` takes it."""
    name = word.replace(":", "\\:")
    return f"{name}:{summary}" if summary else name


def _kind(parameter: Parameter) -> str:
    return parameter.takes.value if parameter.takes in (Takes.FILE, Takes.FOLDER) else ""


def _words(parameter: Parameter, name: str, known: Known) -> tuple[str, ...]:
    words = parameter.words or known.get(name, ())
    return tuple(word for word in words if _SAFE.fullmatch(word))


def _cases(rows: Iterable[_Row], form: str) -> str:
    """Return the lines of a case table; patterns that lead to the same share a line."""
    table: dict[str, list[str]] = {}
    for pattern, kind, words in rows:
        done = form.format(
            kind=kind,
            words=_quoted(" ".join(words)),
            list=" ".join(map(_quoted, words)),
        )
        table.setdefault(done, []).append(_quoted(pattern))
    return "\n".join(f"        {' | '.join(names)}) {done} ;;" for done, names in table.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_walk(tree: Node) -> str:
    lines = []
    for node in tree:
        for child in node.children:
            step, place = _fish_quoted(_step(node, child)), _fish_quoted(_place(child))
            lines.append(f"            case {step}\n                set place {place}")
        if names := [_fish_quoted(name) for _, name in _waiting(node)]:
            lines.append(f"            case {' '.join(names)}\n                set waits yes")
    return "\n".join(lines)


def _fish_node(node: Node, known: Known) -> Iterable[str]:
    here = f"complete -c llmctl -n {_fish_quoted(f'__llmctl_at {_fish_quoted(_place(node))}')}"
    for child in node.children:
        yield f"{here} -a {child.path[-1]} -d {_fish_quoted(child.summary)}"
    kind, words = _first(node, known)
    if words[len(node.children) :]:
        yield f"{here} -a {_fish_quoted(' '.join(words[len(node.children) :]))}"
    if kind:
        yield f"{here} -F"
    for option in node.options:
        yield f"{here} {_fish_option(option, known)} -d {_fish_quoted(option.help)}"


def _fish_option(option: Parameter, known: Known) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    if option.takes is Takes.NOTHING:
        return names
    words = _words(option, option.names[-1], known)
    if words:
        return f"{names} -x -a {_fish_quoted(' '.join(words))}"
    return f"{names} {'-r -F' if _kind(option) else '-x'}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
