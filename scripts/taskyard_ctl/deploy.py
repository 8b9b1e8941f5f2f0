"""`deploy` and `rollback` from end to end: images, certificates, lock, look, plan, perform, table."""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import docker  # type: ignore[import-untyped]
import docker.errors  # type: ignore[import-untyped]

from taskyard.errors import EngineError, HostError, TaskyardError, UsageError
from taskyard.tls_files import REVOKED
from taskyard_ctl import baking, newyard
from taskyard_ctl.containers import Box, list_digest
from taskyard_ctl.deploying import Outcome, Performance
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hostprogress import Display, table
from taskyard_ctl.hostrecord import Record
from taskyard_ctl.hoststeps import READY_S, Parts, Steps
from taskyard_ctl.images import PARTS, yard_image
from taskyard_ctl.interface import Say
from taskyard_ctl.inventory import Inventory
from taskyard_ctl.layout import Cargo
from taskyard_ctl.plan import (
    KEPT,
    RUNS,
    Action,
    HostNow,
    Role,
    Stage,
    Version,
    Wanted,
    mixed,
    plan,
    refusals,
    strangers,
    with_architectures,
)
from taskyard_ctl.registry import push
from taskyard_ctl.shipping import Hold
from taskyard_ctl.site import Site, Via
from taskyard_ctl.ssh import Link, connect
from taskyard_ctl.yard import YardFolder

LAYERS = "layers"  # folder of what was sent


@dataclass(slots=True)
class Reached:
    """The hosts that answer, and why others do not."""

    links: dict[str, Link]
    engines: dict[str, HostEngine]
    faults: dict[str, TaskyardError]

    def close(self) -> None:
        for link in self.links.values():
            link.close()


def reach(site: Site, inventory: Inventory) -> Reached:
    """Connect to all hosts; raises HostError if the master's host does not answer."""
    master = inventory.master.name
    links, faults = connect(inventory.hosts, {master: [site.master_port]})
    reached = Reached(links, {name: HostEngine(link, inventory.name) for name, link in links.items()}, faults)
    if master in faults:
        reached.close()
        raise HostError(f"{faults[master]}; it is the master's, so nothing was done")
    return reached


def deploy(
    folder: YardFolder, words: tuple[str, ...], dry_run: bool, say: Say, via: Via | None = None
) -> int:
    """Bring the hosts to what the inventory and the tasks folder say; returns the exit code."""
    site = Site.of_words(folder, words, via)
    inventory = site.inventory  # its faults come first
    _check_folder(folder)
    if not folder.has_key:
        for line in newyard.make(folder):
            say(line)
    for change in site.make_certs():
        why = f": {change.why}" if change.why else ""
        say(f"{change.what} {site.certs.path / change.file}{why}")
    version = baking.bake(inventory.name, Path(folder.settings.tasks_dir), say, inventory.images)
    return _run_of(site, say).run(f"deploy {version.id}", version, dry_run)


def rollback(folder: YardFolder, say: Say) -> int:
    """Go back to the version before."""
    site = deployed(folder)
    return _run_of(site, say).run("rollback", None, dry_run=False)


def _run_of(site: Site, say: Say) -> "Deploy":
    if not site.swarm:
        return Deploy(site, say)
    from taskyard_ctl.swarmdeploy import SwarmDeploy

    return SwarmDeploy(site, say)


def unlock(folder: YardFolder, words: tuple[str, ...], say: Say) -> None:
    """Take the deploy lock away."""
    site = Site.of_words(folder, words)
    master = site.inventory.master
    with Link(master) as link:
        whose = Record(HostEngine(link, site.inventory.name)).unlock()
    say(f"took the deploy lock away from {whose}" if whose else f"{master.name} has no deploy lock")


def audit(folder: YardFolder, words: tuple[str, ...]) -> str:
    """What was done to the yard so far, a line a step."""
    site = Site.of_words(folder, words)
    with Link(site.inventory.master) as link:
        engine = HostEngine(link, site.inventory.name)
        images = sorted(image for image in engine.look().images if "-master:" in image)
        if not images:
            raise UsageError(f"nothing was deployed to {engine.name} yet")
        return Record(engine).audit(images[0])


def deployed(folder: YardFolder) -> Site:
    """The site of this folder; raises UsageError if nothing was deployed from it."""
    if folder.record().get("engine") != "hosts":
        raise UsageError(f"nothing was deployed from {folder.path}: 'taskyard deploy' comes first")
    return Site.recorded(folder)


def _check_folder(folder: YardFolder) -> None:
    if folder.record().get("engine") in ("local", "compose"):
        engine = folder.found()
        if engine is not None and engine.running():
            raise UsageError(
                "this folder's yard runs here: 'taskyard down' first, or deploy from another folder"
            )


