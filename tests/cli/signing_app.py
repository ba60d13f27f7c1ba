"""The four commands of this room behind the real boundary, as the command line runs them."""

from __future__ import annotations

import typer

from casemate.cli import bom, key, sign, verify
from casemate.cli._boundary import guarded

__all__ = ["asked"]

_APP = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_APP.add_typer(key.app, name="key")
for _name, _command in (("sign", sign.sign), ("verify", verify.verify), ("bom", bom.bom)):
    _APP.command(_name)(_command)


def asked(capsys, *arguments):
    """The exit code, stdout, and stderr with every run of blanks as one."""
    given = [str(argument) for argument in arguments]
    code = guarded(lambda: _APP(args=given, prog_name="casemate", standalone_mode=False), arguments=given)
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())
