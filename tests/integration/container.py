# SPDX-License-Identifier: Apache-2.0
"""Machines of a test's own, with an init: containers of podman from a Debian root
that mmdebstrap makes, with the build installed in it.

    with Container(image(), "/sbin/init", options=["--systemd=always"]) as host:
        host.exec("systemctl", "is-system-running")

The root is made once and kept, with all that podman has, in `container` below the
build directory: remove that directory and it is made again. Nothing of the
machine's own podman is touched. A build with sanitizers cannot be used, since its
programs need more than a Debian has.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import netns
from hosts import BUILD

STORE = BUILD / "container"
PROGRAMS = ("lib/peerway/authd", "lib/peerway/proxy", "lib/peerway/peerd",
            "lib/peerway/routed", "lib/peerway/agent", "bin/peerctl")
# Beside a Debian's base and the libraries of our programs.
PACKAGES = ("curl", "dbus", "haproxy", "nginx-light", "procps", "systemd", "systemd-sysv")
# Who wants it starts it.
DISABLE = 'rm "$1"/etc/systemd/system/multi-user.target.wants/haproxy.service'
BASE, IMAGE = "localhost/peerway-debian", "localhost/peerway"

# Who starts a container again, or tidies up behind it, is a podman that conmon runs,
# and that looks for its state below graphroot: so there is no static_dir, and what
# another file says of these paths must be the same.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile={nofile}:{nofile}", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{store}/run/libpod"
volume_path = "{store}/volumes"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{store}/storage"
runroot = "{store}/run"
"""


def run(*argv, timeout=60, **kwargs):
    """Runs a program that must succeed; gives its stdout."""
    result = subprocess.run(
        [str(arg) for arg in argv],
        text=True,
        stdin=kwargs.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=timeout,
        check=False,
        **kwargs,
    )
    assert result.returncode == 0, (
        f"{argv}: status {result.returncode}\n"
        f"{result.stdout[-4000:]}{result.stderr[-4000:]}"
    )
    return result.stdout


# podman


def descriptors():
    """How many a container may have, which is what we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def _write(path, text):
    """For whoever reads it meanwhile: the old text or the new."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.rename(path)


def environment():
    """What makes podman use the store of this build directory."""
    paths = {
        "CONTAINERS_CONF": (STORE / "containers.conf", CONTAINERS_CONF),
        "CONTAINERS_STORAGE_CONF": (STORE / "storage.conf", STORAGE_CONF),
    }
    STORE.mkdir(exist_ok=True)
    for path, text in paths.values():
        _write(path, text.format(store=STORE, nofile=descriptors()))
    return {**os.environ, **{name: str(paths[name][0]) for name in paths}}


def podman(*args, **kwargs):
    """Runs podman with that store; gives its stdout."""
    return run("podman", *args, env=environment(), **kwargs)


