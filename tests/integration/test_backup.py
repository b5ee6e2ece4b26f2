# SPDX-License-Identifier: Apache-2.0
"""authd's store is copied while it is written to, and put back later: what was
in the copy is there again and nothing else, nobody's certificate, tunnel or
route is lost, and what is not a sound store of this cluster is not put in."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import threading
import time

import pytest

from hosts import SLOW, START_TIMEOUT, binary
from process import wait_for
from terminal import Terminal
from traffic import Dialer, check_route

FILLER = 32 << 20  # so that a copy takes many steps
ROW = 4096
USER = (65001, 64999)  # uid and gid of a daemon; no account need exist


def store_dir(cluster):
    return cluster.auth.data_dir / "authd"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def fill(cluster):
    """Grows the store of an authd that has ended."""
    with sqlite3.connect(store_dir(cluster) / "backend.db") as db:
        db.executemany(
            "insert into kv values('secret/filler/' || ?, ?, 1, 0)",
            ((n, os.urandom(ROW)) for n in range(FILLER // ROW)),
        )
    db.close()


def backup(cluster, path, *args):
    """Gives what peerctl says of it."""
    text = cluster.peerctl(
        "backup", path, *args, "--format", "json", timeout=60 * SLOW
    )
    return json.loads(text)


def restore(cluster, path, **kwargs):
    return json.loads(
        cluster.peerctl("restore", path, "--format", "json",
                        timeout=60 * SLOW, **kwargs)
    )


def no_leak_check():
    """A program that has been another user may not be looked into, not even by
    its own leak checker, which takes that for a fault."""
    options = os.environ.get("ASAN_OPTIONS", "")
    return dict(os.environ, ASAN_OPTIONS=f"{options}:detect_leaks=0")


def refusal(cluster, *args, **kwargs):
    """The one line with which peerctl refuses."""
    result = cluster.peerctl_run(*args, **kwargs)
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def tokens(cluster):
    return {t["id"] for t in cluster.auth.authd.ask("token.ls")["tokens"]}


def add_token(cluster):
    answer = cluster.auth.authd.ask(
        "token.add", {"role": "node", "names": [], "ttl_s": 3600}
    )
    return answer["id"]


class Writer:
    """Adds tokens, one after another, until stop()."""

    def __init__(self, cluster):
        self.ids = []
        self.slowest = 0
        self.error = None
        self._cluster = cluster
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stopping:
                began = time.monotonic()
                self.ids.append(add_token(self._cluster))
                took = time.monotonic() - began
                self.slowest = max(self.slowest, took)
        except Exception as error:
            self.error = error

    def wait_more(self, count):
        goal = len(self.ids) + count
        wait_for(
            lambda: self.error or len(self.ids) >= goal, 30 * SLOW, "writes"
        )
        assert not self.error, self.error

    def stop(self):
        self._stopping = True
        self._thread.join(30)
        assert not self.error, self.error


def held(cluster):
    """Agent -> ids of the proxies that really hold a tunnel of it."""
    found = {}
    for proxy in cluster.proxies:
        for name in proxy.tunnel_names():
            found.setdefault(name, set()).add(proxy.uuid)
    return found


def wait_truth(cluster, agents):
    """Until every proxy knows the agents, each where it is, and no other."""

    def true():
        really = held(cluster)
        return set(really) == set(agents) and all(
            proxy.agents() == really for proxy in cluster.proxies
        )

    wait_for(true, START_TIMEOUT, f"every proxy knows just {agents}")


def start_agent(cluster, name):
    agent = cluster.add_agent(name)
    agent.join()
    agent.start()
    return agent


def test_a_restored_cluster_is_as_it_was_and_nobody_is_lost(
    make_cluster, echo
):
    cluster = make_cluster(
        proxies=2, agents=["db-1", "db-2", "gone"], services=echo.services()
    )
    cluster.auth.start().wait_ready()
    cluster.auth.stop()
    fill(cluster)
    cluster.start()
    one, two = cluster.proxies
    gone = cluster.agents[2]
    path = cluster.dir / "copy"
    authd = cluster.auth.authd
    pin = authd.ask("ca")["pin"]
    dialer = Dialer([one, two], ["echo.db-1", "echo.db-2"], rate=10)

    writer = Writer(cluster)
    writer.wait_more(10)
    before = list(writer.ids)
    early = start_agent(cluster, "early")
    wait_truth(cluster, ["db-1", "db-2", "early", "gone"])
    during = len(writer.ids)
    said = backup(cluster, path)
    during = len(writer.ids) - during
    writer.stop()
    assert during > 5, "nothing was written meanwhile"
    print(f"{said['bytes']} bytes, {during} writes meanwhile, the slowest"
          f" write took {writer.slowest * 1000:.0f} ms")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said["bytes"] == path.stat().st_size > FILLER
    assert said["cluster"] == "example"
    assert not list(store_dir(cluster).glob("backup-*"))

    # What comes later: a token, an agent, a lease; and an agent goes. One proxy
    # has a lease that the copy does not know, the other one that it does.
    after = [add_token(cluster)]
    late = start_agent(cluster, "late")
    one.routed.restart().wait_ready()
    gone.stop()
    wait_truth(cluster, ["db-1", "db-2", "early", "late"])
    late_dialer = Dialer([one, two], ["echo.late", "echo.early"], rate=10)

    old_store = authd.status()["store"]["store_id"]
    cluster.auth.stop()
    dialer.wait_more(5)
    kept = restore(cluster, path)["kept"]
    assert kept.startswith(str(store_dir(cluster) / "backend.db.before-"))
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    cluster.auth.start().wait_ready()
    authd.wait_log(r"warn .*store was put back from a copy: ")

    found = tokens(cluster)
    assert set(before) <= found
    assert not set(after) & found
    assert authd.ask("ca")["pin"] == pin
    new_store = authd.status()["store"]["store_id"]
    assert new_store != old_store
    # routed asks for a new lease by itself, whatever it had
    for proxy in cluster.proxies:
        proxy.routed.wait_log(r"info .*the lease is lost: ", 10 * SLOW)
        wait_for(
            lambda: proxy.routed.status()["cache"]["store_id"] == new_store,
            START_TIMEOUT,
            f"{proxy.name} follows the restored store",
        )
    assert two.routed.log_matches("the lease is lost: authd's store is another")
    wait_truth(cluster, ["db-1", "db-2", "early", "late"])
    dialer.wait_more(10)
    late_dialer.wait_more(10)
    # not one failed, before, while authd was away, or since
    dialer.check()
    late_dialer.check()

    # Certificates are good, of before the copy and of after it.
    for agent in (early, late):
        agent.agent.restart()
    wait_truth(cluster, ["db-1", "db-2", "early", "late"])
    holder = cluster.holder("late")
    check_route(holder, "late", "local")
    check_route(cluster.others(holder)[0], "late", "peer")
    gone.start()
    wait_truth(cluster, ["db-1", "db-2", "early", "gone", "late"])

    # Who joined later is not known: seen when certificates are renewed, which a
    # new CA makes all do at once.
    cluster.peerctl("ca", "rotate", "start", "--ca", "host")
    late.agent.wait_log("this host is not known here any more; join again",
                        30 * SLOW)
    wait_for(
        lambda: authd.log_matches("host renewed: .*name=early"),
        30 * SLOW,
        "early renews",
    )


@pytest.fixture
def auth(make_cluster):
    """A cluster that is only its authd."""
    return make_cluster(proxies=0).start_auth()


def test_restore_refuses_while_authd_runs(auth, tmp_path):
    path = tmp_path / "copy"
    backup(auth, path)
    mine = add_token(auth)
    line = refusal(auth, "restore", path)
    assert f"{path} not restored: authd is running: it has " in line
    assert "stop it first" in line
    assert mine in tokens(auth)
    auth.auth.authd.restart().wait_ready()
    assert mine in tokens(auth)
    assert "put back" not in auth.auth.authd.log_text()
    # killed, it leaves no lock behind
    auth.auth.authd.kill()
    restore(auth, path)
    auth.auth.start().wait_ready()
    assert mine not in tokens(auth)


def damage(path):
    with open(path, "r+b") as file:
        file.seek(3 * ROW + 8)
        file.write(b"\xa5" * 2 * ROW)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def edit(sql):
    def change(path):
        with sqlite3.connect(path) as db:
            db.executescript(sql)
        db.close()

    return change


@pytest.mark.parametrize(
    "spoil, words",
    [
        (damage, "damaged|malformed"),
        (truncate, "damaged|malformed"),
        (lambda p: p.write_bytes(b"no database" * 999), "not a database"),
        (lambda p: p.write_bytes(b""), "it is empty"),
        (edit("drop table kv"), "tables are not those of schema version 1"),
        (edit("update meta set value = 7 where key = 'schema'"),
         "its schema is version 7, this program's is 1"),
        (edit("drop table meta"), "not a store of authd"),
    ],
    ids="damaged truncated foreign empty tables newer database".split(),
)
def test_what_is_no_sound_store_is_refused(auth, tmp_path, spoil, words):
    path = tmp_path / "copy"
    mine = add_token(auth)
    backup(auth, path)
    auth.auth.stop()
    there = names(store_dir(auth))
    spoil(path)
    line = refusal(auth, "restore", path)
    assert line.startswith(f"peerctl: {path} not restored: "), line
    assert any(word in line for word in words.split("|")), line
    assert names(store_dir(auth)) == there
    auth.auth.start().wait_ready()
    assert mine in tokens(auth)
    assert "put back" not in auth.auth.authd.log_text()


def test_another_clusters_store_is_refused(auth, tmp_path):
    path = tmp_path / "copy"
    backup(auth, path)
    auth.auth.stop()
    auth.auth.write_config({"peerway": {"cluster_name": "elsewhere"}})
    line = refusal(auth, "restore", path)
    assert "it is of cluster example, and this host's is elsewhere" in line


def test_a_backup_of_before_a_rotation_brings_the_old_ca_back(
    make_cluster, echo, tmp_path
):
    cluster = make_cluster(
        proxies=2, agents=["db-1"], services=echo.services()
    ).start()
    path = tmp_path / "copy"
    backup(cluster, path)
    cluster.peerctl("ca", "rotate", "start", "--ca", "host")

    def reissued():
        text = cluster.peerctl("ca", "rotate", "status", "--format", "json")
        return not json.loads(text)["host"]["remaining"]

    wait_for(reissued, 60 * SLOW, "everybody has a certificate of the new CA")
    cluster.peerctl("ca", "rotate", "finish", "--ca", "host")
    wait_for(
        lambda: all(
            (p.data_dir / "identity/current/host_ca.pem").read_text().count(
                "BEGIN CERTIFICATE") == 1
            for p in cluster.proxies
        ),
        START_TIMEOUT,
        "the old CA is trusted by nobody",
    )
    cluster.identity()  # which trusts the new CA
    cluster.auth.stop()
    restore(cluster, path)
    cluster.auth.start().wait_ready()
    for proxy in cluster.proxies:
        wait_for(
            lambda: "must join again" in str(
                proxy.routed.status()["last_error"]
            ),
            30 * SLOW,
            f"{proxy.name} says what to do",
        )
        # among themselves they go on
        assert set(proxy.agents()) == {"db-1"}
    holder = cluster.holder("db-1")
    check_route(cluster.others(holder)[0], "db-1", "peer")


def test_authd_does_not_open_a_newer_store(auth):
    auth.auth.stop()
    edit("update meta set value = 7 where key = 'schema'")(
        store_dir(auth) / "backend.db"
    )
    authd = auth.auth.authd.start()
    assert authd.popen.wait(10 * SLOW) == 1
    authd.expected_end = True
    assert authd.log_matches(
        r"cannot start: .*/backend\.db: its schema is version 7, this "
        r"program's is 1: run the authd that wrote it or a newer one, or "
        r"restore a backup made before"
    )


def test_backup_overwrites_only_when_told(auth, tmp_path):
    path = tmp_path / "copy"
    path.write_text("somebody's")
    line = refusal(auth, "backup", path)
    assert line == f"peerctl: {path} exists; --force replaces it\n"
    assert path.read_text() == "somebody's"
    backup(auth, path, "--force")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    auth.auth.stop()
    restore(auth, path)
    nowhere = tmp_path / "no" / "copy"
    assert "No such file or directory" in refusal(auth, "backup", nowhere)
    assert names(tmp_path) == ["copy"]


def test_the_group_gets_no_keys(make_cluster):
    """Who may ask authd may not therefore read the CAs' keys."""
    auth = make_cluster(proxies=0, users={"authd": USER}).start_auth()
    directory = auth.dir / "somebodys"
    directory.mkdir()
    os.chown(directory, 12345, USER[1])

    def become():
        os.setgroups([])
        os.setgid(USER[1])
        os.setuid(12345)

    auth.peerctl("token", "ls", preexec_fn=become)
    line = refusal(auth, "backup", directory / "copy", preexec_fn=become)
    assert "be root or authd's user, since it holds the CAs' keys" in line
    assert names(directory) == []


