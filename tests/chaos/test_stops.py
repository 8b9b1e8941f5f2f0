"""Stops that are asked for, stops by SIGSTOP, and a network that is cut: all under load."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import lacking
from rig import Rig, halt, held_by, running_rig
from support import eventually

from taskyard_ctl.chaos.probe import Tasks


def test_twenty_stops_under_load_cost_nothing(tmp_path: Path) -> None:
    """SIGTERM to two at a time: what runs is finished, what has not begun goes back, nothing runs twice."""
    draw = random.Random(7)
    with running_rig(tmp_path, workers=4, grace="10", lease="20") as rig, rig.yard() as yard:
        watched = rig.load(yard, Tasks(1, 0.002, 0.02), 2000, seconds=8)
        for n in range(10):
            ends = rig.ends.total()
            eventually(lambda: rig.joined(yard), "all have joined")
            first, second = draw.sample(rig.workers, 2)
            if n % 2 and rig.master is not None:
                second = rig.master
            first.terminate()
            second.terminate()
            eventually(lambda k=ends: rig.ends.total() > k + 1, "both ended", 40)  # type: ignore[misc]
        report = watched.held(undisturbed=True)
    assert rig.ends == {("worker", 0): 15, ("master", 0): 5}, "each ended with exit code 0"
    assert (report.completed, report.reruns, report.charged) == (2000, 0, 0)


def test_sigstop_of_workers_and_master(tmp_path: Path) -> None:
    """Their connections stay open, so only silence tells; and what they say afterwards comes late."""
    with running_rig(tmp_path, workers=3, lease="1", grace="0.2") as rig, rig.yard() as yard:
        watched = rig.load(yard, Tasks(2, 0.002, 0.01), most=0)
        for worker in rig.workers[:2]:
            eventually(lambda: all(w.leased for w in yard.status().workers), "all hold tasks")
            halt(worker)
            rig.faults["worker SIGSTOP"] += 1
            eventually(lambda p=worker: held_by(rig, p.pid) == 0, "its lease ran out")  # type: ignore[misc]
            worker.send_signal(signal.SIGCONT)
        assert rig.master is not None
        halt(rig.master)
        rig.faults["master SIGSTOP"] += 1
        read = watched.load.read
        with pytest.raises(AssertionError):
            eventually(lambda: watched.load.read > read + 100, "nothing is recorded now", 1)
        rig.master.send_signal(signal.SIGCONT)
        eventually(lambda: watched.load.read > read + 100, "it goes on")
        report = watched.held()
    assert report.completed == report.accepted
    assert report.charged == 0


# ---------------------------------------------------------------- the network


class Away:
    """A network namespace with an address of its own, as another host; `cut` drops its packets."""

    def __init__(self, number: int) -> None:
        self.name = f"taskyard-{os.getpid()}-{number}"
        self.here, self.there = f"10.231.{number}.1", f"10.231.{number}.2"
        self._link = f"ty{os.getpid() % 10000}x{number}"

    def make(self) -> None:
        ip = ["ip", "-n", self.name]
        for words in (
            ["ip", "netns", "add", self.name],
            ["ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name],
            ["ip", "addr", "add", f"{self.here}/30", "dev", self._link],
            ["ip", "link", "set", self._link, "up"],
            [*ip, "addr", "add", f"{self.there}/30", "dev", "eth0"],
            [*ip, "link", "set", "eth0", "up"],
            [*ip, "link", "set", "lo", "up"],
        ):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this machine cannot do that: {' '.join(words)}: {done.stderr.strip()}")

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self, *chains: str) -> None:
        for chain in chains:
            subprocess.run(
                self.command("iptables", "-A", chain, "-j", "DROP"), check=True, capture_output=True
            )

    def heal(self) -> None:
        subprocess.run(self.command("iptables", "-F"), check=True, capture_output=True)

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self._link], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


@pytest.fixture
def away() -> Iterator[Away]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            lacking(program)
    place = Away(1 + os.getpid() % 200)
    try:
        place.make()
        yield place
    finally:
        place.remove()


@pytest.mark.parametrize("chains", [("INPUT", "OUTPUT"), ("INPUT",), ("OUTPUT",)], ids=["both", "in", "out"])
def test_a_host_that_is_cut_off(tmp_path: Path, away: Away, chains: tuple[str, ...]) -> None:
    """Neither end hears of it: the lease tells. Once it is back, it goes on with what is still its own."""
    rig = Rig(tmp_path, lease="1", grace="0.2")
    rig.address = rig.environ["TASKYARD_ADDRESS"] = f"{away.here}:{rig.port}"
    rig.wrap = lambda module, command: (
        away.command(*command) if module == "taskyard_worker" and rig.far else command
    )
    try:
        rig.start_master()
        rig.start_worker()
        rig.far = True
        rig.start_worker()
        with rig.yard() as yard:
            eventually(lambda: rig.joined(yard), "both have joined")
            far = rig.workers[1].pid
            watched = rig.load(yard, Tasks(3, 0.002, 0.01), most=0)
            eventually(lambda: held_by(rig, far) > 0, "it holds tasks")
            away.cut(*chains)
            rig.faults["network cuts"] += 1
            eventually(lambda: held_by(rig, far) == 0, "its tasks went to others")
            read = watched.load.read
            eventually(lambda: watched.load.read > read + 20, "the others go on")
            away.heal()
            eventually(lambda: held_by(rig, far) > 0, "it is back and works", 40)
            report = watched.held()
            assert report.completed == report.accepted
    finally:
        rig.stop()