@contextlib.contextmanager
def locked():
    """One process at a time, so that two that test make one root."""
    STORE.mkdir(exist_ok=True)
    with open(STORE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# The root


def _mirror():
    """(codename, URL) of the Debian this machine is, as apt is told."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    codename = re.search(r'^VERSION_CODENAME="?(\w+)', release, re.M).group(1)
    for line in run(
        "apt-get", "indextargets", "Created-By: Packages",
        "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)",
    ).splitlines():
        if line.startswith(f"{codename} main "):
            return codename, line.split()[2]
    raise AssertionError(f"apt has no source of {codename} main")


def http_proxy():
    """apt's HTTP proxy, for mmdebstrap."""
    line = run("apt-config", "shell", "proxy", "Acquire::http::Proxy")
    found = re.search(r"'(http.*)'", line)
    return {"http_proxy": found.group(1)} if found else {}


def _libraries(programs):
    """The packages of the shared libraries that the programs load."""
    found = set()
    for program in programs:
        text = run("ldd", program)
        assert "libasan" not in text, "a build with sanitizers has no image"
        found.update(re.findall(r"=> (/\S+)", text))
    # dpkg knows some below /lib and some below /usr/lib, which is the same
    paths = {path.removeprefix("/usr") for path in found}
    owners = subprocess.run(
        ["dpkg-query", "-S", *paths, *("/usr" + path for path in paths)],
        text=True, capture_output=True, check=False,
    ).stdout
    names = {line.partition(":")[0] for line in owners.splitlines()}
    assert names, owners
    return names


def _make_base(packages):
    """mmdebstrap takes half as long as debootstrap, and less in memory, since dpkg
    waits for the disk all the time."""
    codename, url = _mirror()
    root = STORE / "root.tar"
    memory = Path("/dev/shm")
    started = time.monotonic()
    run("mmdebstrap", "--quiet", "--variant=minbase",
        "--include=" + ",".join(packages),
        "--skip=cleanup/reproducible",  # or systemd takes a boot for the first
        f"--customize-hook={DISABLE}",
        codename, root, url, timeout=900,
        env={**os.environ, **http_proxy(),
             **({"TMPDIR": str(memory)} if memory.is_dir() else {})})
    podman("import", root, BASE, timeout=300)
    root.unlink()
    print(f"a Debian root was made in {time.monotonic() - started:.0f} s",
          file=sys.stderr)


def _up_to_date(name, key):
    """Whether the image of that name was made from what key says."""
    stamp = STORE / f"{name.rpartition('/')[2]}.key"
    return stamp.exists() and stamp.read_text() == key and not subprocess.run(
        ["podman", "image", "exists", name], env=environment(), check=False
    ).returncode


def _made(name, key):
    _write(STORE / f"{name.rpartition('/')[2]}.key", key)


def _base_image(programs):
    packages = sorted({*PACKAGES, *_libraries(programs)})
    key = " ".join([*packages, DISABLE])
    if not _up_to_date(BASE, key):
        _make_base(packages)
        _made(BASE, key)
    return key


def _tree(directory):
    """A digest of all files below directory."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        digest.update(str(path.relative_to(directory)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def prefix():
    """Where the build is installed: /usr/local unless it was told."""
    options = run("meson", "introspect", BUILD, "--buildoptions")
    return re.search(r'"name": "prefix", "value": "([^"]+)"', options).group(1)


def install():
    """`meson install` of the build into a directory, for images: its path.
    The lock must be held."""
    where = STORE / "install"
    run("rm", "-rf", where)
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet",
        "--destdir", where)
    return where


def base_image():
    """The name of an image of Debian with systemd, nginx and what our programs
    need; made when it is not there."""
    with locked():
        tree = install()
        _base_image([f"{tree}{prefix()}/{name}" for name in PROGRAMS])
    return BASE


def image():
    """The name of an image of that with the build as it is now installed."""
    with locked():
        tree = install()
        base = _base_image([f"{tree}{prefix()}/{name}" for name in PROGRAMS])
        key = f"{base}\n{_tree(tree)}"
        if not _up_to_date(IMAGE, key):
            recipe = STORE / "Containerfile"
            _write(recipe, f"FROM {BASE}\nCOPY . /\n")
            podman("build", "--quiet", "--pull=never", "--tag", IMAGE,
                   "--file", recipe, tree, timeout=300)
            podman("image", "prune", "--force")
            _made(IMAGE, key)
    return IMAGE


# Containers


def _remove_orphans():
    """Containers whose test was killed."""
    listed = podman("ps", "--all", "--filter", "label=peerway.test",
                    "--format", '{{.ID}} {{index .Labels "peerway.test"}}')
    for line in listed.splitlines():
        identity, pid = line.split()
        if not Path("/proc", pid).exists():
            podman("rm", "--force", "--time", "0", identity)


class Container:
    """A running container, removed at the end of `with` or by close().

    It has loopback and no other network unless options say so. Its sockets and
    files are below .root; `with .network:` the calling thread is in its network.
    """

    def __init__(self, name, *argv, options=(), network="none"):
        with locked():
            _remove_orphans()
        self.id = podman(
            "run", "--detach", "--label", f"peerway.test={os.getpid()}",
            "--network", network, *options, name, *argv,
        ).strip()
        self.pid = int(podman("inspect", "--format", "{{.State.Pid}}", self.id))
        self.root = Path("/proc", str(self.pid), "root")
        self.network = netns.Namespace.of(self.pid)

    def exec(self, *argv, timeout=60, options=()):
        """Runs a program in it that must succeed; gives its stdout."""
        return podman("exec", *options, self.id, *argv, timeout=timeout)

    def popen(self, *argv, **kwargs):
        """Starts a program in it, with stdin and stdout as told."""
        return subprocess.Popen(
            ["podman", "exec", "--interactive", self.id, *map(str, argv)],
            env=environment(), **kwargs,
        )

    def write(self, path, text, mode=0o644):
        """A file in it, of root."""
        where = Path(f"{self.root}{path}")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)
        where.chmod(mode)

    def close(self):
        podman("rm", "--force", "--time", "0", self.id)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
