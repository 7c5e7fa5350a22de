"""The loop over runs, with an executor that does what it is told."""

from cs_gan.study import plan, read_study
from cs_gan.study.execute import run_all
from cs_gan.study.outcome import read_outcome
from cs_gan.study.process import Request
from cs_gan.study.stop import Stop


class Ended:
    def __init__(self, reason):
        self.reason = reason

    def problem(self):
        return self.reason


class Executor:
    """Its jobs end at once, for the reasons given."""

    slots, pause = 2, 0.0

    def __init__(self, reasons, adopted=()):
        self.reasons, self.adopted = iter(reasons), set(adopted)
        self.submitted, self.withdrawn, self.closed = [], 0, False

    def submit(self, run):
        self.submitted.append(run.name)
        return Ended(next(self.reasons))

    def adopt(self, run):
        return Ended("") if run.name in self.adopted else None

    def withdraw(self, jobs):
        self.withdrawn += len(jobs)

    def close(self):
        self.closed = True


def carry(bench, executor, stop=None):
    bench.write(grid={"mu": [0.1, 0.2]})
    runs, ended = plan(read_study(bench.file), bench.folder), []
    bench.folder.mkdir()
    run_all(runs, executor, Request(bench.folder), stop or Stop(), lambda run: ended.append(run.name), print)
    assert executor.closed
    assert not (bench.folder / ".stop").exists()
    return runs, ended


def test_a_run_that_is_lost_has_failed_and_the_others_go_on(bench):
    executor = Executor(["", "lost by Ray: its node died", "", ""])
    runs, ended = carry(bench, executor)
    assert ended == executor.submitted == [run.name for run in runs]
    outcomes = [read_outcome(run) for run in runs]
    assert [one.status for one in outcomes] == ["not run", "failed", "not run", "not run"]
    assert outcomes[1].reason == "lost by Ray: its node died"


def test_what_the_executor_has_in_hand_is_not_handed_over_again(bench):
    executor = Executor([""] * 4, adopted=["mu=0.2-seed0"])
    runs, ended = carry(bench, executor)
    assert sorted(ended) == sorted(run.name for run in runs)
    assert executor.submitted == ["mu=0.1-seed0", "mu=0.1-seed1", "mu=0.2-seed1"]


def test_nothing_is_begun_when_the_time_is_over(bench):
    executor = Executor([])
    _, ended = carry(bench, executor, Stop(minutes=-1))
    assert ended == executor.submitted == []


def test_what_is_taken_back_has_not_failed(bench):
    class Slow(Ended):
        def problem(self):
            return self.reason if stop.signal else None

    stop, executor = Stop(), Executor([])

    def submit(run):
        executor.submitted.append(run.name)
        if len(executor.submitted) == executor.slots:
            stop.signal = 15
        return Slow("cancelled")

    executor.submit = submit
    runs, ended = carry(bench, executor, stop)
    assert ended == [run.name for run in runs[:2]]
    assert executor.withdrawn == 2
    assert [read_outcome(run).status for run in runs] == ["not run"] * 4
