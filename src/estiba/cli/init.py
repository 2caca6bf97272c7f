"""estiba init."""

from __future__ import annotations

from pathlib import Path

import click

PROJECT = """\
# All keys are described in docs/reference/project.md.

[project]
name = "{name}"

[models.iris]
train = "iris:train"                 # the function train in iris.py
description = "Four measurements of a flower to its species."

[models.iris.fields.petal_length]
minimum = 0
description = "Length of the petal, in centimetres."

[models.iris.outputs]
label = "species"
"""

MODULE = '''\
"""Iris: four measurements of a flower, in centimetres, to its species."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from estiba import Source, Trained


def train() -> Trained:
    """Fits the model. `estiba up` runs this again whenever this file changes."""
    bunch = load_iris(as_frame=True)
    sample = bunch.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    target = bunch.target_names[bunch.target]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(model, sample, target, cv=5).mean()
    return Trained(
        model=model.fit(sample, target),
        sample=sample,
        target=target,
        metrics={"cv_accuracy_mean": float(accuracy)},
        source=Source(name="Iris (Fisher 1936), as shipped with scikit-learn", rows=len(sample)),
    )
'''

IGNORED = "# Written by Estiba: the registry and the fingerprints of trainings.\n.estiba/\n__pycache__/\n"


@click.command(epilog="\b\nExamples:\n  estiba init\n  estiba init flowers && cd flowers && estiba up")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path())
def init(folder: Path) -> None:
    """Create a small example project: estiba.toml, and a training function in iris.py."""
    from estiba.cli import terminal
    from estiba.core.errors import Conflict
    from estiba.core.stores.disk import explained

    with explained("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = {"estiba.toml": PROJECT.format(name=_name(folder)), "iris.py": MODULE, ".gitignore": IGNORED}
        taken = [name for name in ("estiba.toml", "iris.py") if (folder / name).exists()]
        if taken:
            raise Conflict(f"{folder / taken[0]} exists already.", hint="Choose another folder: estiba init DIR")
        for name, content in files.items():
            if not (folder / name).exists():
                (folder / name).write_text(content, encoding="utf-8")
    terminal.line(f"Created {folder / 'estiba.toml'} and {folder / 'iris.py'}.")
    where = "" if folder == Path() else f" -C {folder}"
    terminal.line(f"Now run: estiba up{where}", bold=True)


def _name(folder: Path) -> str:
    """The folder's name as the name of a project."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-")
    return kept[:64].strip("-") or "project"
