import os
import signal
import time

import pytest

import cs_gan.training.progress as progress_module
from cs_gan.training import Interrupted, Progress, StopRequest


@pytest.fixture
def _handlers_restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers_restored")
class TestStopRequest:
    def test_is_not_made_by_itself(self):
        stop = StopRequest()
        assert not stop
        assert (stop.reason, stop.signal) == ("", 0)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_one_signal_asks_and_interrupts_nothing(self, number, capsys):
        stop = StopRequest()
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
        assert stop.reason == f"{number.name} received"
        assert "Once more to stop at once" in capsys.readouterr().err

    @pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_signal_interrupts(self, second, monkeypatch):
        stop = StopRequest()
        os.kill(os.getpid(), signal.SIGINT)
        later = time.monotonic() + 2.1
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
        assert stop.signal == signal.SIGINT

    def test_a_second_signal_within_two_seconds_is_the_launchers_echo(self):
        stop = StopRequest()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGINT received"

    def test_what_is_interruptible_ends_at_the_first_signal(self):
        stop = StopRequest()
        reached = []

        def work():
            with stop.interruptible():
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append("after the signal")

        with pytest.raises(Interrupted):
            work()
        assert not reached
        assert stop.signal == signal.SIGTERM
        with pytest.raises(Interrupted), stop.interruptible():  # nor is anything begun after it
            reached.append("begun")
        assert not reached

    def test_the_time_limit_asks_without_a_signal(self, monkeypatch):
        now = time.monotonic()
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
        stop = StopRequest(max_minutes=2)
        now += 119.9
        assert not stop
        now += 0.2
        assert stop
        assert "max_minutes" in stop.reason
        assert stop.signal == 0
        now -= 60
        assert stop  # asked once, it stays asked

    def test_a_first_signal_after_the_time_limit_does_not_interrupt(self, monkeypatch):
        stop = StopRequest(max_minutes=1)
        now = time.monotonic() + 61
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
        assert stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM received"


class TestProgress:
    def test_is_silent_on_other_ranks(self, capsys):
        progress = Progress(0, 3, shown=False)
        progress.say("hello")
        progress.step(64)
        progress.show({"loss": 1.0})
        progress.pause()
        progress.close()
        captured = capsys.readouterr()
        assert captured.out + captured.err == ""

    def test_shows_steps_from_where_it_goes_on(self, capsys):
        progress = Progress(2, 3, shown=True)
        progress.say("hello")
        progress.step(64)
        progress.show({"loss": 0.123456})
        progress.close()
        captured = capsys.readouterr()
        assert "hello" in captured.out + captured.err
        assert "3/3" in captured.err
        assert "loss=0.123" in captured.err

    @pytest.mark.parametrize("shown", [True, False])
    def test_counts_the_images_per_second_since_the_last_call(self, shown, monkeypatch):
        now = 100.0
        monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
        progress = Progress(0, 10, shown)
        for _ in range(4):
            progress.step(50)
        now = 102.0
        assert progress.show({}) == 100.0
        progress.step(50)
        now = 103.0
        assert progress.show({}) == 50.0
        progress.close()

    def test_leaves_pauses_out(self, monkeypatch):
        now = 100.0
        monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
        progress = Progress(0, 10, shown=False)
        progress.step(50)
        now = 160.0
        progress.pause()
        progress.step(50)
        now = 161.0
        assert progress.show({}) == 50.0