def test_a_backup_that_is_interrupted_leaves_nothing(auth, tmp_path):
    auth.auth.authd.send_signal(signal.SIGSTOP)
    with subprocess.Popen(
        [binary("peerctl"), "-c", auth.auth.config_path, "backup",
         tmp_path / "copy"]
    ) as peerctl:
        wait_for(lambda: names(tmp_path), 10 * SLOW, "a file beside")
        peerctl.send_signal(signal.SIGINT)
        peerctl.wait(10)
    assert peerctl.returncode == -signal.SIGINT
    assert names(tmp_path) == []
    auth.auth.authd.send_signal(signal.SIGCONT)


def test_a_copy_that_nobody_took_does_not_stay(auth):
    authd = auth.auth.authd

    def copied():
        begun = authd.ask("backup.start")
        wait_for(
            lambda: authd.ask("backup.status", {"id": begun["id"]})["done"],
            10 * SLOW,
            "the copy",
        )
        return begun["path"]

    first = copied()
    assert os.path.exists(first)
    second = copied()
    assert not os.path.exists(first)
    authd.restart().wait_ready()
    assert not os.path.exists(second)


def test_a_terminal_shows_how_far_it_is(auth, tmp_path):
    auth.auth.stop()
    fill(auth)
    auth.auth.start().wait_ready()
    argv = [binary("peerctl"), "-c", auth.auth.config_path, "backup",
            tmp_path / "copy"]
    with Terminal(argv) as terminal:
        assert terminal.wait(60 * SLOW) == 0
        assert "copying: " in terminal.text
        assert f"{tmp_path}/copy: " in terminal.text


def test_files_are_the_daemons_users(make_cluster, tmp_path):
    cluster = make_cluster(proxies=0, users={"authd": USER}).start_auth()
    path = tmp_path / "copy"
    mine = add_token(cluster)
    backup(cluster, path)
    later = add_token(cluster)
    assert path.stat().st_uid == 0
    cluster.auth.stop()
    kept = restore(cluster, path, env=no_leak_check())["kept"]
    for name in (kept, store_dir(cluster) / "backend.db"):
        st = os.stat(name)
        assert (st.st_uid, st.st_gid) == USER
        assert stat.S_IMODE(st.st_mode) == 0o600
    cluster.auth.start().wait_ready()
    assert mine in tokens(cluster)
    assert later not in tokens(cluster)
