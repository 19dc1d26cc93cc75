"""Builds the C and Fortran library and programs; a test is skipped with a reason if a tool is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "melissa_gen" / "client" / "native"
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
MPIRUN = BIN / "mpirun"
STRICT = ("-O3", "-Wall", "-Wextra", "-Werror")


def need(tool, package):
    """Returns the path of a tool; skips the test with a reason if it is not installed."""
    path = shutil.which(tool, path=f"{BIN}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{tool} is not here: apt-get install {package}")
    return path


def need_headers():
    pkg_config = need("pkg-config", "pkg-config")
    for module, package in (("libzmq", "libzmq3-dev libsodium-dev"), ("libcjson", "libcjson-dev")):
        found = subprocess.run(
            [pkg_config, "--print-errors", "--cflags", module],
            check=False,
            capture_output=True,
            text=True,
        )
        if found.returncode:
            pytest.skip(f"{module}: {found.stderr.strip()}: apt-get install {package}")


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def flags(prefix, module="melissa_gen"):
    path = next(prefix.glob("lib*/**/pkgconfig"))
    environment = os.environ | {"PKG_CONFIG_PATH": str(path)}
    return run("pkg-config", "--cflags", "--libs", module, env=environment).split()


def install(folder, *options):
    need("cc", "gcc")
    need("cmake", "cmake make")
    need_headers()
    prefix = folder / "installed"
    fixed = (f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DMELISSA_GEN_WERROR=ON")
    run("cmake", "-S", NATIVE, "-B", folder / "build", *fixed, *options)
    run("cmake", "--build", folder / "build", "-t", "install")
    return prefix
