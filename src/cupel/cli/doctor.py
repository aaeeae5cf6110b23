"""`cupel doctor`: versions, encoder and its hash, texts per second, cache size, devices."""

from __future__ import annotations

import typer

from cupel.cli.common import Console, DeviceOption, DownloadOption, EncoderOption, JsonOption, QuietOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor", help="Versions, encoder and its hash, texts per second, cache size, devices.")(doctor)


def doctor(
    encoder: EncoderOption = "static",
    device: DeviceOption = "cpu",
    allow_download: DownloadOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what a bug report needs."""
    from cupel.environment import diagnose

    console = Console(json=as_json, quiet=quiet)
    facts = diagnose(encoder, device=device, allow_download=allow_download)
    console.emit(facts)
    if not as_json:
        for name, value in facts.items():
            if isinstance(value, dict):
                console.say(f"{name}:")
                for key, entry in value.items():
                    console.say(f"  {key:<20} {entry}")
            else:
                console.say(f"{name:<22} {value}")
