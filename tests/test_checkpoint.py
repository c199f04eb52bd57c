"""Files: written whole or not at all, read back bit for bit, and refused in one sentence when they are not right."""

import json

import numpy as np
import pytest

from ep import EPError, mlp
from ep.backend import array_module, to_host
from ep.npz import read_npz, write_npz
from ep.train.checkpoint import FORMAT, read_meta, restore, save_checkpoint
from ep.train.optimizers import OPTIMIZERS


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
    meta = dict(config={"beta": 0.1}, epoch=3, step=7, totals={"loss": 0.1 + 0.2}, log=[{"epoch": 1}])
    save_checkpoint(tmp_path / "c.npz", network, optimizer, meta)
    assert read_meta(tmp_path / "c.npz") == {"format": FORMAT, **meta}
    other, other_optimizer = trained(seed=5, xp=xp, kind=kind)
    assert any((a != other_optimizer.state()[key]).any() for key, a in optimizer.state().items())
    restore(tmp_path / "c.npz", other, other_optimizer)
    for name, w in network.parameters().items():
        assert (to_host(other.parameters()[name]) == to_host(w)).all()
        moment = (other_optimizer.velocity if kind == "sgd" else other_optimizer.mean)[name]
        assert array_module(other.parameters()[name]) is array_module(moment) is xp
        assert other_optimizer.parameters[name] is other.parameters()[name]
    assert optimizer.state().keys() == other_optimizer.state().keys()
    for key, a in optimizer.state().items():
        assert (other_optimizer.state()[key] == a).all() and isinstance(a, np.ndarray)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_cut_file(tmp_path, keep):
    """A checkpoint that was cut anywhere is one sentence."""
    save_checkpoint(tmp_path / "c.npz", *trained(), {})
    whole = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(EPError, match="damaged"):
        read_meta(tmp_path / "c.npz")


def test_other_files(tmp_path):
    with pytest.raises(EPError, match="no such file"):
        read_meta(tmp_path / "absent.npz")
    write_npz(tmp_path / "foreign.npz", {"a": np.zeros(3)})
    with pytest.raises(EPError, match="not a checkpoint"):
        read_meta(tmp_path / "foreign.npz")
    write_npz(tmp_path / "newer.npz", {"meta": np.array(json.dumps({"format": FORMAT + 1}))})
    with pytest.raises(EPError, match=f"format {FORMAT + 1}"):
        read_meta(tmp_path / "newer.npz")
    np.savez(tmp_path / "pickled.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(EPError, match="damaged or not"):
        read_npz(tmp_path / "pickled.npz")


def test_other_architecture_changes_nothing(tmp_path):
    save_checkpoint(tmp_path / "c.npz", *trained(), {})
    network, optimizer = trained((4, 5, 2))
    before = network.parameters()["1.W"].copy()
    with pytest.raises(EPError, match="another architecture"):
        restore(tmp_path / "c.npz", network, optimizer)
    assert (network.parameters()["1.W"] == before).all()


def test_another_optimizer_is_refused(tmp_path):
    """A checkpoint of SGD is none of Adam's: the first array that is missing is named, and nothing has changed."""
    save_checkpoint(tmp_path / "c.npz", *trained(), {})
    network, optimizer = trained(seed=5, kind="adam")
    before = network.parameters()["1.W"].copy()
    with pytest.raises(EPError, match="another optimizer: optimizer/updates has shape None in the file"):
        restore(tmp_path / "c.npz", network, optimizer)
    assert (network.parameters()["1.W"] == before).all() and optimizer.updates == 1


def test_checkpoints_of_before_are_refused_in_one_sentence(tmp_path):
    """Format 1 had the velocity of SGD by another name, and no feedback gain."""
    write_npz(tmp_path / "old.npz", {"velocity/1.W": np.zeros(2), "meta": np.array(json.dumps({"format": 1}))})
    with pytest.raises(EPError, match="format 1, this version reads format 2: continue it with the version that wrote it"):
        read_meta(tmp_path / "old.npz")


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
