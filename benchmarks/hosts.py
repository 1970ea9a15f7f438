"""Several "hosts", each a network namespace of its own with one torchrun, train one model: what
becomes of it when a process is killed, the network is cut for a while, or a whole host goes and
comes back. At the end the weights, optimizer and curves must be those of a run that nothing
happened to, to the bit.

    sudo python benchmarks/hosts.py                         # two hosts, then three
    sudo python benchmarks/hosts.py --hosts 2 --only cut --seconds 30

Linux, as root (`ip netns`); the hosts share the disk.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torture import LONGEST, children_of, copy_of, fingerprints, undisturbed

BRIDGE, NETWORK = "miaobr", "10.77.0"
EVENTS = ("killed", "cut", "back")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--hosts", default="2,3", help="how many (default: 2, then 3)")
    parser.add_argument("--only", default=",".join(EVENTS), help=f"of {', '.join(EVENTS)}")
    parser.add_argument("--seconds", type=float, default=30, help="how long the network is cut")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    bad = 0
    for count in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory(prefix="miao-hosts-") as name, network(count):
            directory = Path(name)
            try:
                recipe, base, truth, usual = undisturbed(
                    directory, lambda recipe, out, count=count: Hosts(count, recipe, out).end()
                )
            except RuntimeError as error:
                raise SystemExit(
                    f"{(directory / 'whole.log').read_text(encoding='utf-8')[-6000:]}\n{error}"
                ) from error
            print(f"{count} hosts, undisturbed: {usual:.0f} s", flush=True)
            for event in options.only.split(","):
                hosts = Hosts(count, recipe, copy_of(base, directory / event))
                began, differs = time.monotonic(), ["it failed"]
                try:
                    hosts.wait_for_checkpoint()
                    getattr(hosts, event)(options.seconds)
                    hosts.end()
                    found = fingerprints(hosts.out / "tiny")
                    differs = [key for key in truth if found[key] != truth[key]]
                except (RuntimeError, ValueError, OSError, subprocess.CalledProcessError) as error:
                    print(f"{error}\n{hosts.log.read_text(encoding='utf-8')[-3000:]}")
                finally:
                    for host in range(count):
                        end_all(host)
                bad += bool(differs)
                resumed = hosts.log.read_text(encoding="utf-8").count("resumed at step")
                print(
                    f"| {count} hosts | {event} | {resumed} times resumed | "
                    f"{', '.join(differs) or 'equal to the bit'} | "
                    f"{time.monotonic() - began:.0f} s |",
                    flush=True,
                )
    return 1 if bad else 0


class Hosts:
    """One torchrun in every namespace, of one process each."""

    def __init__(self, count: int, recipe: Path, out: Path):
        self.count, self.recipe, self.out = count, recipe, out
        self.log = out.with_suffix(".log")
        self.port = 29500 + int(time.monotonic()) % 500
        self.launched = [self.launch(host) for host in range(count)]

    def launch(self, host: int) -> subprocess.Popen[bytes]:
        words = ["ip", "netns", "exec", f"miao{host}", sys.executable, "-m"]
        words += ["torch.distributed.run", "--monitor-interval", "0.2", "--max-restarts", "3"]
        words += ["--nnodes", str(self.count), "--nproc-per-node", "1", "--rdzv-id", self.out.name]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{NETWORK}.1:{self.port}"]
        words += ["--rdzv-conf", f"is_host={int(host == 0)}"]  # its name is every namespace's
        words += ["--local-addr", f"{NETWORK}.{host + 1}"]
        words += [str(Path(__file__).with_name("torture.py")), "--worker", "pretrain"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*words, str(self.recipe), str(self.out)],
                stdout=log,
                stderr=log,
                # Else who comes back waits for an address that is not said again (page 12).
                env=os.environ
                | {"GLOO_SOCKET_IFNAME": "eth0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
                start_new_session=True,
            )

    def wait_for_checkpoint(self) -> None:
        checkpoints = self.out / "tiny" / "checkpoints" / "pretrain"
        end = time.monotonic() + LONGEST
        while not list(checkpoints.glob("step-*")):
            if time.monotonic() > end or any(one.poll() for one in self.launched):
                raise RuntimeError("no checkpoint came")
            time.sleep(0.01)

    def killed(self, seconds: float) -> None:
        """A process of the last host."""
        (worker,) = children_of(self.launched[-1].pid)
        os.kill(worker, signal.SIGKILL)

    def cut(self, seconds: float) -> None:
        """The last host's network, for a while."""
        run("ip", "link", "set", f"miaov{self.count - 1}", "down")
        time.sleep(seconds)
        run("ip", "link", "set", f"miaov{self.count - 1}", "up")

    def back(self, seconds: float) -> None:
        """The last host loses all its processes, and starts again."""
        end_all(self.count - 1)
        self.launched[-1].wait()
        time.sleep(1)
        self.launched[-1] = self.launch(self.count - 1)

    def end(self) -> None:
        """Waits for all.

        Raises:
            RuntimeError: one fails, or hangs.
        """
        try:
            codes = [one.wait(LONGEST) for one in self.launched]
        except subprocess.TimeoutExpired as error:
            raise RuntimeError("a run hangs") from error
        if any(codes):
            raise RuntimeError(f"{self.out.name}: torchrun ended with {codes}")


@contextmanager
def network(count: int) -> Iterator[None]:
    """Namespaces miao0, miao1, ... on one bridge."""
    clean()
    try:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        for host in range(count):
            name, link = f"miao{host}", f"miaov{host}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", link, "master", BRIDGE, "up")
            within: Any = ("ip", "-n", name)
            run(*within, "addr", "add", f"{NETWORK}.{host + 1}/24", "dev", "eth0")
            run(*within, "link", "set", "eth0", "up")
            run(*within, "link", "set", "lo", "up")
        yield
    finally:
        clean()


def clean() -> None:
    for line in asked("ip", "netns").splitlines():
        if (name := line.split()[0]).startswith("miao"):
            end_all(int(name.removeprefix("miao")))
            run("ip", "netns", "delete", name)
    # Else links go some time after their namespaces, and new ones would find their names taken.
    for line in asked("ip", "-o", "link").splitlines():
        if (name := line.split()[1].rstrip(":").partition("@")[0]).startswith(("miaov", BRIDGE)):
            asked("ip", "link", "delete", name)


def end_all(host: int) -> None:
    """Ends every process of a host: the workers of a torchrun outlive it."""
    for number in asked("ip", "netns", "pids", f"miao{host}").split():
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def asked(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


def run(*words: str) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    sys.exit(main())
