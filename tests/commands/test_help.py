import subprocess
import sys

import click
import pytest
import typer

from flbc import cli
from tests.commands.conftest import run


def commands(group: click.Group, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = list(commands(typer.main.get_command(cli.app)))


def test_all_commands_are_there():
    assert {" ".join(path) for path in ALL} == {
        "keys new", "keys show", "keys deal", "keys accept", "roster",
        "demo", "chain up", "chain fund", "deploy", "register", "stake add",
        "stake leave", "stake withdraw", "suspend", "report", "task publish", "task status", "task claim",
        "task refund", "task sync", "contracts build", "audit", "relay",
    }  # fmt: skip


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_shows_an_example(path):
    shown = run(*path, "--help").stdout
    assert "Example: flbc " + " ".join(path) in shown


@pytest.mark.parametrize("path", [(), ("keys",), ("stake",), ("task",), ("chain",), ("contracts",)])
def test_groups_say_what_they_are_for(path):
    assert len(run(*path, "--help").stdout.splitlines()) > 8


def test_loading_the_commands_loads_nothing_heavy():
    code = "import sys, flbc.cli; print(*{'web3', 'eth_account', 'eth', 'flwr', 'rlp', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
