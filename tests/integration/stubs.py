# SPDX-License-Identifier: Apache-2.0
"""Python modules of proto/*.proto, generated when first asked for."""

import atexit
import functools
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parents[2] / "proto"


@functools.lru_cache(None)
def _generate():
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="pw-stubs-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    status = protoc.main(
        ["protoc", f"-I{PROTO}", f"--python_out={out}"]
        + [f"--grpc_python_out={out}"]
        + [str(path) for path in sorted(PROTO.glob("*.proto"))]
    )
    assert status == 0, "protoc failed"
    sys.path.insert(0, out)


def load(name):
    """load("ipc_pb2"), load("peer_pb2_grpc") and so on."""
    _generate()
    return importlib.import_module(name)
