"""hosts.toml: what it may say, and how every fault is named."""

import re

import pytest

from taskyard.errors import SettingsError
from taskyard_ctl.inventory import EXAMPLE, Host, of_targets, parse
from taskyard_ctl.inventory_keys import KEYS, Given, Limits, Mount

MASTER = '[hosts.one]\nssh = "a@one"\nrole = "master"\n'


def faults(text: str) -> list[str]:
    """What parsing complains of, without the file's name."""
    with pytest.raises(SettingsError) as caught:
        parse(text, "yard")
    return [line.removeprefix("hosts.toml: ") for line in str(caught.value).splitlines()]


def test_the_example_is_an_inventory() -> None:
    """As `taskyard init` writes it."""
    inventory = parse(EXAMPLE.read_text(), "folder")
    assert inventory.name == "folder"
    assert [(host.name, host.role, host.workers) for host in inventory.hosts] == [
        ("one", "master", 0),
        ("two", "worker", "auto"),
    ]


def test_the_example_documents_every_key() -> None:
    """With the # taken away everything is set, and what stands there is valid."""
    text = re.sub(r"^#(?=[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    inventory = parse(text, "folder")
    assert inventory.name == "yard" and inventory.registry == "registry.example:5000/team"
    assert inventory.images == {"arm64": Given("taskyard-master:arm64", "taskyard-worker:arm64")}
    assert inventory.hosts[1] == Host(
        "two", "deploy@192.0.2.2", "worker", "", "auto", {"disk": "fast"}, Limits(2 << 30, 1.5, 1024),
        (Mount("/srv/data"), Mount("/srv/out", True)), {"TASKYARD_SLOTS": "2", "LANG": "C.UTF-8"}, -1,
        "/run/user/1000/docker.sock",
    )  # fmt: skip
    assert inventory.master.address == "192.0.2.1:5000"
    for key in KEYS:
        assert re.search(rf"^{key} = ", text, re.MULTILINE), key


@pytest.mark.parametrize("registry", ["localhost", "127.0.0.1:5000/a/b", "docker.io/somebody", "r.example"])
def test_registries(registry: str) -> None:
    """As Docker takes them: the first part is a host, or it would be a folder of the hub."""
    assert parse(f'registry = "{registry}"\n{MASTER}', "yard").registry == registry
    assert 'write "docker.io/NAME"' in faults(f'registry = "somebody/else"\n{MASTER}')[0]


def test_every_fault_is_listed_with_its_path() -> None:
    """All together, each with the nearest name where a key is unknown."""
    text = """
    nme = "x"
    registry = "https://hub"
    [images.arm46]
    [images.arm64]
    master = "-x"
    wrker = "y"
    [defaults]
    wokers = 3
    ssh = "a@b"
    [hosts.one]
    ssh = "-oProxyCommand=evil"
    role = "boss"
    [hosts.two]
    workers = -1
    limits = {memory = "much", cpu = 1}
    mounts = ["relative"]
    env = {TASKYARD_SLTS = "1", TASKYARD_AUTHKEY = "x"}
    gpus = true
    """
    assert sorted(faults(text)) == sorted([
        "nme: there is no such key; did you mean name?",
        'registry: must be a registry, with a path or without: "registry.example:5000/team" (is \'https://hub\')',
        "images.arm46: there is no such architecture; did you mean arm64?: amd64, arm64, arm, 386, ppc64le,"
        " riscv64, s390x",
        "images.arm64.wrker: there is no such key; did you mean worker?",
        'images.arm64: write master = "IMAGE" and worker = "IMAGE"',
        "defaults.wokers: there is no such key; did you mean workers?",
        "defaults.ssh: cannot be the same for all hosts: set it for each",
        'hosts.one.ssh: must be "user@host", "user@host:port" or an alias of the ssh config'
        " (is '-oProxyCommand=evil')",
        "hosts.one.role: must be \"master\" or \"worker\" (is 'boss')",
        'hosts.two.workers: must be a whole number, 0 or more, or "auto" (is -1)',
        "hosts.two.limits.cpu: there is no such key; did you mean cpus?",
        "hosts.two.limits.memory: must be a size such as \"512m\" or \"2g\" (is 'much')",
        'hosts.two.mounts: has what is no absolute path, with ":rw" or without (is [\'relative\'])',
        "hosts.two.env.TASKYARD_SLTS: there is no such setting; did you mean TASKYARD_SLOTS?",
        "hosts.two.env.TASKYARD_AUTHKEY: deploying sets it by itself: leave it out",
        'hosts.two.gpus: must be a number, or "all" (is True)',
        'hosts.two.ssh: is missing: write ssh = "user@host"',
        'hosts: exactly one has role = "master"; no host has it',
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[hosts", "is no TOML"),
        ("", "hosts: there is none"),
        ('hosts = "one"', "hosts: write a table for each host"),
        (MASTER + '[hosts.two]\nssh = "a@one"', "hosts.two.ssh: is the same as that of one: 'a@one'"),
        (MASTER + '[hosts.two]\nssh = "a@two"\nrole = "master"', "it is set for one, two"),
        (MASTER + '[hosts.two]\nssh = "a@two"\naddress = "two"', "hosts.two.address: only the master"),
        ('name = "Not so"\n' + MASTER, "name: must be small letters"),
    ],
)
def test_one_fault(text: str, fault: str) -> None:
    """Named in one line."""
    [said] = faults(text)
    assert fault in said


def test_defaults_hold_for_workers() -> None:
    """A host's own value wins, tables are joined, and the master works only if it says so itself."""
    inventory = parse(
        "[defaults]\nworkers = 3\nenv = {A = 1, B = true}\n"
        + MASTER
        + '[hosts.two]\nssh = "two"\nenv = {A = "x"}\n[hosts.three]\nssh = "b@three:2222"\nworkers = 5\n',
        "yard",
    )
    assert [host.workers for host in inventory.hosts] == [0, 3, 5]
    assert inventory.host("two").env == {"A": "x", "B": "true"}
    assert inventory.host("three").target == ("-p", "2222", "--", "b@three")
    with pytest.raises(SettingsError, match=r"'tow'; did you mean two\?"):
        inventory.host("tow")


def test_targets_without_a_file() -> None:
    """The first is the master; a lone one works too."""
    inventory = of_targets(["root@10.0.0.1", "root@10.0.0.2:2222", "alias"], "yard")
    assert [(h.name, h.role, h.workers) for h in inventory.hosts] == [
        ("10.0.0.1", "master", 0), ("10.0.0.2", "worker", "auto"), ("alias", "worker", "auto"),
    ]  # fmt: skip
    assert of_targets(["root@[fd00::1]:22"], "yard").master.target == ("-p", "22", "--", "root@[fd00::1]")
    assert of_targets(["root@one"], "yard").master.workers == "auto"
    with pytest.raises(SettingsError, match=r"command line: hosts\.one-2.ssh: is the same"):
        of_targets(["a@one", "a@one"], "yard")
