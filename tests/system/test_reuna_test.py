"""`reuna test` as CI runs it: a fresh project passes, planted mistakes do not, and no server is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from reuna.demo.job import PROJECT, write_plants
from reuna.template import make_project

pytestmark = pytest.mark.system

REUNA = (sys.executable, "-m", "reuna.cli")
TRAIN = "return SoftmaxClassifier("  #: what a learner with a planted `fit` takes the place of
#: Ends any Python process that is about to listen or to call.
NO_NETWORK = """
import os, sys
def hook(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo"):
        os.write(2, f"network: {event} {arguments[1:]}\\n".encode())
        os._exit(99)
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "pumps"
    make_project(folder, sample=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """The template's project; the sample data are linked."""
    folder = tmp_path / "pumps"
    make_project(folder, sample=False)
    (folder / "data").mkdir()
    for node in (made / "data").iterdir():
        (folder / "data" / node.name).symlink_to(node)
    return folder


def run(project: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REUNA, "test", str(project), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def scenarios(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)["scenarios"]}


def plant(project: Path, fit: str) -> None:
    """Give the project's learner another `fit`, as a person might write it."""
    file = project / "detector" / "estimator.py"
    text = file.read_text()
    assert TRAIN in text
    body = "".join(f"        {line}\n" for line in fit.splitlines())
    planted = (
        f"\n\nclass Planted(SoftmaxClassifier):\n    def fit(self, model, data, settings, seed):\n{body}"
    )
    file.write_text("import numpy as np\n" + text.replace(TRAIN, "return Planted(") + planted)


def setting(project: Path, text: str) -> None:
    file = project / "reuna.toml"
    file.write_text(f"{file.read_text()}\n{text}\n")


# --- a sound project --------------------------------------------------------------------------


def test_a_fresh_project_passes_and_writes_what_ci_reads(project: Path, tmp_path: Path) -> None:
    junit, page = tmp_path / "reports" / "junit.xml", tmp_path / "reports" / "page.md"
    began = time.monotonic()
    done = run(project, "--junit", str(junit), "--markdown", str(page))
    assert time.monotonic() - began < 120
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "passed    pytest        16 passed"
    assert done.stdout.splitlines()[-1].startswith("passed, 2 with a warning; seed 1, 20 rounds")
    suites = {suite.get("name"): suite for suite in ET.parse(junit).getroot()}
    own = [case.get("name") for case in suites["pytest"].iter("testcase")]
    assert "test_windows_that_straddle_the_onset_are_left_out" in own
    assert len(own) == 16
    assert [case.get("name") for case in suites["reuna.simulation"].iter("testcase")] == [
        "undisturbed",
        "dropout",
        "poisoned",
        "late-labels",
    ]
    assert page.read_text().startswith("### ⚠️ reuna test of pumps: passed, 2 with a warning\n")


def test_neither_server_nor_network_is_needed(project: Path, tmp_path: Path) -> None:
    place = tmp_path / "hook"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_NETWORK)
    lonely = {"PYTHONPATH": str(place), "PATH": "/nowhere"}
    done = run(project, **lonely)
    assert done.returncode == 0, done.stderr
    caught = subprocess.run(
        [*REUNA, "run", str(project), "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **lonely, "PATH": os.environ["PATH"]},
        cwd=tmp_path,
    )
    assert "network: socket." in caught.stderr, "the hook sees a real run's sockets"


def without_times(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found = json.loads(done.stdout)
    found.pop("seconds")
    for each in found["scenarios"]:
        each.pop("seconds")
    return found


def test_the_same_seed_gives_the_same_bits_and_another_one_others(project: Path) -> None:
    one, again, other = (
        without_times(run(project, "--json", "--no-pytest", "--seed", seed)) for seed in ("5", "5", "6")
    )
    assert one == again
    models = [{each["name"]: each["model"] for each in found["scenarios"]} for found in (one, other)]
    assert all(models[0][name] != models[1][name] for name in models[0])
    assert len(set(models[0].values())) == 4, "each fault does something"


def test_the_undisturbed_model_is_bit_for_bit_that_of_real_processes(project: Path, tmp_path: Path) -> None:
    flags = ("--rounds", "4", "--json")
    real = subprocess.run(
        [*REUNA, "run", str(project), *flags], cwd=tmp_path, capture_output=True, text=True, timeout=150
    )
    played = scenarios(run(project, *flags, "--no-pytest", "--fault", "dropout"))
    assert played["undisturbed"]["model"] == json.loads(real.stdout)["model_digest"]


def test_the_demos_plants_pass_within_two_minutes(tmp_path: Path) -> None:
    write_plants(tmp_path, 0)
    began = time.monotonic()
    done = run(PROJECT, "--data", str(tmp_path), "--json")
    assert time.monotonic() - began < 120
    assert done.returncode == 0, done.stderr
    found = scenarios(done)
    assert found["undisturbed"]["scores"]["plant-3"] > 0.9
    assert {name: each["status"] for name, each in found.items()} == {
        "undisturbed": "passed",
        "dropout": "warned",
        "poisoned": "warned",
        "late-labels": "passed",
    }


def test_what_the_project_prints_does_not_disturb_the_result(project: Path) -> None:
    plant(project, "print('hello', flush=True)\nreturn super().fit(model, data, settings, seed)")
    file = project / "detector" / "model.py"
    file.write_text(
        "import os\nos.write(1, b'{\"what\": 1}') if 'check' in os.environ else None\n" + file.read_text()
    )
    done = run(project, "--junit", str(project / "j.xml"), check="1", REUNA_RUN_SEED="3")
    assert done.returncode == 0, done.stderr
    assert "seed 3" in done.stdout


def test_faults_seed_and_rounds_are_chosen_on_the_command_line(project: Path) -> None:
    flags = ("--fault", "late-labels", "--fault", "dropout", "--rounds", "6", "--seed", "9")
    done = run(project, "--json", "--no-pytest", *flags)
    found = json.loads(done.stdout)
    assert (found["seed"], found["rounds"], found["pytest"]) == (9, 6, None)
    assert [each["name"] for each in found["scenarios"]] == ["undisturbed", "dropout", "late-labels"]
    assert scenarios(done)["dropout"]["counted"] == 3


def test_a_quorum_that_does_without_a_site_is_no_warning(project: Path) -> None:
    setting(project, "[round]\nquorum = 0.75\n[test]\nsite = 'pump-3'")
    done = run(project, "--json", "--no-pytest", "--fault", "dropout")
    found = scenarios(done)["dropout"]
    assert (found["status"], found["site"], found["counted"]) == ("passed", "pump-3", 10)


def test_nodes_of_a_site_fall_out_together(project: Path, tmp_path: Path) -> None:
    for site, names in (("north", ("pump-1", "pump-2")), ("south", ("pump-3", "pump-4"))):
        (tmp_path / "sites" / site).mkdir(parents=True)
        for name in names:
            (tmp_path / "sites" / site / name).symlink_to((project / "data" / name).resolve())
    done = run(project, "--json", "--no-pytest", "--data", str(tmp_path / "sites"), "--fault", "dropout")
    found = scenarios(done)["dropout"]
    assert set(found["scores"]) == {"north", "south"}
    assert found["counted"] == 10


# --- planted mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fit",
    [
        "return dict(model), len(data.train), {'loss': 1.0}",
        # learns which class is frequent, from no feature
        "new, n, told = super().fit(model, data, settings, seed)\n"
        "return {'bias': new['bias'], 'weight': model['weight']}, n, told",
        # sums over the wrong axis, as it were: walks at random
        "rng = np.random.default_rng(seed)\n"
        "return {k: v + rng.normal(size=v.shape).astype(np.float32) for k, v in model.items()}, 9, {}",
    ],
    ids=["nothing", "frequency", "random"],
)
def test_a_learner_that_learns_nothing_fails(project: Path, fit: str) -> None:
    plant(project, fit)
    done = run(project, "--json", "--no-pytest", "--junit", str(project / "junit.xml"))
    assert done.returncode == 1, done.stderr
    found = scenarios(done)["undisturbed"]
    assert found["status"] == "failed"
    assert "no better than chance" in found["why"]
    failures = ET.parse(project / "junit.xml").getroot().findall(".//failure")
    assert [each.get("message") for each in failures] == [found["why"]]


def test_a_model_that_one_site_carries_fails_when_that_site_drops_out(project: Path) -> None:
    plant(
        project,
        "if data.seen == (2, 3) and len(data.train) % 2 >= 0 and settings.get('carries') == data.name:\n"
        "    return super().fit(model, data, {**settings, 'epochs': 5}, seed)\n"
        "return self.init(seed), len(data.train), {'loss': 1.0}",
    )
    file = project / "detector" / "model.py"
    text = file.read_text().replace(
        "seen: tuple[int, ...] = ()", 'seen: tuple[int, ...] = ()\n    name: str = ""'
    )
    file.write_text(text.replace('parts["test"], seen)', 'parts["test"], seen, folder.name)'))
    settings = project / "reuna.toml"
    settings.write_text(
        settings.read_text().replace("[train]", "[train]\ncarries = 'pump-1'").replace('"fedavgm"', '"fedavg"')
        .replace("server_rate = 0.5\nmomentum = 0.9\n", "")
    )  # fmt: skip
    for site, status in (("pump-1", 1), ("pump-2", 0)):
        done = run(project, "--json", "--no-pytest", "--fault", "dropout", "--set", f"test.site={site}")
        found = scenarios(done)
        assert found["undisturbed"]["status"] == "passed", found["undisturbed"]["why"]
        assert done.returncode == status, found["dropout"]["why"]


def test_a_poisoned_site_warns_and_fails_where_the_project_asks_to_withstand_it(project: Path) -> None:
    done = run(project, "--json", "--no-pytest", "--fault", "poisoned")
    found = scenarios(done)["poisoned"]
    assert (done.returncode, found["status"]) == (0, "warned")
    assert "no defence" in found["why"]
    assert min(found["losses"].values()) > 0.5
    setting(project, "[test]\nrequired = ['poisoned']")
    assert run(project, "--no-pytest", "--fault", "poisoned").returncode == 1


def test_wrong_labels_at_one_site_are_noticed_too(project: Path) -> None:
    flags = ("--json", "--no-pytest", "--fault", "poisoned", "--set", "test.poison=labels")
    found = scenarios(run(project, *flags))["poisoned"]
    assert found["status"] == "warned"
    assert max(found["losses"].values()) > 0.25


def test_strict_makes_every_warning_a_failure(project: Path) -> None:
    done = run(project, "--json", "--no-pytest", "--strict", "--fault", "dropout")
    assert (done.returncode, scenarios(done)["dropout"]["status"]) == (1, "failed")


def test_a_learner_that_looks_at_labels_only_once_fails_when_they_are_late(project: Path) -> None:
    plant(
        project,
        "if model['weight'].any():\n"
        "    return dict(model), len(data.train), {'loss': 1.0}\n"
        "return super().fit(model, data, {**settings, 'epochs': 20}, seed)",
    )
    data = project / "one"
    data.mkdir()
    (data / "pump-1").symlink_to((project / "data" / "pump-1").resolve())
    settings = project / "reuna.toml"
    settings.write_text(
        settings.read_text()
        .replace('"fedavgm"', '"fedavg"')
        .replace("server_rate = 0.5\nmomentum = 0.9\n", "")
    )
    done = run(project, "--json", "--no-pytest", "--data", str(data))
    found = scenarios(done)
    assert found["undisturbed"]["status"] == "passed", found["undisturbed"]["why"]
    assert (done.returncode, found["late-labels"]["status"]) == (1, "failed"), found["late-labels"]["why"]
    assert found["dropout"]["status"] == found["poisoned"]["status"] == "left out"


def test_a_minimum_that_is_not_reached_fails(project: Path) -> None:
    done = run(project, "--no-pytest", "--fault", "dropout", "--set", "test.min_score=1.1")
    assert done.returncode == 1
    assert "asked is at least 1.1" in done.stdout


def test_a_learner_that_fails_in_a_later_round_is_a_failure_that_names_the_node(project: Path) -> None:
    plant(
        project,
        "if model['weight'].any():\n    raise KeyError('flow')\nreturn super().fit(model, data, settings, seed)",
    )
    done = run(project, "--json", "--no-pytest")
    found = scenarios(done)
    assert (done.returncode, found["undisturbed"]["status"]) == (1, "failed")
    assert "pump-1, training: KeyError: 'flow' [R107]" in found["undisturbed"]["why"]
    assert found["dropout"]["status"] == "left out"


def test_a_failing_test_of_the_project_fails_and_is_shown(project: Path) -> None:
    (project / "tests" / "test_more.py").write_text("def test_more():\n    assert 1 == 2\n")
    done = run(project, "--fault", "dropout", "--junit", str(project / "junit.xml"))
    assert done.returncode == 1
    assert "assert 1 == 2" in done.stderr
    assert "failed    pytest        16 passed, 1 failed" in done.stdout
    root = ET.parse(project / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("19", "1")


# --- it could not run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--fault", "earthquake"), "test.faults is 'earthquake', may hold dropout, poisoned, late-labels"),
        (("--set", "test.site=pump-9"), "the sites are pump-1, pump-2, pump-3, pump-4"),
        (("--data", "nowhere"), "there is no folder nowhere"),
        (("--set", "test.poison_factor=x"), "test.poison_factor"),
        (("--set", "test.max_lost=2"), "must be between 0 and 1"),
        (("--set", "project.metric=none"), "no node measures that"),
    ],
)
def test_a_mistake_is_told_before_anything_is_played(
    project: Path, flags: tuple[str, ...], said: str
) -> None:
    done = run(project, *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "playing" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_is_played(project: Path) -> None:
    for flag in ("--junit", "--markdown"):
        for wrong in (project / "reuna.toml" / "file", project / "detector"):
            done = run(project, flag, str(wrong))
            assert done.returncode == 5
            assert str(wrong) in done.stderr
            assert "playing" not in done.stderr


def test_a_process_that_dies_is_one_message(project: Path) -> None:
    plant(
        project,
        "if model['weight'].any():\n    import os; os.write(2, b'segment lost'); os._exit(7)\n"
        "return super().fit(model, data, settings, seed)",
    )
    done = run(project, "--no-pytest")
    assert done.returncode == 4
    assert "the simulated federation failed:" in done.stderr
    assert "segment lost" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_it_at_once_and_leaves_no_process(project: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    plant(
        project,
        "if model['weight'].any():\n"
        f"    import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)\n"
        "return super().fit(model, data, settings, seed)",
    )
    process = subprocess.Popen(
        [*REUNA, "test", str(project), "--no-pytest", "--junit", str(tmp_path / "junit.xml")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: pid_file.exists() and bool(pid_file.read_text()))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert out == ""
    assert "stopping…" in err
    assert "Traceback" not in err
    until(lambda: not Path(f"/proc/{pid_file.read_text()}").exists())
    assert not (tmp_path / "junit.xml").exists()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
