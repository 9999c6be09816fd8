"""`watcher completion`: what a shell needs to know to complete commands and flags."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from watcher.commands.command import Commands, Exit, Flags, add

HOW = """\
bash   eval "$(watcher completion bash)"                       in ~/.bashrc
zsh    eval "$(watcher completion zsh)"                        in ~/.zshrc, after compinit
fish   watcher completion fish > ~/.config/fish/completions/watcher.fish
"""


class Word(NamedTuple):
    """What may be typed.

    Attributes:
        text: A command or a flag.
        what: What it does.
        valued: Whether a value follows it.
    """

    text: str
    what: str
    valued: bool = False


def add_to(commands: Commands) -> None:
    """Add the command."""
    what = "print what completes commands and flags in a shell"
    parser = add(commands, "completion", _print, what, config=False)
    parser.add_argument("shell", choices=list(_SHELLS), help="which shell")
    parser.epilog = HOW


def _print(args: argparse.Namespace, _: Flags) -> int:
    from watcher.commands.cli import subcommands

    parsers = subcommands()
    words = {
        Word(name, (parser.description or "").rstrip(".")): list(_flags(parser))
        for name, parser in parsers.items()
    }
    print(_SHELLS[args.shell](words))  # noqa: T201
    return Exit.OK


def _flags(parser: argparse.ArgumentParser) -> Iterator[Word]:
    from watcher.settings.showing import described

    for action in parser._actions:  # noqa: SLF001 - argparse shows them nowhere else
        for flag in action.option_strings:
            if flag.startswith("--"):
                yield Word(flag, action.help or "", action.nargs != 0)
    if parser.get_default("settable"):
        for setting in described():
            if ".NAME" not in setting.path:
                yield Word(f"--{setting.path}", setting.what.replace("`", ""), True)


Words = Mapping[Word, list[Word]]


def _bash(words: Words) -> str:
    cases = "\n".join(
        f"    {name.text}) words='{' '.join(flag.text for flag in flags)}' ;;"
        for name, flags in words.items()
    )
    names = " ".join(name.text for name in words)
    return f"""\
_watcher() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} words=''
  COMPREPLY=()
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words='{names} --help --version'
  elif [ "${{COMP_WORDS[1]}}" = completion ]; then words='bash zsh fish'
  elif [ "${{cur#-}}" = "$cur" ]; then return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _watcher watcher"""


def _zsh(words: Words) -> str:
    commands = "\n".join(f"    {_quoted(f'{name.text}:{name.what}')}" for name in words)
    cases = "\n".join(
        f"    {name.text}) flags=({' '.join(_quoted(_colon(flag)) for flag in flags)}) ;;"
        for name, flags in words.items()
    )
    return f"""\
#compdef watcher
_watcher() {{
  local -a commands flags
  commands=(
{commands}
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  case $words[2] in
{cases}
  esac
  if [[ $words[2] == completion ]]; then compadd bash zsh fish
  elif [[ $words[CURRENT] == -* ]]; then _describe flag flags
  else _files
  fi
}}
compdef _watcher watcher"""


def _colon(word: Word) -> str:
    return f"{word.text}:{word.what}"


def _fish(words: Words) -> str:
    lines = []
    for name, flags in words.items():
        lines.append(
            "complete -c watcher -f -n __fish_use_subcommand "
            f"-a {name.text} -d {_quoted(name.what)}"
        )
        for flag in flags:
            value = "-r " if flag.valued else ""
            lines.append(
                f"complete -c watcher -n '__fish_seen_subcommand_from {name.text}' "
                f"-l {flag.text.removeprefix('--')} {value}-d {_quoted(flag.what)}"
            )
    shells = "complete -c watcher -f -n '__fish_seen_subcommand_from completion'"
    return "\n".join([*lines, f"{shells} -a 'bash zsh fish'"])


def _quoted(text: str) -> str:
    """Quote for any of the shells: what they read differently is left out."""
    return (
        "'"
        + text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("\\", "")
        + "'"
    )


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
