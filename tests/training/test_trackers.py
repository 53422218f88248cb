"""Trackers: stand-ins for both packages, and the packages themselves where they are."""

import io
import json
import math
import struct
import sys
import types

import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.training.trackers import Trackers
from tests.program import results_of
from tests.program import run as main_py

BOTH = ("wandb", "mlflow")
CONFIG = {"seed": 3, "model.features": (4, 3)}
TINY = (
    "--config=moving_mnist:quick", "--config.train.eval_every_steps=1",
    "--config.train.batch_size=1", "--config.train.num_validation_sequences=2",
    "--config.eval.num_sequences=2", "--config.eval.num_pictures=1",
    "--config.model.features=4", "--config.data.height=32", "--config.data.width=32",
    "--config.train.log_every_steps=1", "--config.train.num_pictures=1",
    "--config.data.digits=sklearn", "--config.optimizer.schedule=constant",
)  # fmt: skip


def gif():
    frames = [Image.new("L", (12, 8), color) for color in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


class Run:
    """What a stand-in has been given for one run."""

    def __init__(self, run_id, name):
        self.id, self.name, self.config, self.logged = run_id, name, {}, {}
        self.starts, self.ended, self.broken = 0, [], False

    def log(self, values, step):
        if self.broken:
            raise OSError("no route\nto host")
        self.logged |= {(step, name): value for name, value in values.items()}


@pytest.fixture
def services(monkeypatch):
    """Runs by id, of stand-ins for both packages; each logs what it is called with."""
    runs = {}

    def start(run_id, name):
        run_id = run_id or f"run{len(runs)}"
        runs.setdefault(run_id, Run(run_id, name)).starts += 1
        return runs[run_id]

    wandb = types.ModuleType("wandb")

    def init(*, id, name, dir, resume):
        assert resume == "allow"
        run = start(id, name)

        def log(values):
            assert isinstance(values["step"], int)
            run.log({k: v for k, v in values.items() if k != "step"}, values["step"])

        def update(values, allow_val_change):
            assert allow_val_change
            run.config |= values

        return types.SimpleNamespace(
            id=run.id, log=log, config=types.SimpleNamespace(update=update),
            define_metric=lambda name, step_metric: None,
            finish=lambda exit_code: run.ended.append(exit_code),
        )  # fmt: skip

    def video(content, format):
        with Image.open(content) as picture:
            assert picture.format == "GIF" and format == "gif"
            return picture.n_frames

    wandb.init, wandb.Video = init, video
    mlflow = types.ModuleType("mlflow")
    active = []

    def start_run(run_id, run_name):
        active[:] = [start(run_id, run_name)]
        data = types.SimpleNamespace(params=dict(active[0].config))
        info = types.SimpleNamespace(run_id=active[0].id)
        return types.SimpleNamespace(info=info, data=data)

    mlflow.start_run = start_run
    mlflow.log_params = lambda values: active[0].config.update(values)
    mlflow.log_dict = lambda values, name: active[0].log({name: values}, None)
    mlflow.log_metrics = lambda values, step: active[0].log(values, step)
    mlflow.log_artifact = lambda path, folder: active[0].log({path: folder}, None)
    mlflow.end_run = lambda status: active[0].ended.append(status)
    for module in (wandb, mlflow):
        module.__spec__ = types.SimpleNamespace()
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return runs


def test_a_training_and_its_resumption_are_one_run(services, tmp_path):
    workdir = tmp_path / "first"
    command = (*TINY, "--config.train.trackers=wandb,mlflow", f"--workdir={workdir}")
    for steps in (1, 2):
        assert main_py(*command, f"--config.train.num_steps={steps}") == 0
    assert {run.name for run in services.values()} == {"first"}
    for run, ended in zip(services.values(), (0, "FINISHED"), strict=True):
        assert run.starts == 2 and run.ended == [ended] * 2
        assert run.config["model.features"] == (4,)
        assert {(s, "validation/mse") for s in (1, 2)} <= run.logged.keys()
        assert run.logged[2, "train/loss"] > 0
        for contender in ("model", "copy_last", "zeros"):
            expected = results_of(workdir)[contender]["mse"]
            assert run.logged[2, f"test/{contender}/mse"] == expected
    # The clips of each validation, with their six frames.
    wandb, mlflow = services.values()
    assert len([name for _, name in mlflow.logged if name.endswith(".gif")]) == 2
    assert [step for (step, _), value in wandb.logged.items() if value == 6] == [1, 2]


def test_a_tracker_that_fails_is_left_out(services, tmp_path, caplog):
    with Trackers(BOTH, tmp_path, CONFIG) as trackers:
        services["run0"].broken = True
        for step in (1, 2):
            trackers.write(step, "train", {"loss": 1.0, "a, b": math.nan})
    (warning,) = caplog.records
    expected = "wandb failed (no route to host): training continues without it"
    assert warning.getMessage() == expected
    logged = services["run1"].logged
    assert logged[2, "train/loss"] == 1 and math.isnan(logged[1, "train/a_ b"])
    # Again from the next start on.
    services["run0"].broken = False
    with pytest.raises(KeyboardInterrupt), Trackers(BOTH, tmp_path, {}) as trackers:
        trackers.write(3, "train", {"loss": 2.0})
        raise KeyboardInterrupt
    assert services["run0"].logged == {(3, "train/loss"): 2.0}
    assert [run.ended[-1] for run in services.values()] == [1, "FAILED"]


def test_variables_of_the_user_come_first(services, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_NAME", "mine")

    def init(*, id, name, dir, resume):
        assert (name, dir) == ("mine", str(tmp_path))
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(
        UserError,
        match=r"trackers is \('mlflow', 'wandb'\), and wandb cannot be started: no API",
    ):
        Trackers(("mlflow", "wandb"), tmp_path, CONFIG)
    assert services["run0"].ended == ["FAILED"]


def test_what_is_not_installed_is_said_before_any_work(monkeypatch, tmp_path, capsys):
    for name in BOTH:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    both = "wandb is not installed: pip install wandb mlflow"
    with pytest.raises(UserError, match=both):
        Trackers(BOTH, tmp_path, CONFIG)
    command = (*TINY, "--config.train.trackers=mlflow", f"--workdir={tmp_path}")
    assert main_py(*command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.train.trackers is ('mlflow',), and mlflow")
    assert "pip install mlflow" in error and "data:" not in error
    assert main_py(*TINY, "--config.train.trackers=mlflow,mlflow") == 2
    assert "must be any of wandb, mlflow, separated by" in capsys.readouterr().err


def log_twice(workdir):
    """A run that is resumed from step 1, in the packages themselves."""
    workdir.mkdir()
    for config, step in ((CONFIG, 1), (CONFIG | {"seed": 4}, 2)):
        with Trackers((workdir.name,), workdir, config) as trackers:
            trackers.write(step, "train", {"loss": step / 4, "a, b": math.inf})
            trackers.write_gif(step, "prediction", gif())
    with Trackers((workdir.name,), workdir, CONFIG) as trackers:
        trackers.write(1, "test/model", {"mse": 7.0})  # The step of the best weights.


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="requirements-tracking.txt is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    log_twice(tmp_path / "wandb")
    run_id = (tmp_path / "wandb" / "wandb_run_id.txt").read_text()
    files = sorted((tmp_path / "wandb").glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 3
    history, configs = [], []
    for file in files:
        for content in records(file.read_bytes()):
            record = Record.FromString(content)
            items = [(i.key or "/".join(i.nested_key), json.loads(i.value_json))
                     for i in record.history.item]  # fmt: skip
            history += [dict(items)] if items else []
            configs += [(i.key, i.value_json) for i in record.config.update]
    assert ("seed", "3") in configs and ("seed", "4") in configs
    losses = [(r["step"], r["train/loss"]) for r in history if "train/loss" in r]
    assert losses == [(1, 0.25), (2, 0.5)]
    clips = [r for r in history if "prediction/path" in r]
    assert [r["step"] for r in clips] == [1, 2]
    found = [file.parent / "files" / r["prediction/path"]
             for file, r in zip(files, clips, strict=False)]  # fmt: skip
    assert [path.read_bytes() for path in found] == [gif()] * 2
    assert [r["step"] for r in history if r.get("test/model/mse") == 7] == [1]


def records(content):
    """The records of a LevelDB log, as W&B writes it: blocks of 32 KiB."""
    position, parts = 7, []  # A header of seven bytes.
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # Whole, or the last part.
            yield b"".join(parts)
            parts = []


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    reason = "requirements-tracking.txt is not installed"
    mlflow = pytest.importorskip("mlflow", reason=reason)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    log_twice(tmp_path / "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.run_id == (tmp_path / "mlflow" / "mlflow_run_id.txt").read_text()
    assert (run.info.run_name, run.info.status) == ("mlflow", "FINISHED")
    assert run.data.params == {"seed": "3", "model.features": "(4, 3)"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.5)]
    assert run.data.metrics["test/model/mse"] == 7
    assert run.data.metrics["train/a_ b"] == math.inf
    pictures = client.list_artifacts(run.info.run_id, "pictures")
    assert [p.path for p in pictures] == [
        f"pictures/prediction_000000{step}.gif" for step in (1, 2)
    ]