class Deploy:
    """One run for one site."""

    def __init__(self, site: Site, say: Say) -> None:
        self._site = site
        self._say = say
        self._leaving = site.leaving()
        self._inventory = replace(site.inventory, hosts=(*site.inventory.hosts, *self._leaving))
        self._hold = Hold(site.folder.state / LAYERS)

    def run(self, why: str, version: Version | None, dry_run: bool) -> int:
        """Do it; `version` None means the one before. Raises what stopped everything."""
        started = time.monotonic()
        inventory = self._inventory
        reached = reach(self._site, inventory)
        self._give_up(reached)
        try:
            record = Record(reached.engines[inventory.master.name])
            if dry_run:
                actions, _ = self._plan(reached, record, version)
                for action in actions:
                    print(action)  # noqa: T201 - this is the result, for stdout
                if not actions:
                    self._say("nothing is to do")
                return self._end(reached, {}, [], started, done=False)
            with record.locked(why):
                return self._locked(reached, record, why, version, started)
        finally:
            reached.close()

    def _give_up(self, reached: Reached) -> None:
        """A host that is to be left and does not answer is left as it is: it may be no more."""
        lost = [host for host in self._leaving if host.name in reached.faults]
        for host in lost:
            self._say(f"{reached.faults.pop(host.name)}; not in the inventory any more, it is left as it is")
        self._leaving = tuple(host for host in self._leaving if host not in lost)
        kept = tuple(host for host in self._inventory.hosts if host not in lost)
        self._inventory = replace(self._inventory, hosts=kept)

    def _locked(
        self, reached: Reached, record: Record, why: str, version: Version | None, started: float
    ) -> int:
        actions, wanted = self._plan(reached, record, version)
        self._site.write_record(self._leaving)  # not before: what is refused leaves the verbs as they were
        if not actions:
            self._say(f"nothing is to do: version {wanted.version.id} runs")
            self._site.write_record(())
            return self._end(reached, {}, [], started, done=False)
        inventory = self._inventory
        with Display(self._say) as display:
            steps = self._steps(reached, wanted, actions, display)
            performance = Performance(steps, inventory.master.name)
            error: TaskyardError | None = None
            try:
                performance.run(actions, lambda gone: self._again(reached, wanted, gone))
            except TaskyardError as fault:
                error = fault
        self._write(record, why, performance, wanted, error)
        if error is not None and not isinstance(error, HostError):
            raise error
        code = self._end(reached, performance.outcomes, performance.performed, started, done=True)
        if error is not None:
            raise error
        self._forget(wanted)
        self._site.write_record([h for h in self._leaving if performance.outcomes[h.name].fault])
        return code

    def _steps(self, reached: Reached, wanted: Wanted, actions: list[Action], display: Display) -> Steps:
        """Who performs them."""
        boxes, keys = self._site.boxes(wanted.version, self._inventory)
        return Steps(self._parts(reached, actions, boxes, keys), display)

    def _parts(
        self, reached: Reached, actions: list[Action], boxes: Mapping[tuple[str, Role], Box],
        keys: Mapping[tuple[str, Role], Mapping[str, bytes]],
    ) -> Parts:  # fmt: skip
        port = reached.links[self._inventory.master.name].ports[self._site.master_port]
        return Parts(
            reached.engines, boxes, keys, self._hold, self._cargos(actions),
            lambda: self._site.connect(port, patience=1.0, reconnect=READY_S), self._inventory.registry,
        )  # fmt: skip

    def _plan(self, reached: Reached, record: Record, version: Version | None) -> tuple[list[Action], Wanted]:
        inventory = self._inventory
        now = self._look(reached)
        if inventory.master.name not in now:
            raise HostError(str(reached.faults[inventory.master.name]))
        others = strangers(now, self._site.authority) or mixed(now, self._site.swarm)
        if others:
            raise HostError("\n".join(others))
        there = [image for image in now[inventory.master.name].images if "-master:" in image]
        versions = record.versions(there[0]) if there else []
        if version is None:
            if len(versions) < 2:
                raise UsageError("there is no version before this one")
            version = versions[1]
        else:
            wrong = refusals(now, self._architectures(version))
            if wrong:
                raise HostError("\n".join(wrong))
        self._inventory = with_architectures(inventory, now)
        kept = (version, *(one for one in versions if one.id != version.id))[:KEPT]
        self._now = now
        wanted = self._want(reached, version, kept)
        return self._actions(now, wanted), wanted

    def _want(self, reached: Reached, version: Version, kept: tuple[Version, ...]) -> Wanted:
        boxes, _ = self._site.boxes(version, self._inventory)
        listed = list_digest((self._site.certs.path / REVOKED).read_bytes())
        shapes = {key: box.shape for key, box in boxes.items()}
        return Wanted(version, shapes, kept, listed, self._inventory.registry)

    def _actions(self, now: Mapping[str, HostNow], wanted: Wanted) -> list[Action]:
        return plan(self._inventory, now, wanted)

    def _look(self, reached: Reached) -> dict[str, HostNow]:
        """What is on all hosts now; one that does not tell counts as not reached."""
        found: dict[str, HostNow] = {}

        def look(engine: HostEngine) -> None:
            try:
                found[engine.name] = engine.look()
            except HostError as fault:
                reached.faults[engine.name] = fault

        with ThreadPoolExecutor(len(reached.engines)) as pool:
            list(pool.map(look, reached.engines.values()))
        return {name: found[name] for name in reached.engines if name in found}

    def _again(self, reached: Reached, wanted: Wanted, gone: set[str]) -> list[Action]:
        """The plan without hosts that failed while they were prepared."""
        now = {name: here for name, here in self._now.items() if name not in gone}
        return [action for action in self._actions(now, wanted) if action.stage > Stage.PREPARE]

    def _architectures(self, version: Version) -> list[str]:
        """For which there are images: those made here, and those that hosts.toml names."""
        try:
            here = str(self._client().images.get(version.worker).attrs["Architecture"])
        except docker.errors.ImageNotFound:
            raise EngineError(f"image {version.worker} was removed just now: try again") from None
        return [here, *(other[0] for other in version.others if other[0] != here)]

    def _client(self) -> docker.DockerClient:
        try:
            return docker.from_env()
        except docker.errors.DockerException as fault:
            raise EngineError(f"no Docker engine answers here ({fault}): start it") from None

    def _cargos(self, actions: list[Action]) -> Mapping[str, Cargo]:
        images = dict.fromkeys(name for action in actions if action.kind == "send" for name in action.names)
        registry = self._inventory.registry
        if registry:
            for image in images:
                self._push(registry, image)
            return {}
        if not images:
            return {}
        self._site.folder.make_state()
        return {cargo.name: cargo for cargo in self._hold.load(self._client(), images)}

    def _push(self, registry: str, image: str) -> None:
        if self._client().api.images(name=image):  # else it was pushed by who made it: hosts will say
            self._say(f"pushing {image} to {registry}")
            push(registry, image)

    # ------------------------------------------------------------ the end

    def _write(
        self, record: Record, why: str, performance: Performance, wanted: Wanted, error: TaskyardError | None
    ) -> None:
        """Into the books on the master's host, as far as it still answers."""
        lines = [f"{why}: {action}" for action in performance.performed]
        lines.append(f"{why}: {'failed: ' + ' '.join(str(error).split()) if error else 'done'}")
        versions = None if error else list(wanted.kept)
        try:
            architecture = self._inventory.master.architecture
            record.write(wanted.version.image("master", architecture), lines, versions)
        except HostError as fault:
            self._say(f"the audit log was not written: {fault}")

    def _end(
        self, reached: Reached, outcomes: Mapping[str, Outcome], performed: list[Action], started: float,
        done: bool,
    ) -> int:  # fmt: skip
        """The table of all hosts, and the exit code."""
        inventory = self._inventory
        now = self._look(reached) if done or reached.faults else {}
        rows = [("HOST", "ROLE", "WORKERS", "VERSION", "STEPS", "BYTES", "SECONDS", "STATE")]
        failed = []
        for host in inventory.hosts:
            outcome = outcomes.get(host.name, Outcome())
            fault = outcome.fault or str(reached.faults.get(host.name, ""))
            here = now.get(host.name, HostNow())
            running = [c for c in here.containers if c.state in RUNS]
            workers = sum(c.role == "worker" for c in running)
            versions = ",".join(sorted({c.version for c in running})) or "-"
            if fault:
                failed.append(host.name)
            rows.append((
                host.name, host.role, str(workers) if host.name in now else "?", versions,
                str(outcome.actions), f"{outcome.bytes:,}", f"{outcome.seconds:.1f}", fault or "ok",
            ))  # fmt: skip
        if done or failed:
            for line in table(rows):
                self._say(line)
            many = len(inventory.hosts)
            seconds = time.monotonic() - started
            self._say(f"{many - len(failed)} of {many} hosts are as they should be, {seconds:.1f} s")
        return HostError.exit_code if failed else 0

    def _forget(self, wanted: Wanted) -> None:
        """Remove images here that no kept version has."""
        kept = {image for version in wanted.kept for image in version.images}
        client = self._client()
        names = [yard_image(self._inventory.name, role) for role in PARTS]
        for image in client.api.images(filters={"reference": names}):
            for tag in image["RepoTags"] or ():
                if tag not in kept:
                    try:
                        client.api.remove_image(tag)
                    except docker.errors.APIError:
                        continue  # in use by somebody
        with contextlib.suppress(EngineError):  # somebody has removed them: nothing is to be kept of them
            hosts = self._inventory.hosts
            used = {wanted.version.image(role, h.architecture) for h in hosts for role in PARTS}  # type: ignore[arg-type]
            if not self._inventory.registry:
                self._hold.prune(self._hold.load(client, used))
