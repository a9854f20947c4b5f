"""The `tidemark` command: each verb is a module of this package and is imported when it is
called."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import click
import rich_click


class _Verbs(rich_click.RichGroup):
    """Finds verbs by file name, so that `tidemark release` does not pay for what the gateway
    imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [module.name for module in pkgutil.iter_modules(__path__)]
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        module.command.name = cmd_name
        return module.command


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidemark")
def command() -> None:
    """Build, sign, flash, provision, watch and update boards that run Tidemark."""


def main() -> None:
    """Entry point. Exit 0: done; 1: it says what, why and what to try; 2: interrupted or wrong
    usage."""
    try:
        command(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
