"""Signing modules, as ``make modules_install`` does (scripts/Makefile.modinst): with the key that the kernel
was built with, which lies in its object tree."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prune.options import read_options
from tracer.host import HostError, UserError, run_program


def sign_modules(objtree: Path, source: Path, modules: Iterable[Path]) -> None:
    """Sign these files, if the kernel is one that asks for it.

    Raises:
        UserError: modules must be signed, and nobody signs them, or the key is not here.
    """
    options = read_options(objtree / ".config")
    if options.get("CONFIG_MODULE_SIG") != "y":
        return
    if options.get("CONFIG_MODULE_SIG_ALL") != "y":
        if options.get("CONFIG_MODULE_SIG_FORCE") == "y":
            raise UserError(
                "signing modules: CONFIG_MODULE_SIG_FORCE without CONFIG_MODULE_SIG_ALL: nobody signs them",
                "set CONFIG_MODULE_SIG_ALL=y",
            )
        return
    kind = options.get("CONFIG_MODULE_SIG_HASH", "").strip('"')
    named = options.get("CONFIG_MODULE_SIG_KEY", "").strip('"')
    key = next((folder / named for folder in (objtree, source) if (folder / named).is_file()), None)
    program, certificate = objtree / "scripts/sign-file", objtree / "certs/signing_key.x509"
    if key is None or not certificate.is_file():
        raise UserError(
            f"signing modules: there is no {objtree / (named or 'certs/signing_key.pem')}",
            "let the build make a key of its own: CONFIG_MODULE_SIG_KEY",
        )
    if not program.is_file():
        raise HostError(f"signing modules: there is no {program}", "build the kernel again")
    for path in modules:
        run_program([program, kind, key, certificate, path], doing=f"signing {path.name}")
