"""Define the command `estiba` with its subcommands, and turn errors into messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

import estiba
from estiba.cli.translated_help import translate_help
from estiba.core.errors import EstibaError
from estiba.core.language import translated
from estiba.core.suggest import did_you_mean

CHAPTERS = {
    "Project": {
        "init": ("init", "Create an example project."),
        "up": ("up", "Train the models that have changed and run the project."),
        "doctor": ("doctor", "Find common faults in Dockerfiles and compose files, with remedies."),
    },
    "Pack": {
        "train": ("train", "Train, pack and register the project's models."),
        "pack": ("pack", "Pack and register a saved model file."),
        "models": ("models", "List, show, copy and remove models of the registry."),
        "verify": ("verify", "Check that a model still answers as it did in training."),
        "predict": ("predict", "Score a file of rows."),
        "explain": ("explain", "Show what each field contributed to a prediction."),
    },
    "Serve": {
        "serve": ("serve", "Serve models of the registry over HTTP."),
        "keys": ("keys", "Make, limit, list and revoke API keys."),
        "route": ("route", "Choose which version of a model answers which requests."),
        "log": ("log", "Show what models were asked, and what they answered."),
        "feedback": ("feedback", "Keep the labels that became known for predictions."),
        "quality": ("quality", "Show how right a model was, by version and time, from the labels of its predictions."),
        "drift": ("drift", "Show how the rows of requests differ from those of training, by field."),
        "healthcheck": ("healthcheck", "Check that a server is ready."),
    },
    "Ship": {
        "build": ("build", "Build container images of the project's services."),
        "export": ("export", "Write an archive from which images can be built without a network."),
        "scan": ("scan", "Scan built images for known vulnerabilities."),
        "compose": ("compose", "Render the project for Docker Compose."),
        "kubernetes": ("kubernetes", "Render the project as Kubernetes manifests."),
        "deploy": ("deploy", "Deploy the project, and wait until all services are ready."),
        "ci": ("ci", "Write a pipeline that lints, tests, builds, scans, signs and deploys the project."),
    },
    "Other": {
        "version": ("version", "Show the versions of Estiba and its libraries."),
    },
}
"""By chapter and command: the module of `estiba.cli` with a function of that name, and its help in a line."""

COMMANDS = {name: command for chapter in CHAPTERS.values() for name, command in chapter.items()}
"""The commands of all chapters. Their modules are imported when they are used."""

INTERRUPTED = 130


class Commands(click.Group):
    """The subcommands. Each module is imported when its command runs, so that help and completion stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"estiba.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        return translate_help(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in CHAPTERS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""`estiba COMMAND --help` shows the arguments of a command, with examples.

    Completion of commands, models, services and profiles, here for bash; zsh_source and fish_source for other shells:

    \b
      eval "$(_ESTIBA_COMPLETE=bash_source estiba)"
    """,
    no_args_is_help=True,
)
@click.version_option(estiba.__version__, message="estiba %(version)s")
def cli() -> None:
    """Take a trained model to production: pack it with proof of its answers, serve it over HTTP, and deploy it."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code. Errors are printed to standard error, without a traceback."""
    try:
        translate_help(cli)
        result = cli.main(list(arguments), prog_name="estiba", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except EstibaError as error:
        report(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _usage(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED


def report(error: EstibaError) -> None:
    """Print an error and its hint to standard error."""
    output = getattr(error, "output", "")
    if output:
        click.secho(output.rstrip(), dim=True, err=True, color=_colour())
    _print("error", "red", translated(error.message))
    for problem in getattr(error, "problems", ())[1:10]:
        _print("error", "red", f"{problem.pointer}: {translated(problem.detail)}")
    if error.hint:
        _print("hint", "cyan", translated(error.hint))


def _usage(error: click.ClickException) -> int:
    _print("error", "red", translated(error.format_message()))
    context = getattr(error, "ctx", None)
    if context is not None:
        usage = context.get_usage().removeprefix(translated("Usage:")).lstrip()
        _print("hint", "cyan", translated(f"{usage} (see {context.command_path} --help)"))
    return error.exit_code


def _print(label: str, colour: str, text: str) -> None:
    click.echo(click.style(translated(f"{label}:"), fg=colour, bold=True) + f" {text}", err=True, color=_colour())


def _colour() -> bool | None:
    """None lets click decide: colour on a terminal. See https://no-color.org."""
    import os

    return False if os.environ.get("NO_COLOR") or not sys.stderr.isatty() else None
