"""A group of commands whose list of commands is not cut, and which suggests the command that was meant."""

from __future__ import annotations

import click

from estiba.core.suggest import did_you_mean


class Group(click.Group):
    """A group such as `estiba models`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole first sentence of its help: click cuts it at the window's width."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
            rows.append((name, paragraph.partition(". ")[0].removesuffix(".") + "."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            known = ", ".join(self.commands)
            meant = did_you_mean(args[0], self.commands, otherwise=f". There are: {known}.")
            raise click.UsageError(f"{ctx.command_path} has no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)
