"""A stream gives what `make` gives, whatever the number of threads, and leaves none of them behind."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cs_gan.data import BatchStream, ImageStore, batch_indices
from cs_gan.errors import DataError


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Recorder:
    """Makes a batch that names its draw, and notes which draws were made and how many at once."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, draw: int) -> Tensor:
        self.made.append(draw)
        return torch.tensor([draw])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_change_no_batch(workers: int) -> None:
    store = ImageStore(torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8), None, "x", "x")

    def make(draw: int) -> Tensor:
        return store.batch(batch_indices(50, 8, draw, seed=0), augmentation=(0, draw), flip=True, dequantize=True)

    with BatchStream(make, workers=workers) as stream:
        for draw in range(30):
            assert torch.equal(stream[draw], make(draw))


def test_the_next_draws_are_made_in_advance_each_once() -> None:
    make = Recorder()
    with BatchStream(make, workers=2, ahead=3) as stream:
        for draw in range(5):
            assert stream[draw].item() == draw
            wait_until(lambda: len(make.made) == draw + 4)  # noqa: B023
    assert sorted(make.made) == list(range(8))


def test_without_workers_nothing_is_made_in_advance() -> None:
    make = Recorder()
    with BatchStream(make) as stream:
        assert stream[3].item() == 3
    assert make.made == [3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_jump_forward_or_back_gives_the_right_draw(workers: int) -> None:
    with BatchStream(Recorder(), workers=workers, ahead=2) as stream:
        for draw in (0, 1, 3, 100, 101, 7, 7, 8):
            assert stream[draw].item() == draw


def test_a_jump_does_not_wait_for_the_draws_it_leaves_out() -> None:
    gate, made = threading.Event(), []

    def make(draw: int) -> Tensor:
        made.append(draw)
        if draw == 1:
            gate.wait(20)
        return torch.tensor([draw])

    with BatchStream(make, workers=2, ahead=8) as stream:
        stream[0]
        wait_until(lambda: 1 in made)
        assert stream[100].item() == 100
        gate.set()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_raised_for_its_draw_alone(workers: int) -> None:
    def make(draw: int) -> Tensor:
        if draw == 2:
            raise DataError("draw 2 is broken")
        return torch.tensor([draw])

    with BatchStream(make, workers=workers) as stream:
        assert [stream[draw].item() for draw in (0, 1)] == [0, 1]
        for _ in range(2):
            with pytest.raises(DataError, match="draw 2 is broken"):
                stream[2]
        assert stream[3].item() == 3


def test_leaving_by_an_error_ends_the_threads() -> None:
    def use() -> None:
        with BatchStream(Recorder(), workers=3) as stream:
            stream[0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()  # the fixture above sees that no thread is left


def test_closing_drops_what_has_not_begun() -> None:
    make = Recorder()
    started, gate = threading.Event(), threading.Event()

    def slow(draw: int) -> Tensor:
        if draw == 1:
            started.set()
            gate.wait(20)
        return make(draw)

    stream = BatchStream(slow, workers=1, ahead=4)
    stream[0]
    started.wait(20)
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    stream.close()
    stream.close()
    timer.join()
    assert make.made == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_stream_says_so(workers: int) -> None:
    stream = BatchStream(Recorder(), workers=workers)
    stream.close()
    with pytest.raises(DataError, match=r"BatchStream\[4\]: the stream is closed"):
        stream[4]


def test_a_forgotten_stream_ends_its_threads() -> None:
    before = threading.active_count()
    stream = BatchStream(Recorder(), workers=2)
    stream[0]
    assert threading.active_count() > before
    del stream
    gc.collect()
    wait_until(lambda: threading.active_count() == before)


def test_an_interrupted_process_ends(after_torch: Callable[[str], str]) -> None:
    # A process for each way to open a stream. A shell starts what it puts into the background with SIGINT ignored; the
    # child must not inherit that.
    printed = after_torch("""
import os, signal, time, torch
from cs_gan.data import BatchStream
signal.signal(signal.SIGINT, signal.default_int_handler)
def make(draw):
    time.sleep(0.05)
    return torch.tensor([draw])
def use(stream):
    for draw in range(10**6):
        stream[draw]
        if draw == 3: os.write(writing, b"3")
for way in ("with", "without"):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        if way == "with":
            with BatchStream(make, workers=2) as stream:
                use(stream)
        stream = BatchStream(make, workers=2)
        use(stream)
    os.close(writing)
    os.read(reading, 1)
    os.kill(child, signal.SIGINT)
    for _ in range(600):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid: break
        time.sleep(0.05)
    else: os.kill(child, signal.SIGKILL)
    print("exit code", os.waitstatus_to_exitcode(status) if pid else "none after 30 s", flush=True)
""")
    assert printed.count("KeyboardInterrupt") == 2
    assert printed.count(f"exit code {-signal.SIGINT}") == 2


@pytest.mark.parametrize("arguments", [{"workers": -1}, {"ahead": 0}])
def test_impossible_numbers_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(DataError, match="workers must be at least 0 and ahead at least 1"):
        BatchStream(Recorder(), **arguments)


def test_pinning_without_cuda_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with BatchStream(Recorder(), workers=1, pin=True) as stream:
        assert stream[2].item() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_are_pinned(workers: int) -> None:
    with BatchStream(Recorder(), workers=workers, pin=True) as stream:
        assert stream[2].is_pinned()
