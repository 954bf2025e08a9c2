"""Builds the compiled modules; everything else about the project stands in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# TASTYPY_FAST_TRACE=1 builds modules that coverage and profilers can follow line by line (slow).
TRACE = os.environ.get("TASTYPY_FAST_TRACE") == "1"
# TASTYPY_FAST_SANITIZE=1 builds them with the address and undefined-behaviour sanitizers.
SANITIZE = ["-fsanitize=address,undefined", "-g"] if os.environ.get("TASTYPY_FAST_SANITIZE") == "1" else []

# Without what debuggers want, which would be four fifths of the modules. Somebody's own choice
# stands, such as CFLAGS=-O0 for a quick build.
OPTIMIZE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O2", "-g0"]

SOURCES = Path("src_cython")
MODULES = {
    ".".join(path.relative_to(SOURCES).with_suffix("").parts): str(path) for path in sorted(SOURCES.rglob("*.pyx"))
}

CPUS = os.cpu_count() or 1

# (the processes that Cython starts for its part may import this module)
if __name__ == "__main__":
    setup(
        ext_modules=cythonize(
            [
                Extension(
                    name,
                    [path],
                    define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
                    extra_compile_args=[*OPTIMIZE, *SANITIZE],
                    extra_link_args=SANITIZE,
                    # Where the timers are in older versions of the system's library.
                    libraries=["rt"] if sys.platform == "linux" else [],
                )
                for name, path in MODULES.items()
            ],
            include_path=["src_cython"],
            build_dir="build/cython",
            nthreads=CPUS,
            compiler_directives={"language_level": "3", "linetrace": TRACE, "auto_pickle": False},
        ),
        options={"build_ext": {"parallel": CPUS}},
    )
