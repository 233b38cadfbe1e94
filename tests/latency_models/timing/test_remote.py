"""Devices on another host, against a real sshd on loopback that the tests start for themselves."""

import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from helpers.cost_graphs import small_net
from helpers.timer_contract import check_contract
from latency_models.devices.device import Device
from latency_models.devices.environment import capture, environment_of
from latency_models.devices.ssh_options import refusal
from latency_models.errors import DeviceError, InvalidModelError, TimerError
from latency_models.timing.connection import Connection
from latency_models.timing.meter import LatencyMeter
from latency_models.timing.process_timer import TimeLimits
from latency_models.timing.reference_models import reference_model
from latency_models.timing.remote import SshTimer, sendable, shell_quoted

NET = small_net().SerializeToString()
PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass(frozen=True)
class Server:
    """An sshd on loopback: its process, its folder, and how it is reached."""

    process: psutil.Process
    folder: Path
    port: int

    def device(self, **changes: object) -> Device:
        return replace(
            Device(
                name="far",
                host=f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1",
                ssh_options=self.options(self.folder / "known_hosts", self.folder / "user_key"),
                python=sys.executable,
            ),
            **changes,  # type: ignore[arg-type]
        )

    def options(self, known_hosts: Path, key: Path) -> tuple[str, ...]:
        settings = ("IdentitiesOnly=yes", f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null")
        return ("-F", "none", "-p", str(self.port), "-i", str(key), *(f"-o{setting}" for setting in settings))

    def sessions(self) -> list[psutil.Process]:
        """All processes of the connections that are open."""
        return self.process.children(recursive=True)


def sshd_path() -> str:
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if find(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: Debian's openssh-server and openssh-client bring them")
    if not shutil.which(shell := pwd.getpwuid(os.geteuid()).pw_shell) or shell.endswith(("nologin", "false")):
        pytest.skip(f"sshd lets nobody in whose shell is {shell}: run the tests as a user with a login shell")
    return str(find("sshd"))


def find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def make_key(path: Path) -> str:
    """A new key; its public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sshd = sshd_path()
    folder = tmp_path_factory.mktemp("sshd")
    host_key, user_key = make_key(folder / "host_key"), make_key(folder / "user_key")
    (folder / "authorized_keys").write_text(user_key + "\n")
    if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.is_dir():
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)  # sshd doesn't start as root without it
    port = free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPerSourceMaxStartups none\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or listens(port), "sshd neither listens nor ends")
        assert process.poll() is None, (folder / "log").read_text()
        yield Server(psutil.Process(process.pid), folder, port)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# ---- what works


def test_contract(server: Server, tmp_path: Path) -> None:
    check_contract(SshTimer(server.device()), tmp_path)


def test_the_options_of_these_tests_are_ones_that_users_may_give(server: Server) -> None:
    assert refusal(server.device().ssh_options) is None


def test_the_environment_is_the_other_hosts(server: Server) -> None:
    with SshTimer(server.device()) as timing:
        facts = timing.facts()
    # Here the other host is this one.
    assert environment_of(facts, server.device()).fingerprint == capture(Device()).fingerprint


def test_the_latency_is_the_same_as_without_ssh(server: Server, store: Path) -> None:
    net = reference_model("ref-3")
    with LatencyMeter(Device(), store=store) as here, LatencyMeter(server.device(), store=store) as there:
        # 95 % intervals: once in a while two of them miss each other.
        for _ in range(3):
            one, other = here.measure(net, budget_s=0.5), there.measure(net, budget_s=0.5)
            assert one.environment.fingerprint == other.environment.fingerprint
            if one.low_ms < other.high_ms and other.low_ms < one.high_ms:
                return
    pytest.fail(f"{one.low_ms} to {one.high_ms} ms here, {other.low_ms} to {other.high_ms} ms over ssh")


def test_a_login_shell_that_talks_is_talked_over(server: Server, tmp_path: Path) -> None:
    talking = script(
        tmp_path / "python", f'head -c 70000 /dev/urandom\necho; echo welcome >&2\nexec {sys.executable} "$@"'
    )
    with SshTimer(server.device(python=talking)) as timing:
        assert timing.alternate([timing.load(NET, 1)], [3], 2).times_ns[0].shape == (2, 2, 3)


def test_nothing_is_written_there_and_no_module_comes_from_the_folder_there(server: Server, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("numpy", "random", "json"):
        (home / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    there = script(tmp_path / "python", f'cd {home}; export HOME={home}\nexec {sys.executable} "$@"')
    before = sorted(home.rglob("*"))
    with SshTimer(server.device(python=there)) as timing:
        timing.alternate([timing.load(NET, 1)], [3], 2)
    assert sorted(home.rglob("*")) == before


def test_it_ends_there_when_it_is_closed_here(server: Server) -> None:
    timing = SshTimer(server.device())
    timing.facts()
    there = server.sessions()
    assert any(sys.executable in " ".join(process.cmdline()) for process in there)
    timing.close()
    wait_for(lambda: not server.sessions(), "the timer there goes on")


def test_a_home_there_is_found_by_the_shell_there() -> None:
    assert shell_quoted("~/my venv/bin/python") == "\"$HOME\"/'my venv/bin/python'"
    assert shell_quoted("python3; true") == "'python3; true'"


# ---- what fails


def failure(device: Device, limits: TimeLimits | None = None) -> str:
    """The message of the one error that comes of asking for this device; it fits on one line."""
    with SshTimer(device, limits) as timing, pytest.raises(TimerError) as caught:
        timing.load(NET, 1)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_a_wrong_host_key(server: Server, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other_key")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {other}\n")
    options = server.options(known, server.folder / "user_key")
    assert "its key is not the one that is known" in failure(server.device(ssh_options=options))
    assert known.read_text() == f"[127.0.0.1]:{server.port} {other}\n"
    # Not even for who asks for it.
    careless = ("-o", "StrictHostKeyChecking=no", *options)
    assert "its key is not the one that is known" in failure(server.device(ssh_options=careless))


def test_an_unknown_host_key(server: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    options = ("-o", "StrictHostKeyChecking=accept-new", *server.options(known, server.folder / "user_key"))
    assert "its key isn't known here" in failure(server.device(ssh_options=options))
    assert known.read_text() == ""


def test_no_key_of_the_users_is_accepted(server: Server, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    options = server.options(server.folder / "known_hosts", tmp_path / "stranger")
    said = failure(server.device(ssh_options=options))
    assert "lets you in by no key" in said
    assert "Permission denied" in said


def test_nobody_listens(server: Server) -> None:
    options = ("-p", str(free_port()), *server.device().ssh_options)
    assert "no ssh server listens there" in failure(server.device(ssh_options=options))


def test_a_name_that_nobody_has(server: Server) -> None:
    said = failure(server.device(host="nowhere.invalid"))
    assert "nowhere.invalid" in said
    assert "its name isn't known" in said


def test_options_that_ssh_does_not_take(server: Server) -> None:
    options = ("-o", "NoSuchOption=yes", *server.device().ssh_options)
    said = failure(server.device(ssh_options=options))
    assert "doesn't take its options" in said
    assert "nosuchoption" in said.lower()


def test_no_ssh_on_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no ssh on this machine; install" in failure(server.device())


def test_no_such_python_there(server: Server) -> None:
    said = failure(server.device(python="/nowhere/python3"))
    assert "no Python that starts as '/nowhere/python3'" in said


def test_an_old_python_there(server: Server, tmp_path: Path) -> None:
    fake = "import sys; sys.version_info = (3, 6, 9, 'final', 0); sys.version = '3.6.9 (old)'; exec(sys.argv.pop())"
    old = script(tmp_path / "python", f'for last; do :; done\nexec {sys.executable} -c "{fake}" "$last"')
    assert "is Python 3.6.9; needed is 3.9 or newer" in failure(server.device(python=old))


def test_no_packages_there(server: Server, tmp_path: Path) -> None:
    bare = script(tmp_path / "bare", f'exec {sys.executable} -S "$@"')
    said = failure(server.device(python=bare))
    assert "can't import numpy (ModuleNotFoundError" in said
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('No module named onnxruntime')\n")
    without = script(tmp_path / "without", f'export PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"')
    said = failure(server.device(python=without))
    assert "can't import onnxruntime (ModuleNotFoundError: No module named onnxruntime)" in said
    assert "127.0.0.1" in said


def test_a_provider_that_is_not_there(server: Server) -> None:
    device = server.device(provider="NoSuchExecutionProvider")
    with SshTimer(device) as timing, pytest.raises(DeviceError) as caught:
        timing.load(NET, 1)
    assert "NoSuchExecutionProvider" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "installed: " in str(caught.value)


def test_a_host_that_only_talks(server: Server, tmp_path: Path) -> None:
    talking = script(tmp_path / "python", "while :; do echo y; done")
    assert "ended" in failure(server.device(python=talking))


def test_a_host_that_hangs(server: Server, tmp_path: Path) -> None:
    silent = script(tmp_path / "python", "cat > /dev/null")
    said = failure(server.device(python=silent), TimeLimits(start_s=1.0))
    assert "gave no answer for 1 s while it was started" in said


def test_a_timer_there_that_crashes(server: Server) -> None:
    with SshTimer(server.device()) as timing:
        handle = timing.load(NET, 1)
        for process in server.sessions():
            if sys.executable in process.cmdline()[0]:
                process.send_signal(signal.SIGSEGV)
        with pytest.raises(TimerError, match=r"host '.*127\.0\.0\.1' ended while models were run"):
            timing.alternate([handle], [1], 1)
        assert timing.alternate([handle], [1], 1).times_ns[0].size == 2


def cut_off(server: Server) -> None:
    """Kill the connections as soon as a timer is at work."""

    def at_work() -> bool:
        return any(process.cpu_times().user > 0 for process in server.sessions() if "-u" in process.cmdline())

    wait_for(at_work, "no timer is at work there")
    time.sleep(0.3)
    for process in server.process.children():
        process.kill()


def test_a_connection_that_is_killed_while_it_measures(server: Server) -> None:
    with SshTimer(server.device()) as timing:
        handle = timing.load(reference_model("ref-4"), 1)
        there = server.sessions()
        cutter = threading.Thread(target=cut_off, args=[server])
        cutter.start()
        with pytest.raises(TimerError, match=r"the connection to host .* ended while models were run"):
            timing.alternate([handle], [1000], 1000)
        cutter.join()
        wait_for(lambda: not any(process.is_running() for process in there), "the timer there goes on alone")
        # What was loaded is loaded again, through a new connection.
        assert timing.alternate([handle], [1], 1).times_ns[0].size == 2


def measure_cut_off(server: Server, store: Path, before: int) -> None:
    """Measure, but lose the connection just before the request of that number."""
    requests = itertools.count(1)
    exchange = Connection.exchange

    def cut(*args: Any) -> Any:
        if next(requests) == before:
            for process in server.process.children():
                process.kill()
        return exchange(*args)

    with pytest.MonkeyPatch.context() as patched, LatencyMeter(server.device(), store=store) as meter:
        patched.setattr(Connection, "exchange", cut)
        meter.measure(NET)


def test_a_cut_connection_leaves_nothing_half_written(server: Server, store: Path) -> None:
    lost = []
    for before in (1, 3, 4, 7, 11, 16):
        try:
            measure_cut_off(server, store, before)
        except TimerError as error:
            lost.append(str(error))
        assert {path.name for path in store.parent.glob("*")} <= {store.name, f"{store.name}.lock"}
        if store.exists():
            kept = json.loads(store.read_text())["environments"].values()
            assert all(fields["ms"] > 0 for entry in kept for fields in entry["references"].values())
    # The later cuts may find the measurement done: the references are kept, and a busy machine does fewer rounds.
    assert len(lost) >= 3
    assert all("the connection to host" in each for each in lost)
    with LatencyMeter(server.device(), store=store) as meter:
        assert meter.measure(NET).latency_ms > 0


# ---- models


def test_weights_beside_a_file_travel_in_it(tmp_path: Path) -> None:
    plain, split = tmp_path / "plain.onnx", tmp_path / "split.onnx"
    onnx.save_model(small_net(), plain)
    onnx.save_model(small_net(), split, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert sendable(plain) == plain.read_bytes()
    joined = onnx.load_model_from_string(sendable(split))
    for ours, theirs in zip(joined.graph.initializer, small_net().graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs))
    weights = tmp_path / "weights.bin"
    weights.rename(tmp_path / "elsewhere.bin")
    with pytest.raises(InvalidModelError, match=r"another file, .*weights\.bin, which is missing"):
        sendable(split)
    weights.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(InvalidModelError, match="which is a symbolic link"):
        sendable(split)
