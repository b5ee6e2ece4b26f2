# SPDX-License-Identifier: Apache-2.0
"""The control plane is away, in parts or for one host alone, while clients dial
and agents come and go: what is known goes on, status says what is wrong, and
nothing is lost afterwards."""

import os
import subprocess
import threading
import time

import pytest

from etcd import Etcd
from hosts import SLOW
from line import Line
from process import wait_for
from traffic import Beat, Dialer, check_route

AGENTS = ["db-1", "db-2", "db-3"]
TARGETS = [f"echo.{name}" for name in AGENTS]
LEASE_TTL = 5


@pytest.fixture(params=["sqlite", "etcd"])
def storage(request):
    if request.param == "sqlite":
        yield {"type": "sqlite"}
        return
    with Etcd() as etcd:
        yield etcd.start().storage()


@pytest.fixture
def fleet(make_cluster, echo, storage):
    def make(proxies=3):
        return make_cluster(
            proxies=proxies, agents=AGENTS, services=echo.services(),
            storage=storage,
        )

    return make


class Comings:
    """An agent that nobody dials comes and goes, for as long as this runs."""

    def __init__(self, cluster):
        self.agent = cluster.add_agent("guest")
        self.agent.join()
        self._stopping = threading.Event()
        self.rounds = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stopping.wait(0.3):
            self.agent.start()
            self._stopping.wait(0.5)
            self.agent.stop()
            self.rounds += 1

    def stop(self):
        """The agent stays."""
        self._stopping.set()
        self._thread.join(30)
        assert self.rounds
        self.agent.start()


def routed_says(proxy, state, timeout=30):
    wait_for(
        lambda: proxy.routed.status()["auth_state"] == state,
        timeout * SLOW, f"{proxy.name}: authd is {state}",
    )


def check_caches(cluster):
    """Every host knows what authd knows."""
    for proxy in cluster.proxies:
        wait_for(
            lambda: cluster.peerctl_run("validate", host=proxy).returncode == 0,
            30 * SLOW, f"{proxy.name} is as authd",
        )


def test_authd_is_killed_for_longer_than_any_lease(fleet):
    cluster = fleet().start()
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    beats = [Beat(p.name, p.dial("echo.db-1")) for p in cluster.proxies]
    comings = Comings(cluster)
    for away in (0.5, 2.5 * LEASE_TTL):
        cluster.auth.authd.kill()
        for proxy in cluster.proxies:
            routed_says(proxy, "unreachable")
            assert proxy.routed.status()["last_error"]
        end = time.monotonic() + away
        # sessions and dials go on; what ends is only looked at in the end
        while time.monotonic() < end:
            dialer.wait_more(5)
            for proxy in cluster.proxies:
                assert set(AGENTS) <= set(proxy.agents())
        problems = cluster.peerctl_run("status", host=cluster.proxies[0]).stdout
        assert "is unreachable" in problems
        cluster.auth.authd.start()
        cluster.auth.authd.wait_ready()
        for proxy in cluster.proxies:
            routed_says(proxy, "connected")
            assert set(AGENTS) <= set(proxy.agents())
    comings.stop()
    cluster.wait_agents()
    dialer.check()
    for beat in beats:
        beat.check_alive()
        beat.stop()
    check_caches(cluster)


def test_a_host_is_cut_off_from_authd(fleet):
    """Its lease ends; nothing else of it does. When it is heard again its
    tunnels are known again at once, under a new epoch."""
    cluster = fleet()
    cut_off, *others = cluster.proxies
    line = Line(cluster.auth.listen_addr)
    cluster.extra.append(line)
    cut_off.config["peerway"]["auth_servers"] = [line.addr]
    cut_off.write_config()
    cluster.start()
    here = [n for n in AGENTS if n in cut_off.tunnel_names()]
    elsewhere = [n for n in AGENTS if n not in here]
    dialer = Dialer([cut_off], TARGETS, 20 / SLOW)
    # between the others nothing is different, if there is anything
    between = elsewhere and Dialer(
        others, [f"echo.{n}" for n in elsewhere], 10 / SLOW)
    beats = [Beat(p.name, p.dial(f"echo.{n}"))
             for p in cluster.proxies for n in AGENTS]
    epoch = cut_off.routed.status()["lease"]["epoch"]
    line.cut()
    routed_says(cut_off, "unreachable")
    assert cut_off.routed.status()["last_error"]
    # to the others it is as gone
    for proxy in others:
        wait_for(
            lambda: cut_off.uuid not in {
                p["id"] for p in proxy.routed.ask("proxies")["proxies"]},
            (LEASE_TTL + 10) * SLOW, f"{proxy.name}: its lease has ended",
        )
    dialer.wait_more(20)
    line.mend()
    routed_says(cut_off, "connected")
    start = time.monotonic()
    cluster.wait_agents()
    assert time.monotonic() - start < 2 * SLOW
    assert cut_off.routed.status()["lease"]["epoch"] > epoch
    dialer.check()
    if between:
        between.check()
    for beat in beats:
        beat.check_alive()
        beat.stop()
    cluster.wait_peers()
    for proxy in others:
        for name in here:
            check_route(proxy, name, "peer" if name not in proxy.tunnel_names()
                        else "local")
    check_caches(cluster)


