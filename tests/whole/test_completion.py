"""Completion: each command and flag is named, and the shells that are there take it."""

import shutil
import subprocess

import pytest

from tests.whole.daemon import watcher
from watcher.commands.cli import subcommands

SHELLS = ("bash", "zsh", "fish")
ASK = """
{script}
COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1)); _watcher; echo "${{COMPREPLY[@]}}"
"""


def script(shell):
    done = watcher("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_it_knows_every_command_and_setting(shell):
    text = script(shell)
    for name in subcommands():
        assert name in text
    assert "poll.interval" in text
    assert "NAME" not in text.replace("NAME of", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    text = script(shell)
    done = subprocess.run(
        [shell, "-n"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("watcher sta", "status"),
        ("watcher status --ser", "--server"),
        ("watcher run --poll.int", "--poll.interval"),
        ("watcher completion f", "fish"),
        ("watcher events --config watch", ""),
        ("watcher nonsense --x", ""),
    ],
)
def test_what_bash_offers(words, offered):
    ask = ASK.format(script=script("bash"), words=words, count=len(words.split()))
    done = subprocess.run(
        ["bash", "-c", ask], text=True, capture_output=True, check=True
    )
    assert done.stdout == f"{offered}\n"


def test_another_shell():
    assert watcher("completion", "csh").returncode == 2
