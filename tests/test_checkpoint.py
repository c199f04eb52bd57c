"""Files: written whole or not at all, read back bit for bit, and refused in one sentence when they are not right."""

import itertools
import json
import re
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import sentence

import ep
from ep import EPError, datasets, mlp
from ep.backend import array_module, to_host
from ep.npz import read_npz, write_npz
from ep.train import runs
from ep.train.checkpoint import read_meta, restore, save_checkpoint
from ep.train.experiment import Config
from ep.train.optimizers import OPTIMIZERS

META = dict(config=vars(Config()), epoch=3, step=7, totals={"loss": 0.1 + 0.2}, log=[{"epoch": 1}], warned=[])


def trained(sizes=(4, 3, 2), seed=0, xp=np, kind="sgd"):
    network = mlp(list(sizes), seed=seed).to(xp)
    optimizer = OPTIMIZERS[kind](network, 0.1, 0.0, 2, 2)
    rng = np.random.default_rng(seed)
    optimizer.step({name: xp.asarray(rng.normal(size=w.shape).astype(w.dtype)) for name, w in network.parameters().items()})
    return network, optimizer


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("written_on_the_host", [False, True])
def test_round_trip(tmp_path, xp, written_on_the_host, kind):
    """Parameters, optimizer and meta come back exactly, into the arrays the optimizer holds, on whichever device those are."""
    network, optimizer = trained(xp=np if written_on_the_host else xp, kind=kind)
    save_checkpoint(tmp_path / "c.npz", network, optimizer, META)
    meta = read_meta(tmp_path / "c.npz")
    assert meta == json.loads(json.dumps(META)) and runs.config_of(meta, "c.npz") == Config()
    other, other_optimizer = trained(seed=5, xp=xp, kind=kind)
    before = {key: to_host(a).copy() for key, a in other_optimizer.state().items()}
    assert any((to_host(a) != before[key]).any() for key, a in optimizer.state().items())
    restore(tmp_path / "c.npz", other, other_optimizer)
    for name, w in network.parameters().items():
        assert (to_host(other.parameters()[name]) == to_host(w)).all()
        moment = (other_optimizer.velocity if kind == "sgd" else other_optimizer.mean)[name]
        assert array_module(other.parameters()[name]) is array_module(moment) is xp
    assert optimizer.state().keys() == other_optimizer.state().keys()
    for key, a in optimizer.state().items():
        assert (to_host(other_optimizer.state()[key]) == to_host(a)).all()


def without(key, settings):
    return {name: value for name, value in settings.items() if name != key}


@pytest.mark.parametrize("meta, named", [
    (without("epoch", META), "it has no epoch"), (without("config", META), "it has no config"),
    (META | dict(config=META["config"] | dict(smoothing=0.1)), "smoothing"),
    (META | dict(config=META["config"] | dict(nudging="six-point")), "does not know nudging six-point"),
    (META | dict(config=without("beta", META["config"])), "differ in beta")])
def test_checkpoints_of_another_version(tmp_path, meta, named):
    """Something it lacks, a setting more or less, a word that is new: whole, but to be continued by the version that wrote it."""
    write_npz(tmp_path / "c.npz", {"meta": np.array(json.dumps(meta))})
    message = sentence(lambda: runs.config_of(read_meta(tmp_path / "c.npz"), tmp_path / "c.npz"))
    assert named in message and "continue it with the version that wrote it" in message


@pytest.mark.parametrize("sizes, kind, named", [
    ((4, 5, 2), "sgd", "another architecture"), ((4, 3, 2), "adam", "another optimizer: optimizer/updates has shape None")])
def test_another_network_or_optimizer_changes_nothing(tmp_path, sizes, kind, named):
    save_checkpoint(tmp_path / "c.npz", *trained(), {})
    network, optimizer = trained(sizes, seed=5, kind=kind)
    before = network.parameters()["1.W"].copy()
    assert named in sentence(restore, tmp_path / "c.npz", network, optimizer)
    assert (network.parameters()["1.W"] == before).all()


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    """The disk fills up in the middle of writing: one sentence, and the last good file is still there."""
    write_npz(tmp_path / "c.npz", {"a": np.arange(3)})

    def full_disk(file, **arrays):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(EPError, match="No space left") as caught:
        write_npz(tmp_path / "c.npz", {"a": np.zeros(3)})
    assert caught.value.exit_code == 1
    assert (read_npz(tmp_path / "c.npz")["a"] == np.arange(3)).all()


# --- other files, and damaged ones --------------------------------------------------------------------------------------


