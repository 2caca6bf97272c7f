"""Gather the source files of the modules that code imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.model.estimators import own_modules

FILES = {
    "shop/__init__.py": "from .names import NAMES\n",
    "shop/names.py": "import json\nNAMES = json.loads('[]')\n",
    "shop/deep/__init__.py": "",
    "shop/deep/price.py": (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom .. import rates\n"
        "from ..units import *\nimport pandas.api.types\n\nif TYPE_CHECKING:\n    from ..typed import T\n\n"
        "def price():\n    from other.late import LATE\n    return LATE\n\n"
        "if __name__ == '__main__':\n    import shop.script\n"
    ),
    "shop/rates.py": "import sklearn.linear_model as lm\n",
    "shop/units.py": "",
    "shop/typed.py": "",
    "shop/script.py": "",
    "shop/table.csv": "1\n",
    "other/late.py": "LATE = 1\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_a_module_imports_comes_with_it_without_being_imported(folder: Path) -> None:
    gathered = own_modules.gather({"shop.deep.price"})
    assert sorted(gathered.files) == [
        "other/late.py",
        "shop/__init__.py",
        "shop/deep/__init__.py",
        "shop/deep/price.py",
        "shop/names.py",
        "shop/rates.py",
        "shop/units.py",
    ]
    assert gathered.files["shop/rates.py"] == FILES["shop/rates.py"].encode()
    assert gathered.libraries == {"pandas", "sklearn"}
    assert own_modules.distributions(gathered.libraries) == {"pandas", "scikit-learn"}
    assert not {"shop", "other"} & set(sys.modules)


def test_whose_a_module_is_depends_on_where_it_lies(folder: Path) -> None:
    assert own_modules.is_own("shop.rates")
    assert own_modules.is_own("other")  # a package without a file of its own
    assert own_modules.is_own("__main__")
    for name in ("json", "sklearn.linear_model", "estiba.core", "no_such_module", "builtins"):
        assert not own_modules.is_own(name)


def test_what_has_no_source_is_refused(folder: Path) -> None:
    suffix = __import__("importlib.machinery").machinery.EXTENSION_SUFFIXES[0]
    (folder / f"fast{suffix}").write_bytes(b"")
    with pytest.raises(EstibaError, match="fast, which is compiled"):
        own_modules.gather({"fast"})
    (folder / "shop/rates.py").write_text("def broken(:\n")
    with pytest.raises(EstibaError, match=r"shop\.rates, whose file .* is no Python"):
        own_modules.gather({"shop.rates"})


def test_the_number_of_files_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_modules, "MAX_FILES", 5)
    with pytest.raises(EstibaError, match="more than 5 files"):
        own_modules.gather({"shop.deep.price"})
