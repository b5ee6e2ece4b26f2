# SPDX-License-Identifier: Apache-2.0
"""The etcd that other tests start keeps what it was given through a kill -9,
and of three members any one may die."""

import pytest

from etcd import Etcd


def test_one_member_keeps_its_data():
    with Etcd() as etcd:
        etcd.start()
        etcd.ctl("put", "/x", "before")
        etcd.kill9()
        assert not etcd.process.running()
        with pytest.raises(AssertionError, match="deadline|refused"):
            etcd.ctl("--command-timeout", "1s", "get", "/x")
        etcd.start()
        assert etcd.ctl("get", "/x").split() == ["/x", "before"]
        revision = etcd.revision()
        etcd.ctl("put", "/x", "after")
        etcd.restart()
        assert etcd.revision() == revision + 1
        assert etcd.compact() == revision + 1
        with pytest.raises(AssertionError, match="compacted"):
            etcd.ctl("get", "/x", "--rev", revision)
        assert not etcd.complaints()


def test_one_of_three_may_die():
    with Etcd(members=3) as etcd:
        etcd.start()
        assert len(etcd.endpoints) == 3
        etcd.ctl("put", "/x", "1")
        etcd.leader().kill9()
        assert len(etcd.wait_healthy().status()) == 2
        etcd.ctl("put", "/x", "2")
        dead = next(m for m in etcd.members if not m.running())
        assert etcd.leader() not in (None, dead)
        dead.start().wait_healthy()
        assert etcd.ctl("get", "/x", member=dead).split() == ["/x", "2"]
        assert len({s["header"]["cluster_id"] for s in etcd.status().values()}) == 1
