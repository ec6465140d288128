"""Debian packages of the guest's architecture, without being root and without telling the host's dpkg of it.

For its own architecture the host's apt has the lists. For any other, apt gets an architecture, a place for
lists and an empty list of installed packages of its own (apt.conf(5)), and uses the host's mirrors and keys.
The lists are fetched once, and once more when what they name is not there any more.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from tracer.host import HostError, UserError, run_program, say, whole_file

# Names of packages and of their files as Debian has them: one of another kind may be an option or a path.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.:-]{1,99}")
_FILE = re.compile(r"[a-z0-9][A-Za-z0-9+.:~%_-]{1,199}\.deb")
# Hooks of the host's are for the host's own packages, and may want to be root.
_CONFIG = """\
#clear APT::Update;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "";
Dir::State "{home}";
Dir::State::status "{home}/status";
Dir::Cache "{home}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Acquire::Languages "none";
"""


@dataclass(frozen=True)
class Apt:
    """apt for one architecture; ``home`` is where it keeps what it knows, None for the host's own."""

    architecture: str
    home: Path | None

    def run(self, *words: str, doing: str, cwd: Path | None = None, log: Path | None = None) -> str:
        """Run ``apt-get``; what it printed, or, with ``log``, all that it said in that file.

        Raises:
            HostError: it failed.
        """
        config = ["-c", str(self.home / "apt.conf")] if self.home else []
        return run_program(["apt-get", *config, *words], doing=doing, cwd=cwd, log=log)

    def lists(self) -> list[Path]:
        return sorted((self.home / "lists").glob("*_Packages*")) if self.home else []

    def update(self) -> None:
        """Fetch the lists of a foreign architecture.

        Raises:
            HostError: no mirror has any.
        """
        assert self.home
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("status", ""),
            ("apt.conf", _CONFIG.format(home=self.home, architecture=self.architecture)),
        ):
            with whole_file(self.home / name) as stream:
                stream.write(text)
        doing = f"fetching the lists of Debian's {self.architecture} packages"
        try:
            self.run("update", "-q", doing=doing)
        except HostError as error:
            # One of several mirrors may be out of step; whether it is missed shows when packages are located.
            say(f"warning: {error}")
        if not self.lists():
            raise HostError(
                f"{doing}: none of the mirrors in /etc/apt has them",
                "add one that does, or go without packages",
            )


@once
def host_architecture() -> str:
    """What Debian calls the architecture of this machine's programs.

    Raises:
        HostError: there is no dpkg.
    """
    doing = "asking dpkg for the host's architecture"
    return run_program(["dpkg", "--print-architecture"], doing=doing).strip()


def fetch_packages(
    packages: tuple[str, ...], architecture: str, cache: Path, alone: bool = False
) -> list[Path]:
    """Debian packages and, unless ``alone``, everything they depend on, as ``.deb`` files in ``cache``,
    sorted by name.

    Raises:
        UserError: there is no such package.
        HostError: it cannot be fetched.
    """
    if not packages:
        return []
    cache.mkdir(parents=True, exist_ok=True)
    if host_architecture() == architecture:
        return _fetch(Apt(architecture, None), packages, cache, alone)
    apt = Apt(architecture, cache / f"debian-{architecture}")
    fresh = not apt.lists()
    if fresh:
        apt.update()
    try:
        return _fetch(apt, packages, cache, alone)
    except (HostError, UserError):
        if fresh:
            raise
    apt.update()
    return _fetch(apt, packages, cache, alone)


def _fetch(apt: Apt, packages: tuple[str, ...], cache: Path, alone: bool) -> list[Path]:
    names = packages if alone else _with_dependencies(apt, packages, cache)
    doing = f"locating the Debian packages ({apt.architecture})"
    debs, missing = [], []
    for uri in apt.run("download", "--print-uris", *names, doing=doing).splitlines():
        name = next(iter(uri.split()[1:2]), "")
        if not _FILE.fullmatch(name):
            raise HostError(f"{doing}: apt-get says {uri[:100]!r}")
        debs.append(cache / name)
        if not debs[-1].exists():
            missing.append(name.split("_")[0])
    if missing:
        doing = f"fetching {', '.join(missing)} ({apt.architecture})"
        say(f"fetching {len(missing)} Debian packages ({apt.architecture}) ...")
        apt.run("download", *missing, doing=doing, cwd=cache)
    return sorted(debs)


def _with_dependencies(apt: Apt, packages: tuple[str, ...], cache: Path) -> list[str]:
    """What apt would install on a machine that has nothing: of alternatives one, and one provider of what is
    virtual, as Debian Policy means it (7.1 and 7.5); essential packages only where something says so."""
    doing = f"resolving the workload's Debian packages {', '.join(packages)} ({apt.architecture})"
    # Why packages exclude each other is on standard output.
    with tempfile.TemporaryDirectory(prefix="kprune-") as folder:
        log = Path(folder) / "apt.log"
        try:
            apt.run("install", *_simulated(apt, cache), *packages, doing=doing, log=log)
        except HostError as error:
            raise UserError(str(error).partition(" (all of it: ")[0]) from error
        found = re.findall(r"^Inst (\S+)", log.read_text(errors="replace"), re.MULTILINE)
        return sorted({name for name in found if _PACKAGE.fullmatch(name)})


def _simulated(apt: Apt, cache: Path) -> list[str]:
    """Options: nothing is installed, neither now nor before. What apt makes of its lists then (two seconds)
    is not to replace what it has of the host's."""
    options = {} if apt.home else {
        "State::status": "/dev/null", "State::extended_states": "/dev/null",
        "Cache::pkgcache": cache / "pkgcache.bin", "Cache::srcpkgcache": cache / "srcpkgcache.bin",
    }  # fmt: skip
    given = [word for key, value in options.items() for word in ("-o", f"Dir::{key}={value}")]
    return ["--simulate", "--no-install-recommends", *given]