@pytest.fixture
def small_disk():
    """Mounts a small file system; fills it and makes room again."""
    mounted = []

    class Disk:
        def __init__(self, path):
            path.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "peerway",
                 path], check=True)
            mounted.append(path)
            self.filler = path / "filler"

        def fill(self):
            with self.filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass

        def make_room(self):
            self.filler.unlink()

    yield Disk
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=True)


def test_the_disk_under_the_cache_is_full(fleet, small_disk):
    cluster = fleet()
    poor = cluster.proxies[0]
    disk = small_disk(poor.data_dir)
    cluster.start()
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    beats = [Beat(p.name, p.dial("echo.db-2")) for p in cluster.proxies]
    disk.fill()
    # enough news that even what the file has room for is used up
    comings = Comings(cluster)
    wait_for(
        lambda: "full" in (poor.routed.status()["last_error"] or ""),
        60 * SLOW, "its status says that the disk is full",
    )
    assert "full" in cluster.peerctl_run("status", host=poor).stdout
    dialer.wait_more(20)
    assert set(AGENTS) <= set(poor.agents())
    disk.make_room()
    wait_for(
        lambda: not poor.routed.status()["last_error"],
        30 * SLOW, "it has caught up",
    )
    comings.stop()
    cluster.wait_agents()
    dialer.check()
    for beat in beats:
        beat.check_alive()
        beat.stop()
    check_caches(cluster)


CLOCK = """
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
	const char *text = getenv("PEERWAY_TEST_CLOCK");

	return text ? atol(text) : 0;
}

static long ask_kernel(long number, const long *a)
{
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(number), "D"(a[0]),
		"S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
		: "rcx", "r11", "memory");
	return ret;
}

int clock_gettime(clockid_t id, struct timespec *out)
{
	const long a[6] = {id, (long)out};
	long ret = ask_kernel(SYS_clock_gettime, a);

	if (ret == 0 && id == CLOCK_REALTIME)
		out->tv_sec += shift();
	errno = ret < 0 ? (int)-ret : errno;
	return ret < 0 ? -1 : 0;
}

/* A wait until a time of this clock ends when the kernel's says otherwise. */
long syscall(long number, ...)
{
	struct timespec until;
	long a[6], ret;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
		until = *(const struct timespec *)a[3];
		until.tv_sec -= shift();
		a[3] = (long)&until;
	}
	ret = ask_kernel(number, a);
	if (ret < 0 && ret > -4096) {
		errno = (int)-ret;
		return -1;
	}
	return ret;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	out->tv_sec = now.tv_sec;
	out->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}
"""


@pytest.fixture
def clock(tmp_path):
    """Environment of a program whose clock is wrong by so many seconds."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return lambda seconds: dict(
        os.environ, LD_PRELOAD=str(library), PEERWAY_TEST_CLOCK=str(seconds))


@pytest.mark.skipif(
    "asan" in os.environ.get("PEERWAY_BUILD", ""),
    reason="sanitizers want to be loaded first",
)
@pytest.mark.parametrize("wrong", [600, -600])
@pytest.mark.parametrize("whose", ["proxy", "auth"])
def test_a_clock_is_wrong_by_ten_minutes(fleet, clock, whose, wrong):
    cluster = fleet()
    host = cluster.auth if whose == "auth" else cluster.proxies[0]
    for daemon in host.daemons:
        daemon.env = clock(wrong)
    cluster.start()
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    # longer than any lease: nothing ends early, nothing stays
    end = time.monotonic() + 1.5 * LEASE_TTL
    while time.monotonic() < end:
        dialer.wait_more(5)
    host.daemons[0].restart()
    host.wait_ready()
    cluster.wait_agents()
    cluster.wait_peers()
    dialer.wait_more(20)
    dialer.stop()
    if whose == "auth":
        assert not dialer.failures
    cluster.agents[0].stop()
    gone = cluster.agents[0].name
    for proxy in cluster.proxies:
        wait_for(lambda: gone not in proxy.agents(), 15 * SLOW,
                 f"{proxy.name} no longer has {gone}")
    cluster.agents[0].start()
    cluster.wait_agents()
    check_caches(cluster)
