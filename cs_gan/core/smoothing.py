"""CodedSmoothing: measure, or put in place, the coded pass of chosen blocks of any network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.attachment import attach, claim, release
from cs_gan.core.axes import BatchAxis, batch_axes
from cs_gan.core.batch import INTEGERS, Discrepancy, mean_squared_error
from cs_gan.core.block_state import Parameters
from cs_gan.core.code import SplineCode
from cs_gan.core.diagnosis.measure import Diagnosing
from cs_gan.core.diagnosis.report import Diagnosis
from cs_gan.core.diagnosis.run import TaskLoss, diagnose, objective_weights
from cs_gan.core.hooks import Coding, Observing, Substituting
from cs_gan.core.schedule import Schedule, Schedules
from cs_gan.core.second_pass import BATCH_NORM_POLICIES
from cs_gan.core.selection import nothing_ran, select_blocks
from cs_gan.errors import BlockError, CodeError
from cs_gan.randomness import derive_seed


class CodedSmoothing:
    """Coded-smoothing on chosen blocks of a model.

    ::

        coded = CodedSmoothing(critic, blocks=["blocks.2"], ratio=1.5)
        with coded.observe():
            score = critic(real)
        loss = critic_loss(score) + weight * coded.penalty()

    Hooks exist only inside :meth:`observe` and :meth:`substitute`. Outside, the model is untouched: same outputs,
    same cost, same state dict, and it copies and pickles as before. Coded blocks nested in a coded block run
    plainly during its coded pass.

    Every floating-point argument whose batch axis is as long as that of the first tensor, K, is encoded;
    other arguments pass through. Inputs and outputs may be tensors or any nesting of tuples, lists, dicts,
    dataclasses and classes registered with ``torch.utils._pytree``.

    Args:
        model: any module.
        blocks: names, patterns (``blocks.*``) or modules; ``""`` is the model itself.
        ratio: N/K, a number or a schedule over progress such as ``Linear(1.0, 1.5)``.
        weight: factor of :meth:`penalty`, a number or a schedule.
        every: observe on every m-th step only, with the penalty times m (lazy regularisation as in
            StyleGAN2); needs :meth:`set_step`.
        discrepancy: (decoded, output) -> scalar, mean squared error by default.
        nodes, spline, decoder_kind, smoothing: see :class:`SplineCode`. ``random`` nodes are drawn for every call,
            from ``seed``, the step and the number of calls since :meth:`set_step`.
        batch_norm: ``keep`` (coded samples leave all of a block's state as it was: running statistics and every other
            buffer), ``update`` or ``running``; see :func:`cs_gan.core.second_pass.coded_pass`.
        batch_axis: of every tensor that a block takes and gives, an int or a mapping from names in ``blocks`` to
            ints (0 for the rest). torch's own RNN, GRU, LSTM, attention and transformer layers know theirs.
        integers: ``refuse`` integer and boolean tensors that have a batch axis, or ``nearest``: a coded sample
            takes the label, or the mask, of the data sample nearest to it.
        share_dropout: coded sample n gets the dropout masks of the data sample nearest to it, instead of its own
            (dropout modules only, not functional calls).
        replace: detach whatever codes one of these blocks now, so that a notebook's cell can run again.

    Raises:
        BlockError: for unknown blocks, or one that is attached already (see ``replace``).
        CodeError: for an unusable code or option.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Iterable[str | nn.Module],
        ratio: Schedule = 1.5,
        *,
        weight: Schedule = 1.0,
        every: int = 1,
        discrepancy: Discrepancy = mean_squared_error,
        nodes: str = "chebyshev",
        spline: str = "natural",
        decoder_kind: str = "spline",
        smoothing: float = 1e-4,
        batch_norm: str = "keep",
        batch_axis: BatchAxis = 0,
        integers: str = "refuse",
        share_dropout: bool = False,
        replace: bool = False,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise CodeError(f"every={every}: observe every m-th step needs m of at least 1.")
        if batch_norm not in BATCH_NORM_POLICIES:
            raise CodeError(f"batch_norm={batch_norm!r} is unknown: choose one of {', '.join(BATCH_NORM_POLICIES)}.")
        if integers not in INTEGERS:
            raise CodeError(f"integers={integers!r} is unknown: choose one of {', '.join(INTEGERS)}.")
        if not callable(ratio) and not ratio > 0:
            raise CodeError(f"ratio={ratio}: N/K must be above 0.")
        # A misspelt or impossible option fails here rather than in the first step.
        SplineCode(8, 8, nodes, spline, decoder_kind, smoothing)
        self._code_options = (nodes, spline, decoder_kind, smoothing)
        self._ratio, self.every, self._schedules = ratio, every, Schedules(ratio, weight, every)
        self.discrepancy, self.batch_norm, self.share_dropout = discrepancy, batch_norm, share_dropout
        self.seed, self._drawn, self._gone = seed, 0, "after detach(): make a new CodedSmoothing."
        self._inside: tuple[str, int] | None = None  # context and thread
        self._penalties: dict[str, Tensor] | None = None
        self._model: nn.Module | None = model
        self.blocks = select_blocks(model, blocks)
        self._parameters = {name: Parameters() for name in self.blocks}
        axes = batch_axes(self.blocks, batch_axis)
        if moved := [name for name in axes if share_dropout and axes[name].takes[0]]:
            raise BlockError(
                f"share_dropout needs the batch as first axis, which blocks {moved} don't have: leave it off."
            )
        self._axes, self._integers = axes, integers
        claim(model, self.blocks, self, replace)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, as a trainer that holds this object makes one, has measured nothing: graphs can't be copied.
        return vars(self) | {"_penalties": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        attach(self.blocks, self)

    # -- schedules ---------------------------------------------------------------------------------

    def set_step(self, step: int, total: int) -> None:
        """Say once per step where training stands; schedules and ``every`` follow from it alone."""
        self._schedules.set_step(step, total)
        self._drawn = 0

    @property
    def ratio(self) -> float:
        """N/K now."""
        return self._schedules.ratio

    @property
    def weight(self) -> float:
        """The penalty's weight now, without the factor ``every``."""
        return self._schedules.weight

    @property
    def due(self) -> bool:
        """Whether this step observes (always, unless ``every`` is above 1)."""
        return self._schedules.due

    def code(self, K: int) -> SplineCode:
        """The code for a batch of K now (without the fresh draw of ``random`` nodes)."""
        return SplineCode(K, round(self.ratio * K), *self._code_options)

    # -- the two contexts --------------------------------------------------------------------------

    @contextmanager
    def observe(self, discrepancy: Discrepancy | None = None) -> Iterator[None]:
        """Inside, each coded block also runs on coded samples, and its penalty is kept.

        Outputs are bit-identical to those without. (A block with dropout also draws masks for its coded pass, so later
        draws differ, unless ``share_dropout`` is set.) Each context starts from zero: put calls that should add up,
        such as D(real) and D(fake), into one. On a step that ``every`` skips nothing happens. ``discrepancy`` replaces
        the object's own, for example by one that knows the targets.
        """
        with self._entered("observe"):
            self._penalties = {}
            if not self.due:
                yield
                return
            hooks = Observing(self._coding(), discrepancy or self.discrepancy, self.share_dropout, self._penalties)
            try:
                with hooks.installed(self.blocks):
                    yield
            except BaseException:
                self._penalties = None  # half a measurement is none
                raise

    @contextmanager
    def substitute(self, generator: torch.Generator | None = None) -> Iterator[None]:
        """Inside, each coded block returns its decoded output, under a fresh random permutation per call.

        Args:
            generator: a CPU generator for the permutations; the global one by default.
        """
        hooks = Substituting(self._coding(), generator)
        with self._entered("substitute"), hooks.installed(self.blocks):
            yield
        if not hooks.ran:  # nothing was coded, and nothing else would show it
            raise nothing_ran(self._model, self.blocks, "substitute()")

    # -- results -----------------------------------------------------------------------------------

    @property
    def penalties(self) -> dict[str, Tensor]:
        """Per block, the sum over its calls in the last :meth:`observe` (scalars, unweighted)."""
        if self._penalties is None:
            raise BlockError("no penalty was measured: run the model inside `with coded.observe():` first.")
        return dict(self._penalties)

    def penalty(self) -> Tensor:  # ()
        """``weight`` times the sum of :attr:`penalties`, times ``every`` where that is above 1.

        0 on a step that ``every`` skips.

        Raises:
            BlockError: if no coded block ran inside the last :meth:`observe`.
        """
        terms = list(self.penalties.values())
        if terms:
            total = torch.stack(terms).sum()
            return total * self._schedules.factor(total)
        if not self.due:
            parameters = (p for block in self.blocks.values() for p in block.parameters())
            return torch.zeros((), device=next(parameters, torch.zeros(())).device)
        raise nothing_ran(self._model, self.blocks, "observe()")

    def detach(self) -> None:
        """Release the blocks, so that they can be coded again. The model is exactly as it was."""
        if self._inside:
            raise BlockError(f"detach() inside {self._inside[0]}(): leave the context first.")
        release(self.blocks)
        self.blocks, self._model = {}, None

    def diagnose(
        self,
        call: Callable[[], Any],
        task_loss: TaskLoss | None = None,
        *,
        mu: float | None = None,
        weight: float | None = None,
        earlier: Diagnosis | None = None,
    ) -> Diagnosis:
        """Measure what coding does on one batch, and say which of its failure signatures show.

        ::

            print(coded.diagnose(lambda: model(x), lambda logits: F.cross_entropy(logits, y), mu=0.5))

        Nothing is paid for it elsewhere, and nothing is left behind: no gradient is taken, and buffers,
        attributes of the model's modules and torch's random state are put back. (Other networks that ``call``
        runs are not looked after, nor is what a module keeps outside its buffers and changes in place.)

        Args:
            call: runs the model once on a batch of training, as in training; it is called once, and with a
                ``task_loss`` that is a function once more and twice for each block.
            task_loss: the number, or a function from what ``call`` gives to it. A function must be one that is
                bounded below by 0, such as cross-entropy; give a critic's loss as a number.
            mu: the objective is (1 - mu) task loss + mu weight penalty; without it, task loss + weight penalty.
            weight: of the penalty, :attr:`weight` by default; ``every`` leaves it, on average, as it is.
            earlier: a report of the same model, against which outputs that shrink are seen.

        Raises:
            BlockError: if no coded block ran, after :meth:`detach` or inside a context.
            CodeError: for a ``call``, ``task_loss`` or ``mu`` that can't be used.
            BatchError: for a batch that can't be coded.
        """
        with self._entered("diagnose"):
            assert self._model is not None
            weights = objective_weights(self.weight if weight is None else weight, mu)
            hooks = Diagnosing(self._coding(), self.discrepancy, self.share_dropout)
            drawn = self._drawn
            try:
                return diagnose(self._model, self.blocks, hooks, call, task_loss, weights, earlier)
            finally:
                self._drawn = drawn

    def __repr__(self) -> str:
        nodes, spline, decoder, _ = self._code_options
        names = ", ".join(repr(name) for name in self.blocks) or "detached"
        return f"CodedSmoothing({names}; ratio={self._ratio}, nodes={nodes}, spline={spline}, decoder={decoder})"

    @contextmanager
    def _entered(self, context: str) -> Iterator[None]:
        if self._model is None:
            raise BlockError(f"{context}() {self._gone}")
        thread = threading.get_ident()
        if self._inside and self._inside[1] == thread:
            raise BlockError(f"{context}() inside {self._inside[0]}(): leave the first context before the second.")
        if self._inside:
            raise BlockError(
                f"{context}() while another thread is inside {self._inside[0]}() of this CodedSmoothing: use a lock, "
                "or give each thread a copy of the model and a CodedSmoothing of its own."
            )
        self._inside = (context, thread)
        try:
            yield
        finally:
            self._inside = None

    def _coding(self) -> Coding:
        # Made for each context: kept, it would be a cycle, and blocks would stay attached to an object that is gone.
        return Coding(self._next_code, self._axes, self._integers, self.batch_norm, self._parameters)

    def _next_code(self, K: int) -> SplineCode:
        """The code of the next call: as :meth:`code`, with fresh nodes where they are random."""
        code = self.code(K)
        if code.nodes != "random":
            return code
        self._drawn += 1
        return replace(code, seed=derive_seed(self.seed, "nodes", *(self._schedules.step or ()), self._drawn))