def checkpoint_of(path):
    """Everything that is read from a checkpoint, as arrays."""
    network, optimizer = trained(seed=5)
    meta = read_meta(path)
    runs.config_of(meta, path)
    restore(path, network, optimizer)
    return [*network.parameters().values(), *optimizer.state().values(), np.array(json.dumps(meta))]


READERS = {"network": lambda path: [*(network := ep.load(path)).parameters().values(), np.array(json.dumps(network.about))],
           "checkpoint": checkpoint_of, "data": lambda path: list(datasets.load(path)[:4])}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{kind: (its bytes, what is read from it)} of one file of each kind, and of the data compressed."""
    folder, rng, found = tmp_path_factory.mktemp("whole"), np.random.default_rng(0), {}
    network = ep.convnet([2], (6, 6, 1), 3)
    network.about = dict(classes=list("abc"))
    network.save(folder / "network.npz")
    save_checkpoint(folder / "checkpoint.npz", *trained(), META)
    x, y = rng.integers(0, 256, (20, 6, 6, 1), dtype=np.uint8), np.arange(20) % 2
    arrays = dict(x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    np.savez(folder / "data.npz", **arrays)
    np.savez_compressed(folder / "data-deflated.npz", **arrays)
    for path in folder.iterdir():
        found[path.stem] = path.read_bytes(), READERS[path.stem.split("-")[0]](path)
    return found


def damaged(content, rng):
    """The bytes of a file after one accident: cut, overwritten, lost, doubled, a bit turned; often among the names and sizes."""
    n = len(content)
    marks = [found.start() for found in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|NUMPY", content)]
    near = int(rng.choice(marks)) + int(rng.integers(0, 70)) if rng.random() < 0.6 else int(rng.integers(n))
    at, length = min(near, n - 1), int(rng.integers(1, 60))
    end = min(at + length, n)
    return [lambda: content[:at], lambda: content[:at] + content[end:], lambda: content[:end] + content[at:],
            lambda: content[:at] + bytes(end - at) + content[end:],
            lambda: content[:at] + rng.bytes(end - at) + content[end:],
            lambda: content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1:],
            lambda: content[:at] + bytes([int(rng.integers(256))]) + content[at + 1:]][int(rng.integers(7))]()


@pytest.mark.parametrize("instances", [150, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files(whole, tmp_path, instances):
    """Refused in one sentence that names the file, or read as if nothing had happened; most are refused."""
    refused, path = 0, tmp_path / "damaged.npz"
    for k, kind in zip(range(instances), itertools.cycle(whole)):
        content, expected = whole[kind]
        path.write_bytes(damaged(content, np.random.default_rng(k)))
        try:
            found = READERS[kind.split("-")[0]](path)
            assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), (kind, k)
        except EPError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error) and error.exit_code == 2, (kind, k, error)
    assert refused > 0.8 * instances


def foreign(folder):
    """The bytes of an array, a text, a picture's beginning, nothing, half a file, pickled objects, texts that are no settings."""
    np.save(folder / "array.npy", np.zeros(3))
    np.savez(folder / "pickled.npz", **dict.fromkeys(("meta", "network"), np.array([{"a": 1}], dtype=object)))
    for k, text in enumerate(("[1]", "3", "null", "{}", "no JSON")):
        write_npz(folder / f"{k}.npz", dict.fromkeys(("meta", "network"), np.array(text)))
    return [b"a text", b"\x89PNG\r\n", b"", b"PK\x03\x04", *(path.read_bytes() for path in folder.iterdir())]


@pytest.mark.parametrize("kind", READERS)
def test_files_of_another_kind(whole, tmp_path, kind):
    """Of the other kinds, and of none: one sentence each."""
    for content in [*(content for name, (content, _) in whole.items() if not name.startswith(kind)), *foreign(tmp_path)]:
        (tmp_path / "other.npz").write_bytes(content)
        assert "other.npz" in sentence(READERS[kind], tmp_path / "other.npz")


def test_what_is_no_damage_is_not_called_so(tmp_path, monkeypatch):
    """A folder for a file, a file for a folder, none, one that may not be read: the system's word for it."""
    (tmp_path / "file").touch()
    for path, named in (("", "Is a directory"), ("file/x", "Not a directory"), ("none", "No such file")):
        message = sentence(ep.load, tmp_path / path)
        assert named in message and "damaged" not in message
    monkeypatch.setattr(np, "load", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert "cannot be read: Permission denied" in sentence(ep.load, tmp_path / "file")
