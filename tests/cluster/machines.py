"""Machines on this one: each has its own network, mounts, processes and host name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import PATIENCE_S

SCRIPT = Path(__file__).with_name("machine.sh")


def ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True, text=True)


@dataclass
class Machine:
    """A machine of the cluster, which can lose its power and start again."""

    name: str
    address: str
    network: str
    root: Path
    shared: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with empty folders of its own."""
        command = [
            "ip", "netns", "exec", self.network,
            "unshare", "--mount", "--uts", "--ipc", "--pid",
            "--fork", "--kill-child", "--mount-proc",
            str(SCRIPT), self.name, self.address, str(self.root), str(self.shared),
        ]  # fmt: skip
        with (self.root / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def processes(self, word: str) -> list[psutil.Process]:
        """Return the processes whose command has this word."""
        assert self.process is not None
        found = []
        for each in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if word in each.cmdline():
                    found.append(each)
        return found

    def kill(self) -> None:
        """End all of its processes at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None


@contextmanager
def machines(
    root: Path, shared: Path, addresses: Mapping[str, str], own: str
) -> Iterator[dict[str, Machine]]:
    """Start a machine for each name in `addresses`, in one network with this one, at `own`."""
    bridge = f"assay{os.getpid()}"
    with ExitStack() as after:
        ip("link", "add", bridge, "type", "bridge")
        after.callback(ip, "link", "delete", bridge)
        ip("address", "add", f"{own}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = {}
        for number, (name, address) in enumerate(addresses.items()):
            network, cable = f"{bridge}-{name}", f"{bridge}v{number}"
            ip("netns", "add", network)
            after.callback(ip, "netns", "delete", network)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", network)
            ip("link", "set", cable, "master", bridge, "up")
            made[name] = Machine(name, address, network, root, shared)
            after.callback(made[name].kill)
            made[name].start()
        yield made
