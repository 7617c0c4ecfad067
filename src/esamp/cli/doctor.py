"""`esamp doctor`: what is installed and what works."""

from esamp.cli.common_flags import AsJson


def command(json: AsJson = False) -> None:
    """Show what is installed, which devices and engines work, and what to install for the others.

    The exit code is 0 if samples can be generated on this machine, else 1.
    """
    from esamp.cli import doctor_run  # imports safetensors

    doctor_run.doctor(json=json)
