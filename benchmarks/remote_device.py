"""A device over ssh against the same machine without ssh: the same latency within the intervals?

Starts an sshd of its own on loopback, with keys of its own (needs Debian's openssh-server and openssh-client), and
measures several models over it and directly, in turn.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import interval, spread, summary
from options import amount, begin, positive

from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter
from latency_models.timing.reference_models import reference_model

_MODELS = ("ref-2", "ref-3", "ref-4", "ref-5")
_START_S = 20.0


def main() -> None:
    arguments = begin(__doc__, amount("--seconds", 1.5, "budget of each measurement"), positive("--repeats", 3))
    ratios, overlaps = [], []
    with tempfile.TemporaryDirectory() as folder, _sshd(Path(folder)) as far:
        stores = [Path(folder) / f"{name}.json" for name in ("near", "far")]
        with LatencyMeter(Device(), store=stores[0]) as near, LatencyMeter(far, store=stores[1]) as away:
            for name in _MODELS * arguments.repeats:
                here, there = (
                    meter.measure(reference_model(name), budget_s=arguments.seconds, target_half_width=0.003)
                    for meter in (near, away)
                )
                ratios.append(there.latency_ms / here.latency_ms)
                overlaps.append(there.low_ms <= here.high_ms and here.low_ms <= there.high_ms)
                here_ms, there_ms = (interval(e.latency_ms, e.low_ms, e.high_ms, ".4f") for e in (here, there))
                print(f"{name}: here {here_ms} ms, over ssh {there_ms} ms", flush=True)
    summary("over ssh / here", spread(ratios, 4), "1")
    summary("pairs of 95 % intervals that overlap", f"{sum(overlaps)} of {len(overlaps)}", "nearly all")


@contextmanager
def _sshd(folder: Path) -> Iterator[Device]:
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if sshd is None:
        sys.exit("sshd not found: Debian's openssh-server brings it")
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    host_key = (folder / "host_key.pub").read_text(encoding="utf-8")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}", encoding="utf-8")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        encoding="utf-8",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        _wait_for(port)
        options = ("-F", "none", "-p", str(port), "-i", f"{folder}/user_key", "-oIdentitiesOnly=yes")
        options += (f"-oUserKnownHostsFile={folder}/known_hosts", "-oGlobalKnownHostsFile=none")
        yield Device(name="far", host=f"{getpass.getuser()}@127.0.0.1", ssh_options=options, python=sys.executable)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("sshd doesn't listen")


if __name__ == "__main__":
    main()
