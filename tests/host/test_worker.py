"""`rotomem worker` as a host meets it: real processes, real pipes, real files."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.shots import checkpoint, digests, label_key, plate, soft_key
from rotomem.host import client
from rotomem.host.client import Engine, EngineError, find_engine
from rotomem.host.worker import Worker, _Jobs, bounded_lines
from rotomem.io.exr import read_still
from rotomem.splines.files import read_splines

COMMAND = [sys.executable, "-I", "-m", "rotomem"]
FAST = {"size": 32, "mem_every": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def engine():
    with Engine(COMMAND) as running:
        yield running


def request(folder: Path, weights: str, frames: int = 8, **options: object) -> dict:
    return {
        "plate": plate(folder / "plate", range(1001, 1001 + frames)),
        "masks": [label_key(folder, 1001)],
        "out": str(folder / "out"),
        "options": {**FAST, "model": weights, **options},
    }


def test_worker_when_asked_to_track_then_every_frame_is_told_with_its_files(engine, weights, tmp_path):
    job = engine.submit("track", **request(tmp_path, weights))
    events = []
    while not job.ended:
        events += engine.poll()
    mine = [e for e in events if e["id"] == job.id]
    assert [e["event"] for e in mine[:2]] == ["queued", "started"] and job.state == "done"
    told = [e for e in mine if e["event"] == "progress" and e["doing"] == "track"]
    assert [e["frame"] for e in told] == list(range(1001, 1009))
    assert all(Path(path).is_file() for e in told for path in e["files"])
    assert job.result["report"]["frames_written"] == 8 and len(digests(tmp_path / "out")) == 8


def test_worker_when_asked_for_some_frames_then_the_rest_is_left(engine, weights, tmp_path):
    asked = request(tmp_path, weights, frames=4, resume=True)
    part = engine.wait(engine.submit("track", **asked, only="1002-1003"), 60)
    assert part.state == "done" and [p.split(".")[-2] for p in sorted(digests(tmp_path / "out"))] == ["1002", "1003"]
    whole = engine.wait(engine.submit("track", **asked), 60)
    assert (whole.result["report"]["frames_written"], whole.result["report"]["frames_kept"]) == (2, 2)
    wrong = engine.wait(engine.submit("track", **asked, only="soon"), 60)
    assert wrong.state == "error" and "soon" in wrong.message


def test_worker_when_a_job_fails_then_the_remedy_arrives_and_the_next_one_works(engine, weights, tmp_path):
    wrong = engine.submit(
        "track", plate=str(tmp_path / "none.%04d.exr"), masks=["1001=x.png"], out=str(tmp_path / "o")
    )
    right = engine.submit("track", **request(tmp_path, weights, frames=2))
    engine.wait(right, 60)
    assert wrong.state == "error" and wrong.result["kind"] == "MissingFrameError"
    assert wrong.result["exit_code"] == 3 and "none.%04d.exr" in wrong.message
    assert right.state == "done"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"do": "dance"}, "dance"),
        ({"do": "track", "plate": 3}, "plate"),
        ({"do": "track", "plate": "p", "out": "o", "masks": "m"}, "masks"),
        ({"do": "track", "plate": "p", "out": "o", "masks": [], "options": {"sice": 3}}, "sice"),
        ({"do": "look", "plate": "p", "options": []}, "options"),
    ],
)
def test_worker_when_a_request_is_wrong_then_it_says_what(engine, asked, said):
    job = engine.submit(**asked)
    engine.wait(job, 30)
    assert job.state == "error" and said in job.message


def test_hello_when_said_then_the_bundled_models_are_those_of_the_registry(engine):
    from rotomem.models.registry import REGISTRY

    assert engine.models == sorted(name for name, entry in REGISTRY.items() if entry.weights is not None)


def test_worker_when_asked_to_look_then_it_tells_the_plate(engine, tmp_path):
    job = engine.wait(engine.submit("look", plate=plate(tmp_path)), 30)
    assert job.result["plate"]["frames"] == list(range(1001, 1009)) and job.result["plate"]["width"] == 72


def test_worker_when_cancelled_then_it_ends_within_a_frame_and_files_are_whole(engine, weights, tmp_path):
    job = engine.submit("track", **request(tmp_path, weights, frames=60))
    waiting = engine.submit("look", plate="p")
    engine.cancel(waiting)
    while job.last is None:
        engine.poll()
    engine.cancel(job)
    engine.wait(job, 30)
    assert job.state == "cancelled"
    written = job.result["report"]["frames_written"]
    assert 0 < written < 60 and len(digests(tmp_path / "out")) == written
    assert engine.wait(waiting, 30).state == "cancelled"


def test_worker_when_two_jobs_use_one_model_then_it_is_loaded_once(weights, tmp_path, monkeypatch):
    from rotomem.models import registry

    loaded = []
    load = registry.load_model
    monkeypatch.setattr(registry, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    events: list[dict] = []
    worker = Worker(events.append)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        worker.do(_job({"do": "track", "id": name, **request(tmp_path / name, weights, frames=2)}))
    assert [e["event"] for e in events if e["event"] == "done"] == ["done"] * 2 and len(loaded) == 1
    os.utime(weights)
    worker.do(_job({"do": "load", "id": "c", "options": {"model": weights}}))
    assert len(loaded) == 2 and events[-1]["model"]["device"] == "cpu"


def _job(asked: dict):
    from rotomem.host.worker import Job

    return Job(asked)


def test_worker_when_a_library_prints_then_events_stay_whole(tmp_path):
    code = (
        "import os, sys\n"
        "from rotomem.host import worker\n"
        "def noisy(self, job):\n"
        "    os.write(1, b'x' * 200_000 + b'\\n'); print('y' * 200_000); sys.stderr.write('z' * 200_000 + '\\n')\n"
        "    self._send({'event': 'done', 'id': job.id}); return 0\n"
        "worker.Worker.do = noisy\n"
        "sys.exit(worker.serve())\n"
    )
    script = tmp_path / "noisy.py"
    script.write_text(code)
    starter = tmp_path / "rotomem"
    starter.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
    starter.chmod(0o755)
    with Engine(find_engine(str(starter))) as noisy:
        assert noisy.wait(noisy.submit("look"), 30).state == "done"
        assert "zzz" in noisy.log or "yyy" in noisy.log


def test_worker_when_given_garbage_then_it_says_so_and_goes_on():
    lines = [
        b"\xff\xfe\n",
        b"{}\n",
        b"[" * 5000 + b"\n",
        b'"x"\n',
        b'{"do": "look"}\n',
        b"x" * (client.LONGEST_LINE + 5) + b"\n",
    ]
    worker = subprocess.Popen([*COMMAND, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.stdin.write(b"".join(lines) + b'{"do": "dance", "id": "1"}\n')
    worker.stdin.flush()
    told = [json.loads(worker.stdout.readline()) for _ in range(1 + len(lines) + 2)]
    worker.stdin.close()
    assert worker.wait(30) == 0
    assert told[0]["event"] == "hello"
    assert [e["event"] for e in told if e["id"] is None][1:] == ["error"] * len(lines)
    assert [e["event"] for e in told if e["id"] == "1"] == ["queued", "error"]


def test_worker_when_there_is_nothing_but_garbage_then_it_leaves():
    garbage = b"GET / HTTP/1.1\n" * 1000
    done = subprocess.run([*COMMAND, "worker"], input=garbage, capture_output=True, timeout=60)
    assert "in a row" in done.stdout.splitlines()[-1].decode()


def test_requests_when_a_host_floods_then_the_queue_is_bounded():
    said: list[dict] = []
    jobs = _Jobs(said.append)
    for i in range(200):
        jobs._take(json.dumps({"do": "look", "id": str(i)}).encode())
    kinds = [e["event"] for e in said]
    assert kinds.count("queued") == 64 and kinds.count("error") == 200 - 64
    assert jobs._take(b'{"do": "look", "id": "1"}') == "a second request with the id 1"


def test_bounded_lines_when_a_line_never_ends_then_little_is_held(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a\n\n" + b"b" * 100 + b"\nc")
    with path.open("rb") as file:
        assert list(bounded_lines(file, longest=10)) == [b"a\n", None, b"c"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_worker_when_the_host_is_killed_then_it_is_gone_within_a_second(weights, tmp_path):
    asked = {"do": "track", "id": "1", **request(tmp_path, weights, frames=60)}
    line = json.dumps(asked).encode() + b"\n"
    # The host holds the pipe; a second child of it inherits the pipe's end and lives on.
    code = (
        "import subprocess, sys, json, time\n"
        f"w = subprocess.Popen({[*COMMAND, 'worker']!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "import os; os.set_inheritable(w.stdin.fileno(), True)\n"
        "subprocess.Popen(['sleep', '30'], close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        f"w.stdin.write({line!r}); w.stdin.flush()\n"
        "for line in w.stdout:\n"
        "    if b'progress' in line: print(w.pid, flush=True); time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    pid = int(host.stdout.readline())
    host.kill()
    host.wait()
    start = time.monotonic()
    while _lives(pid) and time.monotonic() - start < 10:
        time.sleep(0.02)
    assert time.monotonic() - start < 1.5  # a second, and the noise of a machine with other work
    left = digests(tmp_path / "out")
    assert left and not any(name.startswith(".") for name in left)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_engine_when_the_worker_is_killed_then_its_jobs_end_with_an_error(weights, tmp_path):
    engine = Engine(COMMAND).start()
    job = engine.submit("track", **request(tmp_path, weights, frames=60))
    while job.last is None:
        engine.poll()
    os.kill(engine._process.pid, signal.SIGKILL)
    engine._process.wait()
    engine.cancel(job)  # an artist may press it before the timer has seen the end
    engine.wait(job, 10)
    assert job.state == "error" and "signal 9" in job.message and "start again" in job.message
    with pytest.raises(EngineError, match="has ended"):
        engine.submit("look", plate="p")
    engine.close()


def test_engines_when_two_hosts_work_at_once_then_both_end_well(weights, tmp_path):
    reports = {}

    def host(name: str) -> None:
        (tmp_path / name).mkdir()
        with Engine(COMMAND) as mine:
            reports[name] = mine.wait(mine.submit("track", **request(tmp_path / name, weights, frames=3)), 120).state

    threads = [threading.Thread(target=host, args=(name,)) for name in "ab"]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert reports == {"a": "done", "b": "done"}


def test_worker_when_the_disk_is_full_then_the_error_says_so_and_no_part_of_a_file_stays(weights, tmp_path):
    pytest.importorskip("resource", reason="no limits on files on this system")
    # A file that may not grow is what a full disk looks like to the one who writes it.
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))"
    code = f"{full}; from rotomem.cli import main; raise SystemExit(main(['worker']))"
    starter = tmp_path / "rotomem"
    starter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    starter.chmod(0o755)
    with Engine([str(starter)]) as engine:
        job = engine.wait(engine.submit("track", **request(tmp_path, weights, frames=3)), 60)
    assert job.state == "error" and job.result["kind"] == "OutputError" and "the folder and the disk" in job.message
    assert not list((tmp_path / "out").glob("*.exr")) and not list((tmp_path / "out").glob(".*"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_worker_when_killed_at_any_moment_and_asked_again_then_the_bytes_are_those_of_one_run(weights, tmp_path):
    asked = request(tmp_path, weights, frames=12)
    moments = random.Random(7)
    for _ in range(2):
        engine = Engine(COMMAND).start()
        job = engine.submit("track", **{**asked, "options": {**asked["options"], "resume": True}})
        wanted, until = moments.randrange(1, 8), time.monotonic() + moments.random() * 0.05
        while not job.ended and (job.last is None or job.last["done"] < wanted or time.monotonic() < until):
            engine.poll()
        os.kill(engine._process.pid, signal.SIGKILL)
        engine.close()
        assert all(read_still(path).arrays for path in (tmp_path / "out").glob("*.exr"))
    with Engine(COMMAND) as engine:
        job = engine.wait(engine.submit("track", **{**asked, "options": {**asked["options"], "resume": True}}), 60)
        assert job.state == "done"
        whole = engine.wait(engine.submit("track", **{**asked, "out": str(tmp_path / "once")}), 60)
        assert whole.state == "done"
    mattes = [{p.name: p.read_bytes() for p in (tmp_path / o).glob("*.exr")} for o in ("out", "once")]
    assert len(mattes[0]) == 12 and mattes[0] == mattes[1]


# Finding the engine -------------------------------------------------------------------------------------------


def test_find_engine_when_nothing_is_set_then_the_panel_text_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("ROTOMEM_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"ROTOMEM_PYTHON is not set.*choose that Python"):
        find_engine()


def test_find_engine_when_several_are_set_then_preference_variable_path(monkeypatch, tmp_path):
    pythons = {}
    for name in ("preference", "variable", "path"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "pyvenv.cfg").touch()
        pythons[name] = tmp_path / name / "bin" / ("rotomem" if name == "path" else "python")
        pythons[name].symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv("ROTOMEM_PYTHON", str(pythons["variable"]))
    monkeypatch.setenv("PATH", str(pythons["path"].parent))
    assert find_engine(str(tmp_path / "preference")) == [str(pythons["preference"]), "-I", "-m", "rotomem"]
    assert find_engine() == [str(pythons["variable"]), "-I", "-m", "rotomem"]
    monkeypatch.delenv("ROTOMEM_PYTHON")
    assert find_engine() == [str(pythons["path"])]


@pytest.mark.parametrize("given", [sys.executable, "no/such/python", "folder"])
def test_find_engine_when_it_is_the_hosts_own_or_none_then_an_error(given, tmp_path):
    if given == "folder":
        given = str(tmp_path)
    with pytest.raises(EngineError, match="preferences names"):
        find_engine(given)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"event": "hello", "protocol": 99, "version": "9.0"}', "Update the plug-in"),
        ('{"event": "hello", "protocol": 0, "version": "0.0"}', "Update rotomem"),
        ("Traceback: no module named rotomem", "no module named rotomem"),
    ],
)
def test_engine_when_it_is_another_version_then_the_text_says_which_to_update(tmp_path, answer, said):
    starter = tmp_path / "rotomem"
    starter.write_text(f"#!/bin/sh\necho '{answer}'\n")
    starter.chmod(0o755)
    with pytest.raises(EngineError, match=said):
        Engine([str(starter)]).start()


def test_engine_when_the_host_has_its_own_libraries_then_the_worker_does_not_see_them(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "/host")
    assert not {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"} & set(client.clean_environment())


def test_client_when_read_by_an_old_python_then_it_is_stdlib_and_3_9():
    source = Path(client.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imports = {n.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    imports |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imports <= set(sys.stdlib_module_names)
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


# Through a folder ---------------------------------------------------------------------------------------------


def test_job_folder_when_a_request_lies_there_then_events_grow_to_the_end(weights, tmp_path):
    folder = tmp_path / "job 1"
    folder.mkdir()
    (folder / "request.json").write_text(json.dumps({"do": "track", **request(tmp_path, weights, frames=3)}))
    assert subprocess.run([*COMMAND, "worker", "--job", str(folder)], timeout=60).returncode == 0
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["hello", "done"] and events[-1]["id"] == "job 1"
    again = subprocess.run([*COMMAND, "worker", "--job", str(folder)], capture_output=True, text=True, timeout=60)
    assert again.returncode == 1 and "begun already" in again.stderr


@pytest.mark.parametrize("how", ["cancel", "host"])
def test_job_folder_when_cancelled_or_the_host_is_gone_then_it_ends_whole(how, weights, tmp_path):
    asked = {"do": "track", **request(tmp_path, weights, frames=200)}
    host = subprocess.Popen(["sleep", "60"])
    if how == "host":
        asked["host_pid"] = host.pid
    (tmp_path / "request.json").write_text(json.dumps(asked))
    worker = subprocess.Popen([*COMMAND, "worker", "--job", str(tmp_path)])
    events = tmp_path / "events.jsonl"
    while not events.exists() or b"progress" not in events.read_bytes():
        time.sleep(0.02)
    if how == "cancel":
        (tmp_path / "cancel").touch()
    host.kill()
    host.wait()
    assert worker.wait(30) == 130
    last = json.loads(events.read_text().splitlines()[-1])
    assert last["event"] == "cancelled" and len(digests(tmp_path / "out")) == last["report"]["frames_written"] < 200


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_job_folder_when_there_is_no_request_then_one_clear_error(text, tmp_path, capsys):
    from rotomem.cli import main

    if text is not None:
        (tmp_path / "request.json").write_text(text)
    assert main(["worker", "--job", str(tmp_path)]) == 1
    assert "request.json" in capsys.readouterr().err


def test_worker_when_asked_for_splines_then_a_file_appears_with_its_frames_moved(engine, tmp_path):
    for frame in (1001, 1002):
        soft_key(tmp_path / "mattes", frame)
    asked = {"mattes": str(tmp_path / "mattes"), "out": str(tmp_path / "roto.json"), "options": {"tolerance": 0.5}}
    job = engine.wait(engine.submit("splines", **asked, shift=-1000), 30)
    assert job.state == "done" and job.result["objects"][0]["overlap"] > 0.95 and job.last["done"] == 2
    assert read_splines(tmp_path / "roto.json", (72, 48)).key_frames("hero") == (1, 2)
    for wrong, said in (
        ({"shift": 0.5}, "shift"),
        ({"options": {"near": 1}}, "tolerance"),
        ({"out": "x.doc"}, ".doc"),
    ):
        job = engine.wait(engine.submit("splines", **{**asked, **wrong}), 30)
        assert job.state == "error" and said in job.message
