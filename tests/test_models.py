"""Every shipped network has a card, and the facts on it are those of the file and of the log that it names."""

import json
import re
from pathlib import Path

import pytest

import ep

MODELS = Path(__file__).parents[1] / "examples" / "models"


def facts(card):
    """{what: value} of the card's table."""
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", card.read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.npz")), ids=lambda path: path.name)
def test_the_card_is_about_this_file(path):
    """A network that is replaced needs a new card."""
    network, card = ep.load(path), path.with_suffix(".md")
    fact, parameters = facts(card), network.parameters()
    assert fact["channels"] == " ".join(str(w.shape[-1]) for name, w in parameters.items() if w.ndim == 4)
    assert fact["parameters"] == f"{sum(w.size for w in parameters.values()):,}"
    assert float(fact["feedback gain"].split()[0]) == network.feedback
    assert fact["free phase"].startswith(f"{network.about['steps_free']} ") and network.about["schedule"] in fact["free phase"]
    assert network.about["source"] in fact["trained on"]
    assert all(name in card.read_text(encoding="utf-8") for name in network.about["classes"])

    log = json.loads((MODELS / re.search(r"\((.*?)\)", fact["log"])[1]).read_text().splitlines()[-1])
    percent = {key: [float(number) for number in re.findall(r"([\d.]+)%", value)] for key, value in fact.items()}
    assert percent["test accuracy after the free phase"] == [round(100 * log["test_accuracy"], 1)]
    assert percent["accuracy at T, and at the fixed point"] == [
        round(100 * log[key], 1) for key in ("accuracy_at_T", "fixed_point_accuracy")]
    assert next(value for key, value in fact.items() if "cosine" in key).startswith(f"{log['smallest_cosine']:.3f} ")
    assert path.name in (MODELS / "README.md").read_text() and card.name in (MODELS / "README.md").read_text()
