import pytest

from latency_models.devices.ssh_options import refusal


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-p", "2222"],
        ["-p2222", "-4", "-i", "~/.ssh/board"],
        ["-o", "UserKnownHostsFile=/home/me/known", "-oConnectTimeout=5"],
        ["-o", "StrictHostKeyChecking=yes"],
        ["-o", "StrictHostKeyChecking accept-new"],
        ["-o", "KnownHostsCommand=none", "-J", "jump@host"],
        ["-o", "ProxyCommand=nc -X connect %h %p"],
    ],
)
def test_options_that_keep_the_check(options: list[str]) -> None:
    assert refusal(options) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "StrictHostKeyChecking=no"], ("StrictHostKeyChecking=no", "host's key", "yes")),
        (["-oStrictHostKeyChecking=off"], ("StrictHostKeyChecking=off",)),
        (["-4oStrictHostKeyChecking=no"], ("StrictHostKeyChecking=no",)),
        (["-o", "stricthostkeychecking NO"], ("stricthostkeychecking=NO",)),
        (["-o", 'StrictHostKeyChecking = "no"'], ("StrictHostKeyChecking",)),
        (["-o", "StrictHostKeyChecking=false"], ("StrictHostKeyChecking=false",)),
        (
            ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=accept-new"],
            ("remembers no host's key",),
        ),
        (["-o", "UserKnownHostsFile=none"], ("UserKnownHostsFile=none",)),
        (["-o", "NoHostAuthenticationForLocalhost=yes"], ("NoHostAuthenticationForLocalhost",)),
        (["-o", "KnownHostsCommand=/usr/bin/ssh-keyscan %H"], ("KnownHostsCommand",)),
        (["-o", "=no"], ("no form that ssh reads",)),
        (["-o"], ("not an option of ssh",)),
        (["-z"], ("not an option of ssh",)),
        (["--help"], ("not an option of ssh",)),
        (["-p", "22", "other@host"], ("'other@host' is no option", "destination")),
        (["--"], ("'--' is no option",)),
        (["-f"], ("-f goes to the background",)),
        (["-tt"], ("-t asks for a terminal",)),
        (["-N"], ("-N runs no command",)),
    ],
)
def test_options_that_are_refused_with_the_reason(options: list[str], words: tuple[str, ...]) -> None:
    reason = refusal(options)
    assert reason is not None
    for word in words:
        assert word in reason
