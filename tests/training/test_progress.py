import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import cs_gan.training.progress as progress_module
import train_gan
from cs_gan.runs import read_lines
from cs_gan.training import Interrupted, Progress, StopRequest
from cs_gan.training.progress import fitted
from tests.scripts import _signal_handlers_as_before  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[2]


class TestStopRequest:
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
        assert re.fullmatch(r"step 3/3, \d+ img/s, ETA 00:00, loss=0.123\n", captured.err)

    def test_a_line_each_time_where_there_is_no_terminal(self, capsys, monkeypatch):
        now = 100.0
        monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now)
        progress = Progress(0, 100, shown=True)
        now = 150.0
        progress.pause()  # the evaluation before the first step comes once
        for done in range(1, 5):
            progress.step(64)
            now += 2.0
            if done % 2 == 0:
                progress.show({"critic_loss": -1.0, "gradient_penalty": 0.25})
        progress.close()
        assert capsys.readouterr().err.splitlines() == [
            "step 2/100, 32 img/s, ETA 03:16, critic_loss=-1, gradient_penalty=0.25",
            "step 4/100, 32 img/s, ETA 03:12, critic_loss=-1, gradient_penalty=0.25",
        ]

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


# What a GAN recipe with coded blocks in both networks logs, at its longest.
NAMES = ["critic_loss", "gradient_penalty", "wasserstein", "critic_coded", "generator_loss", "generator_coded"]
LONG = dict.fromkeys(NAMES, -1.2345e-05)


class TestFitted:
    @pytest.mark.parametrize(
        ("room", "text"),
        [
            (None, "critic_loss=-0.123, critic_coded=0.00457"),
            (40, "critic_loss=-0.123, critic_coded=0.00457"),
            (39, "c_loss=-0.123, c_code=0.00457"),
            (28, "cl=-0.123, cc=0.00457"),
            (20, "cl=-0.12, cc=0.0046"),
            (18, "cl=-0.12"),
            (7, ""),
        ],
    )
    def test_names_are_as_long_as_there_is_room(self, room, text):
        assert fitted({"critic_loss": -0.12345, "critic_coded": 0.0045678}, room) == text

    def test_never_takes_more_room_than_there_is(self):
        assert all(len(fitted(LONG, room)) <= room for room in range(130))

    def test_losses_come_first_where_not_all_have_room(self):
        assert fitted(LONG, 42) == "cl=-1.2e-05, gl=-1.2e-05, cc=-1.2e-05"

    def test_names_that_would_become_one_stay_apart(self):
        assert fitted({"critic_loss": 1, "critic_lossy": 2}, 30) == "critic_loss=1, critic_lossy=2"


def in_terminal(arguments: list[str], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What train_gan.py writes to a terminal of so many columns."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    written = []

    def read() -> None:
        with suppress(OSError):  # Linux's way to say that the other side is closed
            while piece := os.read(main, 65536):
                written.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with open(side, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        status = train_gan.main(arguments)
        monkeypatch.undo()
    reader.join()
    os.close(main)
    text = b"".join(written).decode()
    assert status == 0, text
    return text


def test_a_real_run_fits_a_terminal_of_80_columns(tmp_path, monkeypatch):
    command = [f"--config={ROOT}/configs/gan/quickstart.yaml", f"--output_dir={tmp_path}/run"]
    command += ["--coded.generator.blocks=blocks.0", "--training.steps=12", "--training.log_every=2", "--model.width=4"]
    command += ["--metrics.extractor=none", "--tracking.trackers=none", "--training.sample_every=0"]
    lines = [line.strip() for line in re.split(r"[\r\n]", in_terminal(command, 80, monkeypatch))]
    progress = [line for line in lines if re.match(r"\d+/12\b", line)]
    assert progress[-1].startswith("12/12, ")
    assert [name for name in read_lines(tmp_path / "run" / "log.jsonl")[-1] if name in NAMES] == NAMES
    assert re.match(r"12/12, \d+ img/s, ETA 00:00, cl=\S+, g[pl]=\S+", progress[-1]), progress[-1]
    assert max(len(line) for line in progress) <= 80
