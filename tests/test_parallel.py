"""Maps over tasks: the same results whoever works, and stages that a cluster helps."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, get_worker

from deepsky.errors import DataError, DeepSkyError
from deepsky.parallel import connected, in_threads, is_helped, mapped, use_cluster
from tests.clusters import STAGE, cluster_of

if sys.platform != "linux":
    pytest.skip("only Linux has more than one loopback address", allow_module_level=True)

HOSTS = ("127.0.0.1", "127.0.0.2")


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[Client]:
    with cluster_of(*HOSTS) as client:
        yield client


def as_stage(client: Client, work: Callable[..., Any], *args: Any) -> Any:
    """Run what a stage does, as one task of a worker."""
    return client.submit(work, *args, resources={"stage": 1}, pure=False).result()


def own_address() -> str:
    return get_worker().address


def square(number: int) -> tuple[int, int]:
    time.sleep(0.01)
    if number == 1000:
        raise DataError("number 1000", "is too large", "take a smaller one")
    return number * number, os.getpid()


def squares(numbers: list[int], n_ahead: int, locally: Any = "here") -> list[tuple[int, int]]:
    return list(mapped(square, numbers, n_ahead=n_ahead, locally=locally))


@pytest.mark.parametrize("n_ahead", [1, 7, 500])
def test_results_come_in_order_and_all_workers_help(two_hosts: Client, n_ahead: int) -> None:
    results = as_stage(two_hosts, squares, list(range(100)), n_ahead)
    assert [number for number, _ in results] == [number * number for number in range(100)]
    if n_ahead > 1:
        assert len({pid for _, pid in results}) == 2


@pytest.mark.parametrize("locally", ["here", "threads", "processes"])
def test_without_a_cluster_the_results_are_the_same(locally: str) -> None:
    results = squares(list(range(50)), 5, locally)
    assert [number for number, _ in results] == [number * number for number in range(50)]
    assert ({pid for _, pid in results} == {os.getpid()}) == (locally != "processes")


@pytest.mark.parametrize("locally", ["here", "threads", "processes"])
def test_an_error_is_raised_as_it_is(two_hosts: Client, locally: str) -> None:
    numbers = [*range(20), 1000, *range(20)]
    line = "number 1000: is too large; take a smaller one"
    with pytest.raises(DataError) as error:
        squares(numbers, 5, locally)
    assert str(error.value) == line
    with pytest.raises(DataError) as error:
        as_stage(two_hosts, squares, numbers, 5, locally)
    assert str(error.value) == line
    assert len(as_stage(two_hosts, squares, list(range(20)), 5)) == 20


def test_a_cluster_is_used_only_if_it_has_another_host(two_hosts: Client) -> None:
    assert not is_helped()
    assert as_stage(two_hosts, is_helped)
    with cluster_of(HOSTS[0], HOSTS[0]) as client:
        assert not as_stage(client, is_helped)
        with connected(client.scheduler.address, STAGE):  # who names a cluster, and is none of its workers, wants it
            assert is_helped()
        assert not is_helped()
        another = connected(client.scheduler.address, "another")
        with pytest.raises(DeepSkyError, match="has no worker for this project"), another:
            pass


def other_project() -> None:
    use_cluster(lambda: None, resource="stage of another project", own=lambda: None)


def test_a_worker_of_another_project_refuses_tasks(two_hosts: Client) -> None:
    with cluster_of(*HOSTS) as client:
        caller = as_stage(client, own_address)
        client.run(other_project, workers=[address for address in client.nthreads() if address != caller])
        with pytest.raises(DeepSkyError, match="a worker: is of another project or code"):
            client.submit(squares, list(range(20)), 5, workers=[caller]).result()


def marked(number: int, folder: Path) -> int:
    (folder / f"{number}.begun").touch()
    time.sleep(0.2)
    (folder / f"{number}.ended").touch()
    return number


def take(n_results: int, folder: Path) -> tuple[int, int]:
    """Take some results of many; count at once what has begun and what has ended."""
    with closing(mapped(partial(marked, folder=folder), range(200), n_ahead=20, locally="threads")) as results:
        assert [next(results) for _ in range(n_results)] == list(range(n_results))
    return len(list(folder.glob("*.begun"))), len(list(folder.glob("*.ended")))


def test_what_nobody_takes_is_taken_back_and_what_runs_is_waited_for(two_hosts: Client, tmp_path: Path) -> None:
    begun, ended = as_stage(two_hosts, take, 3, tmp_path)
    assert 3 <= begun == ended <= 3 + 21
    time.sleep(0.5)
    assert len(list(tmp_path.glob("*.begun"))) == begun


def numbers_given_out(n_ahead: int, folder: Path) -> int:
    given = []

    def numbers() -> Iterator[int]:
        for number in range(10_000):
            given.append(number)
            yield number

    with closing(in_threads(lambda number: number, numbers(), n_ahead=n_ahead)) as results:
        assert [next(results) for _ in range(50)] == list(range(50))
    return len(given)


def test_a_bounded_number_of_tasks_is_ahead(two_hosts: Client, tmp_path: Path) -> None:
    assert numbers_given_out(10, tmp_path) == 60
    folder = tmp_path / "cluster"
    folder.mkdir()
    as_stage(two_hosts, take, 1, folder)
    assert {int(path.stem) for path in folder.glob("*.begun")} <= set(range(22))


def fatal(number: int, folder: Path) -> int:
    """End a worker that does not hold the stage, once, with all that it has done and not handed over."""
    time.sleep(0.02)
    if number > 20 and get_worker().address != (folder / "stage").read_text():
        try:
            (folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def survive(folder: Path) -> list[int]:
    (folder / "stage").write_text(get_worker().address)
    return list(mapped(partial(fatal, folder=folder), range(200), n_ahead=30, locally="here"))


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with cluster_of(*HOSTS) as client:
        assert as_stage(client, survive, tmp_path) == list(range(200))
    assert (tmp_path / "killed").exists()


def test_stages_on_every_worker_wait_for_each_other_at_no_time(two_hosts: Client) -> None:
    stages = [
        two_hosts.submit(squares, list(range(50)), 20, resources={"stage": 1}, pure=False)
        for _ in range(3 * len(HOSTS))
    ]
    wanted = [number * number for number in range(50)]
    assert all([number for number, _ in stage.result(timeout=60)] == wanted for stage in stages)
