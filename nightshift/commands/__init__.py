"""One module a group of commands. Each has an `app`, a typer.Typer whose commands become `nightshift <command>`."""
