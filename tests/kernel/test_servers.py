"""Servers on the host, and a guest that talks to them; the examples' configurations, as kconfig has them."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import pytest

from prune.build.kbuild import describe_build
from prune.build.source import resolve_source
from prune.build.toolchain import find_toolchain
from prune.settings import cache_folder
from tracer.files.rootfs import build_root
from tracer.machines.parallel import in_parallel
from tracer.outcome import AppFailed
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import open_session, run_session
from tracer.sessions.soak import scripts, soaked
from tracer.workloads.servers import ServerFailed
from tracer.workloads.workload import Workload
from tracer.workloads.workload_file import load_workload

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.kernel

WORKLOAD = """
schema_version = 1
name = "asks"
arch = "x86_64"
needs = ["python3"]
[[server]]
name = "web"
command = "mkdir $KPRUNE_TEMP/www; echo seed $KPRUNE_SEED >$KPRUNE_TEMP/www/page; exec python3 serve.py"
ready = "python3 ready.py"
ports = ["web", "nobody"]
timeout = 20
[[app]]
name = "asks"
command = '''
[ "$(wget -q -O - http://10.0.2.2:$KPRUNE_SERVER_WEB/page)" = "seed $KPRUNE_SEED" ] || exit 3
! wget -q -O - http://10.0.2.2:$KPRUNE_SERVER_NOBODY/page
'''
timeout = 60
"""
READY = """
import os, socket
socket.create_connection(("127.0.0.1", int(os.environ["KPRUNE_SERVER_WEB"])))
"""
SERVE = """
import functools, http.server, os
folder = os.environ["KPRUNE_TEMP"] + "/www"
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["KPRUNE_SERVER_WEB"])), handler).serve_forever()
"""
#: Ends when somebody has come twice: who sees whether it is ready, and the guest.
ENDS = """
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["KPRUNE_SERVER_WEB"])))
server.accept()
server.accept()
print("no more")
"""


def workload(folder: Path, serve: str = SERVE, old: str = "", new: str = "") -> Workload:
    folder.mkdir()
    (folder / "serve.py").write_text(serve)
    (folder / "ready.py").write_text(READY)
    (folder / "workload.toml").write_text(WORKLOAD.replace(old, new) if old else WORKLOAD)
    return load_workload(folder)


def test_runs_side_by_side_have_servers_of_their_own(micro: Path, tmp_path: Path) -> None:
    asks = workload(tmp_path / "asks")
    root = build_root(asks, tmp_path, cache_folder())
    kernel = micro / "base" / "bzImage"

    def run(seed: int) -> str:
        options = SessionOptions(seed=seed)
        return run_session(kernel, root, asks, options, tmp_path / str(seed)).outcome

    assert in_parallel([lambda seed=seed: run(seed) for seed in (5, 6)], 2) == ["powered off"] * 2


def test_an_app_is_not_to_blame_for_a_server_that_is_gone(micro: Path, tmp_path: Path) -> None:
    asks = workload(tmp_path / "asks", ENDS)
    root = build_root(asks, tmp_path, cache_folder())
    with pytest.raises(ServerFailed, match=r"server web: it ended .* during the run; it said: .*no more"):
        run_session(micro / "base" / "bzImage", root, asks, SessionOptions(), tmp_path / "run")


def test_an_app_that_fails_beside_its_server_has_failed(micro: Path, tmp_path: Path) -> None:
    asks = workload(tmp_path / "asks", SERVE, "/page)", "/nothing)")
    root = build_root(asks, tmp_path, cache_folder())
    with pytest.raises(AppFailed, match="app asks: its command exited with status 3"):
        run_session(micro / "base" / "bzImage", root, asks, SessionOptions(), tmp_path / "run")


@pytest.mark.parametrize("name", ["client", "full"])
@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_kconfig_has_every_option_that_an_example_asks_for(name: str, arch: str) -> None:
    example = load_workload(ROOT / "examples" / name, arch)
    source = resolve_source(None, cache_folder())
    find = find_toolchain("gcc", "none", "config")
    build = describe_build("production", source, arch, example.kernel_configs, None, cache_folder(), find)
    assert "CONFIG_INET=y" in build.config


SOAKED = """
schema_version = 1
name = "served"
arch = "x86_64"
[[app]]
name = "web"
command = "httpd -f -p 8080 -h /proc/sys/kernel & wait $!"
ready = "wget -q -O /dev/null http://127.0.0.1:8080/ostype"
load = 'sleep 4; echo {\\"requests\\": 9, \\"seconds\\": 4.0}'
timeout = 60
"""


def test_a_service_that_a_trouble_has_ended_is_started_again(micro: Path, tmp_path: Path) -> None:
    """The kernel's choice whom to kill for memory once fell on the service itself, and the soak was over."""
    (tmp_path / "workload.toml").write_text(SOAKED)
    served = load_workload(tmp_path)
    root = build_root(served, tmp_path, cache_folder(), scripts(served))
    with open_session(
        micro / "base" / "bzImage", root, served, SessionOptions(), tmp_path / "run"
    ) as session:
        began = time.monotonic()
        stretches = [*islice(soaked(session, began, began + 600, ("kill",)), 3)]
    assert [bool(each.lost) for each in stretches] == [False, True, False]
    assert stretches[1].lost.startswith("the service ended with status 1")
    assert stretches[1].lost.endswith("and was started again")
