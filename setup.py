"""Build the compiled modules. Everything else about the project is in pyproject.toml."""

import os
import sys

if sys.platform == "win32":
    sys.exit(
        "tastypy_fast runs on Linux and macOS only, because it needs POSIX file locks and memory maps. "
        "On Windows, install it inside WSL (Windows Subsystem for Linux)."
    )

import hashlib
import json
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup

# TASTYPY_FAST_TRACE=1 builds modules that coverage and profilers can follow line by line (slow).
TRACE = os.environ.get("TASTYPY_FAST_TRACE") == "1"
# TASTYPY_FAST_SANITIZE=1 builds them with the address and undefined-behaviour sanitizers.
SANITIZE = ["-fsanitize=address,undefined", "-g"] if os.environ.get("TASTYPY_FAST_SANITIZE") == "1" else []

# No debug information, because it would be four fifths of each module. A level in CFLAGS takes precedence, such as
# CFLAGS=-O0 for a quick build.
OPTIMIZE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O2", "-g0"]

# TASTYPY_FAST_PURE=1 leaves the compiled modules out: "make build" compiles them in place, where pip would compile
# them in a temporary folder first.
PURE = os.environ.get("TASTYPY_FAST_PURE") == "1"

SOURCES = Path("src_cython")
MODULES = [".".join(path.relative_to(SOURCES).with_suffix("").parts) for path in sorted(SOURCES.rglob("*.pyx"))]

CPUS = os.cpu_count() or 1

C_FILES = Path("build/cython")
DIRECTIVES = {"language_level": "3", "linetrace": TRACE, "auto_pickle": False}


def translated(extensions):
    """Translate to C what has changed since the last build.

    Cython compares the times of files, those of its own .pxd files included. ``pip install`` unpacks Cython anew for
    each build, so that these are always newer and everything would be translated and compiled again. Therefore the
    contents decide first.
    """
    stamp = Path("build/cython.json")
    last = json.loads(stamp.read_text()) if stamp.exists() else {}
    now = {"made by": f"Cython {Cython.__version__}, {DIRECTIVES}"}
    for path in sorted(SOURCES.rglob("*.p[yx][xd]")):
        now[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    c_files = [C_FILES / Path(*extension.sources).with_suffix(".c") for extension in extensions]
    if last == now and all(path.exists() for path in c_files):
        for extension, path in zip(extensions, c_files, strict=True):
            extension.sources = [str(path)]
        return extensions
    same = {name: value for name, value in now.items() if last.get(name) == value}
    everything = "made by" not in same
    if not everything:
        # A changed file may have an old time (cp -p, tar).
        for path in now.keys() - same.keys():
            os.utime(path)
    # What has changed counts as changed until its translation has succeeded.
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(json.dumps(same))
    extensions = cythonize(
        extensions,
        include_path=[str(SOURCES)],
        build_dir=str(C_FILES),
        nthreads=CPUS,
        compiler_directives=DIRECTIVES,
        force=everything,
    )
    stamp.write_text(json.dumps(now))
    return extensions


def extensions():
    """Describe the compiled modules to setuptools."""
    found = translated([
        Extension(
            name,
            [str(SOURCES / f"{name.replace('.', '/')}.pyx")],
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
            extra_compile_args=[*OPTIMIZE, *SANITIZE],
            extra_link_args=SANITIZE,
            # Older versions of the C library have the timers in librt.
            libraries=["rt"] if sys.platform == "linux" else [],
        )
        for name in MODULES
    ])
    # Other flags of the compiler make other modules: setuptools compiles what is older than this file.
    flags = Path("build/flags")
    chosen = repr([TRACE, SANITIZE, OPTIMIZE, *map(os.environ.get, ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS"))])
    if not flags.exists() or flags.read_text() != chosen:
        flags.write_text(chosen)
    for extension in found:
        extension.depends = [*extension.depends, str(flags.absolute())]
    return found


def remove_stale():
    """Remove what was built of modules that have since been renamed or deleted.

    setuptools keeps it in build/lib*, puts it into each wheel, and Python goes on importing it.
    """
    compiled = {path.parent / path.stem for path in SOURCES.rglob("*.pyx")}
    for base in [Path("."), *Path("build").glob("lib*")]:
        for path in (base / "tastypy_fast").rglob("*"):
            source = path.relative_to(base)
            if path.suffix == ".so":
                stale = SOURCES / source.parent / path.name.partition(".")[0] not in compiled
            else:
                stale = base.name != "" and path.is_file() and not source.exists()
            if stale:
                path.unlink()


# Processes that Cython starts may import this module.
if __name__ == "__main__":
    remove_stale()
    setup(ext_modules=[] if PURE else extensions(), options={"build_ext": {"parallel": CPUS}})
