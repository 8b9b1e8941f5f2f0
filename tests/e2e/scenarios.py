"""What every engine has to do; test_local and test_compose run all of it on theirs.

The classes use the fixture `yard`, a running yard with two workers, shared by a module,
and `new_yard`, which makes one that is not started.
"""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from support import eventually
from yards import TestYard

NewYard = Callable[..., TestYard]


class Working:
    """Submitting, results, and what can be done about jobs."""

    def test_results_come_in_order(self, yard: TestYard) -> None:
        done = yard.run("submit", "work:square", "--range", "0:10", "--wait", "--ordered")
        assert [row["value"] for row in done.rows()] == [n * n for n in range(10)]
        assert [row["index"] for row in done.rows()] == list(range(10))
        said = done.err.splitlines()
        assert said[0] == f"job {done.rows()[0]['job']}"
        assert said[-1].startswith("10 completed, in ")

    def test_workers_are_of_this_host(self, yard: TestYard) -> None:
        """By the machine's name, in containers too."""
        assert {worker["host"] for worker in yard.workers()} == {socket.gethostname()}

    def test_submit_prints_the_id_alone(self, yard: TestYard) -> None:
        job = yard.run("submit", "work:square", "--range", "0:5", "--job", "alone").out
        assert len(job) == 13
        followed = yard.run("results", job.strip(), "--follow").rows()
        assert sorted(row["value"] for row in followed) == [0, 1, 4, 9, 16]
        again = yard.run("results", "alone", "--ordered").rows()  # reading consumes nothing
        assert [row["value"] for row in again] == [0, 1, 4, 9, 16]
        assert yard.run("submit", "work:square", "--range", "0:1", "--json").json()["job"]

    def test_arguments_and_lines(self, yard: TestYard) -> None:
        by_arg = yard.run(
            "submit",
            "work:add",
            "--arg",
            "1",
            "--arg",
            "[1, 2]",
            "--arg",
            '{"a": 1, "b": 5}',
            "--wait",
            "--ordered",
        )
        assert [row["value"] for row in by_arg.rows()] == [1, 3, 6]
        by_line = yard.run("submit", "work:talk", "--input", "-", "--wait", "--ordered", stdin="one\ntwo\n")
        assert [row["value"] for row in by_line.rows()] == ["one", "two"]
        by_json = yard.run(
            "submit", "work:add", "--input", "-", "--jsonl", "--wait", stdin='[2, 3]\n{"a": 9}\n'
        )
        assert sorted(row["value"] for row in by_json.rows()) == [5, 9]

    def test_a_bad_line_in_the_middle_is_named(self, yard: TestYard) -> None:
        done = yard.run(
            "submit", "work:add", "--input", "-", "--jsonl", "--job", "broken", code=2, stdin="1\n{\n"
        )
        assert done.err.startswith("taskyard: -, line 2: is not JSON")
        assert done.out == ""
        assert yard.ended("broken")["state"] == "incomplete"

    def test_no_inputs_are_a_job_too(self, yard: TestYard) -> None:
        assert yard.run("submit", "work:square", "--range", "0:0", "--wait").out == ""

    def test_results_flow_while_inputs_are_still_coming(self, yard: TestYard) -> None:
        with yard.start("submit", "work:talk", "--input", "-", "--wait") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for word in ("first", "second"):
                process.stdin.write(f"{word}\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["value"] == word
            process.stdin.close()
            assert process.wait(30) == 0

    def test_files_are_found_and_read(self, yard: TestYard) -> None:
        for i in range(3):
            (yard.data / f"{i}.log").write_text("line\n" * i)
        done = yard.run("submit", "work:lines_of", "--glob", f"{yard.data}/*.log", "--wait", "--ordered")
        assert [row["value"] for row in done.rows()] == [0, 1, 2]

    def test_what_died_can_be_repaired(self, yard: TestYard) -> None:
        needed = yard.data / "needed"
        arguments = ["--arg", json.dumps(str(needed)), "--max-attempts", "1", "--job", "repair"]
        done = yard.run("submit", "work:fail_unless", *arguments, "--wait", code=1)
        (row,) = done.rows()
        assert (row["state"], row["value"], row["attempts"]) == ("dead", None, 1)
        assert row["error"]["reason"] == "raised"
        assert row["error"]["type"] == "ValueError"
        assert "work.py" in row["error"]["traceback"]
        assert "1 dead (taskyard results" in done.err
        assert len(yard.run("results", "repair", "--failed", code=1).rows()) == 1
        needed.touch()
        assert "1 dead tasks are ready again" in yard.run("requeue", "repair").err
        assert yard.ended("repair")["completed"] == 1
        assert yard.run("results", "repair", "--ordered").rows()[-1]["value"] == str(needed)
        assert "deleted" in yard.run("delete", "repair").err
        assert yard.run("results", "repair", code=2).err.startswith("taskyard: ")

    def test_cancel_ends_what_runs(self, yard: TestYard) -> None:
        path = json.dumps(str(yard.data / "never"))
        yard.run("submit", "work:hold", *["--arg", path] * 4, "--job", "hopeless")
        yard.busy(1)
        assert "4 tasks cancelled" in yard.run("cancel", "hopeless").err
        assert yard.run("results", "hopeless", "--follow", code=1).out == ""
        eventually(lambda: not any(worker["leased"] for worker in yard.workers()), "slots are free")

    def test_ctrl_c_leaves_the_job_running(self, yard: TestYard) -> None:
        gate = yard.data / "ctrl-c"
        arguments = ["--arg", json.dumps(str(gate)), "--wait", "--job", "left"]
        with yard.start("submit", "work:hold", *arguments) as process:
            yard.busy(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        job = yard.job("left")
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == (
            f"taskyard: interrupted; job {job['id']} goes on: taskyard results {job['id']} --follow"
        )
        assert job["state"] == "closed"
        gate.touch()
        assert yard.run("results", "left", "--follow").rows()[0]["value"] == str(gate)

    def test_a_function_that_nobody_can_run_is_refused(self, yard: TestYard) -> None:
        before = len(yard.status()["jobs"])
        done = yard.run("submit", "work:sqare", "--range", "0:10", code=2)
        assert done.err == "taskyard: no joined worker can run work:sqare: did you mean work:square?\n"
        for name in ("os:system", "nothing", "lambda x: x"):
            assert yard.run("submit", name, "--range", "0:10", code=2).err.count("\n") == 1
        assert len(yard.status()["jobs"]) == before

    def test_unknown_jobs_are_named(self, yard: TestYard) -> None:
        for verb in ("results", "cancel", "requeue", "delete", "status"):
            done = yard.run(verb, "nobody", code=2)
            assert "nobody" in done.err
            assert done.err.count("\n") == 1

    def test_the_wrong_key_is_not_let_in(self, yard: TestYard) -> None:
        for arguments in (["status"], ["submit", "work:square", "--range", "0:1"]):
            done = yard.run(*arguments, code=4, TASKYARD_AUTHKEY="0123456789abcdef")
            assert done.err.count("\n") == 1

    def test_a_port_of_something_else_is_named(self, yard: TestYard) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            done = yard.run("status", code=3, TASKYARD_ADDRESS=address)
        assert address in done.err
        assert done.err.count("\n") == 1

    def test_status_for_people_and_programs(self, yard: TestYard) -> None:
        assert list(yard.run("status", "--json").json()) == ["master", "jobs", "workers"]
        text = yard.run("status").out
        assert f"master {yard.address}" in text
        assert all(worker["id"] in text for worker in yard.workers())

    def test_logs_of_tasks(self, yard: TestYard, tmp_path: Path) -> None:
        job = yard.run("submit", "work:talk", "--range", "0:4", "--job", "talkers").out.strip()
        yard.ended("talkers")

        def lines() -> list[str]:
            found = yard.run("logs", "--job", "talkers", "--grep", "hello").out.splitlines()
            return found if len(found) >= 4 else []

        found = eventually(lines, "four lines")
        assert sorted(line.split("| ")[1].partition("[")[2] for line in found) == [
            f"{job}/{n}] task {n} says hello" for n in range(4)
        ]
        source = found[0].split()[0]
        own = yard.run("logs", "--worker", source).out.splitlines()
        assert {line.split()[0] for line in own} == {source}
        worker = next(w["id"] for w in yard.workers() if w["completed"])
        named = yard.run("logs", "--worker", worker).out.splitlines()
        assert len({line.split()[0] for line in named}) == 1
        assert yard.run("logs", "--since", "1h", "--json").rows()[0]["source"]
        assert "wrote 3 files" in yard.run("logs", "--output-dir", str(tmp_path / "out")).err
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        host = socket.gethostname()
        assert names == sorted([f"{host}.worker-1.log", f"{host}.worker-2.log", "master.log"])


class Scaling:
    """More workers and fewer; the module's yard has two before and after each test."""

    def test_more_and_fewer(self, yard: TestYard) -> None:
        before = {worker["id"] for worker in yard.workers()}
        yard.run("scale", "4")
        after = {worker["id"] for worker in yard.workers()}
        assert before < after
        assert len(after) == 4
        assert "TASKYARD_WORKERS=4" in (yard.folder / ".env").read_text().splitlines()
        yard.run("up", "--workers", "2")
        assert {worker["id"] for worker in yard.workers()} < after
        assert len(yard.workers()) == 2

    def test_the_idlest_go_and_a_busy_one_is_never_cut(self, yard: TestYard) -> None:
        yard.run("scale", "3")
        gates = [yard.data / f"gate-{i}" for i in range(2)]
        yard.run("submit", "work:hold", *_arguments(*gates), "--job", "busy")
        busy = {worker["id"] for worker in yard.busy(2)}
        yard.run("scale", "2")  # at once: one is idle
        assert {worker["id"] for worker in yard.workers()} == busy
        with yard.start("scale", "1") as process:
            assert process.stderr is not None
            assert (
                process.stderr.readline()
                == "1 of them are busy and finish 1 tasks first; Ctrl-C keeps them\n"
            )
            assert len(yard.workers()) == 2
            for gate in gates:
                gate.touch()
            assert process.wait(60) == 0
        job = yard.ended("busy")
        assert (job["completed"], job["retries"]) == (2, 0)
        assert {row["attempts"] for row in yard.run("results", "busy").rows()} == {1}
        assert len(yard.workers()) == 1
        yard.run("scale", "2")

    def test_ctrl_c_keeps_the_workers(self, yard: TestYard) -> None:
        gates = [yard.data / f"kept-{i}" for i in range(2)]
        yard.run("submit", "work:hold", *_arguments(*gates), "--job", "kept")
        yard.busy(2)
        with yard.start("scale", "0") as process:
            assert process.stderr is not None
            assert "are busy" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 130
        for gate in gates:
            gate.touch()
        yard.ended("kept")
        eventually(lambda: [w["state"] for w in yard.workers()] == ["idle", "idle"], "both work on")
        assert len(yard.run("submit", "work:square", "--range", "0:50", "--wait").rows()) == 50

    def test_drain_and_back(self, yard: TestYard) -> None:
        worker = yard.workers()[0]["id"]
        assert yard.run("drain", worker).err == (f"{worker} is drained; --undo lets it take tasks again\n")
        assert {w["id"]: w["state"] for w in yard.workers()}[worker] == "drained"
        assert "takes tasks again" in yard.run("drain", worker, "--undo").err
        assert {w["id"]: w["state"] for w in yard.workers()}[worker] == "idle"
        assert "names no workers" in yard.run("drain", "nobody", code=2).err

    def test_none_is_a_number_too(self, yard: TestYard) -> None:
        yard.run("scale", "0")
        done = yard.run("submit", "work:square", "--range", "0:3", "--job", "waits")
        assert done.err == "no workers yet: taskyard scale 2\n"
        assert "no workers yet: taskyard scale 2" in yard.run("status").out
        yard.run("scale", "2")
        assert len(yard.run("results", "waits", "--follow").rows()) == 3


def _arguments(*paths: Path) -> list[str]:
    return [word for path in paths for word in ("--arg", json.dumps(str(path)))]


class Living:
    """Up, down and what is left; each test has a yard of its own."""

    local: tuple[str, ...] = ()  # what `up` needs

    def test_what_was_accepted_is_there_after_a_down(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "0", *self.local)
        yard.run("submit", "work:square", "--range", "0:100", "--job", "kept")
        yard.run("down")
        assert yard.run("status", code=3).err.count("\n") == 1
        assert yard.run("down").err == "no yard runs here\n"
        yard.run("up", "--workers", "1")  # on the engine that it had: its jobs are there
        rows = yard.run("results", "kept", "--follow", "--ordered").rows()
        assert [row["value"] for row in rows] == [n * n for n in range(100)]
        yard.run("destroy", "--volumes")
        yard.run("up", "--workers", "0", *self.local)
        assert yard.run("results", "kept", code=2)

    def test_run_starts_what_is_needed(self, new_yard: NewYard) -> None:
        yard = new_yard()
        done = yard.run("run", "work:square", "--range", "0:10", "--ordered", *self.local)
        assert [row["value"] for row in done.rows()] == [n * n for n in range(10)]
        pid = yard.status()["master"]["started"]
        assert len(yard.run("run", "work:square", "--range", "0:3").rows()) == 3
        assert yard.status()["master"]["started"] == pid

    def test_a_port_in_use_starts_nothing(self, new_yard: NewYard) -> None:
        yard = new_yard()
        host, _, port = yard.address.partition(":")
        with socket.create_server((host, int(port))):
            done = yard.run("up", *self.local, code=3)
        assert f"port {port} of {host} is in use" in done.err.splitlines()[-1]
        assert not (yard.folder / ".taskyard" / "yard.json").exists()
        yard.run("up", *self.local)

    def test_a_yard_serves_any_folder(self, new_yard: NewYard, tmp_path: Path) -> None:
        yard = new_yard()
        yard.run("up", *self.local)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        old, yard.folder = yard.folder, elsewhere
        try:
            assert yard.run("--yard", str(old), "status", "--json").json()["workers"]
            assert "worker-1" in yard.run("logs", "--yard", str(old)).out
        finally:
            yard.folder = old

    def test_the_key_may_come_from_a_file(self, new_yard: NewYard) -> None:
        yard = new_yard(TASKYARD_AUTHKEY="", TASKYARD_AUTHKEY_FILE="key")
        (yard.folder / "key").write_text(os.urandom(16).hex())
        yard.run("up", *self.local)
        assert len(yard.run("submit", "work:square", "--range", "0:3", "--wait").rows()) == 3
