"""Build what is published, and try it: `make dist`.

The sdist is the repository, so that its tests run from it. The wheel is the package and its
licence, the same from the sdist as from the repository; in an environment with nothing else it
runs the README.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import optax_adaptive

ROOT = Path(__file__).resolve().parents[1]
VERSION = optax_adaptive.__version__
NAME = f"optax_adaptive-{VERSION}"
INFO = {f"{NAME}.dist-info/{x}" for x in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
TRIAL = f"""
import importlib.metadata
import optax_adaptive
import optax_adaptive.compat

assert "site-packages" in optax_adaptive.__file__, optax_adaptive.__file__
assert optax_adaptive.__version__ == importlib.metadata.version("optax-adaptive") == "{VERSION}"
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; where it fails, that is shown."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.stdout}{error.stderr}{error}") from None
    return done.stdout


def same(what: str, found: set[str], expected: set[str]) -> None:
    """Refuse what is missing and what is too much."""
    if found != expected:
        wrong = f"without {sorted(expected - found)}, and with {sorted(found - expected)}"
        raise SystemExit(f"dist: {what} is {wrong}.")


def contents(wheel: Path) -> dict[str, str]:
    """The hash of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {x: hashlib.sha256(archive.read(x)).hexdigest() for x in archive.namelist()}


def check_archives(dist: Path, direct: Path) -> Path:
    """The wheel, after a look into it and into the sdist."""
    sdist, wheel = dist / f"{NAME}.tar.gz", dist / f"{NAME}-py3-none-any.whl"
    same("dist", {x.name for x in dist.iterdir()}, {sdist.name, wheel.name})
    tracked = set(run("git", "ls-files").splitlines())
    with tarfile.open(sdist) as archive:
        names = {x.name.removeprefix(f"{NAME}/") for x in archive if x.isfile()}
    same("the sdist", names, tracked | {"PKG-INFO"})
    package = {x for x in tracked if x.startswith("optax_adaptive/")}
    same("the wheel", set(contents(wheel)), package | INFO)
    if contents(wheel) != contents(direct / wheel.name):
        raise SystemExit("dist: the wheel made from the sdist is another one.")
    return wheel


def main() -> None:
    """Everything, or a message and a failure."""
    dist, python = ROOT / "dist", sys.executable
    shutil.rmtree(dist, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(python, "-m", "build", "--outdir", dist)  # the sdist, and the wheel from it
        run(python, "-m", "build", "--wheel", "--outdir", place / "direct")
        wheel = check_archives(dist, place / "direct")
        run(python, "-m", "twine", "check", "--strict", *dist.iterdir())

        run(python, "-m", "venv", place / "clean")
        clean = place / "clean" / "bin" / "python"
        run(clean, "-m", "pip", "install", "--quiet", wheel, cwd=place)
        run(clean, "-m", "pip", "check", cwd=place)
        blocks = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
        )
        (place / "trial.py").write_text("\n".join([TRIAL, *blocks]))
        run(clean, "-W", "error", "trial.py", cwd=place)
    print(f"dist: {NAME}, sdist and wheel, are whole; {len(blocks)} block of the README ran.")


if __name__ == "__main__":
    main()
