"""Distribution of a list over processes."""

import re

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.engines.share import Share, share_of

ITEMS = list("abcdefg")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_shards_are_disjoint_and_complete(count: int) -> None:
    parts = [share_of(f"{i}/{count}").order(ITEMS) for i in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == ITEMS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert not any(share_of(f"{i}/{count}").ends for i in range(1, count + 1))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_each_process_of_torchrun_begins_elsewhere_and_takes_all(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    firsts = []
    for rank in range(count):
        for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("LOCAL_RANK", 0)):
            monkeypatch.setenv(name, str(value))
        share = share_of()
        assert sorted(share.order(ITEMS)) == ITEMS
        assert share.ends == (rank == 0)
        firsts.append(share.order(ITEMS)[0])
    assert len(set(firsts)) == min(count, len(ITEMS))


def test_a_process_alone_takes_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers leave it
    assert share_of() == Share()
    assert Share().order(ITEMS) == ITEMS


@pytest.mark.parametrize("shard", ["3", "0/2", "3/2", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard_is_refused(shard: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"shard is '{shard}', expected i/n")):
        share_of(shard)
