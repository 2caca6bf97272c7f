"""JupyterLab of the portfolio.

It is never open: whoever comes needs the token in the file $JUPYTER_TOKEN_FILE or, where that is not set, the one that
Jupyter makes up and prints.
"""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

c = get_config()  # noqa: F821 - Jupyter gives it to this file

# Where an image is read-only, $NOTEBOOKS is a folder that can be written; it begins with a copy of what is here.
if work := os.environ.get("NOTEBOOKS"):
    for notebook in HERE.glob("*.ipynb"):
        if not (there := Path(work, notebook.name)).exists():
            shutil.copyfile(notebook, there)

c.ServerApp.root_dir = work or str(HERE)
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True  # in an image nobody is root, and on a machine where you are, so you were before
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"  # what is installed is what requirements.txt says

if named := os.environ.pop("JUPYTER_TOKEN_FILE", ""):
    try:
        token = Path(named).read_text(encoding="utf-8").strip()
    except OSError as error:
        sys.exit(f"The token cannot be read from {named}: {error.strerror}. Put a long random word into it.")
    if not token:
        sys.exit(f"{named} is empty, which would leave the server open. Put a long random word into it.")
    c.IdentityProvider.token = token

os.environ.setdefault("ESTIBA_PROJECT", str(HERE.parent))

# In a checkout of Estiba its source is what kernels import; in an image it is installed.
for checkout in HERE.parents[2:3]:
    if (checkout / "src" / "estiba").is_dir():
        paths = [str(checkout / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
