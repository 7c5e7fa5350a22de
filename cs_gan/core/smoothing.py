"""CodedSmoothing: run chosen blocks of any network on coded samples, to regularise or to replace the plain pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.attachment import attach, claim, release
from cs_gan.core.block_state import Parameters
from cs_gan.core.code import SplineCode
from cs_gan.core.coded_pass import BATCH_NORM_POLICIES
from cs_gan.core.context import entered, is_inside
from cs_gan.core.diagnosis.measure import Diagnosing
from cs_gan.core.diagnosis.report import Diagnosis
from cs_gan.core.diagnosis.run import TaskLoss, diagnose
from cs_gan.core.discrepancy import Discrepancy, discrepancy_of
from cs_gan.core.hooks import Coding, Hooks, Observing, Substituting
from cs_gan.core.nestings import BatchAxis, batch_axes
from cs_gan.core.roles import DISCRETE, Arguments, CallHistory, roles_by_user
from cs_gan.core.schedule import Schedule, Schedules, checked_multiple
from cs_gan.core.selection import nothing_ran, select_blocks, some_did_not_run
from cs_gan.core.share import HeldShare, gradient_norms, share_of, trained
from cs_gan.errors import BlockError, CodeError
from cs_gan.randomness import derive_seed


class CodedSmoothing:
    """Coded-smoothing for chosen blocks of a model.

    ::

        coded = CodedSmoothing(critic, blocks=["blocks.2"], ratio=1.5)
        with coded.observe():
            score = critic(real)
        loss = critic_loss(score) + weight * coded.penalty()

    Hooks exist only inside :meth:`observe` and :meth:`substitute`. Outside, the model is unchanged: same outputs,
    same cost, same state dict, and it copies and pickles as before. If a coded block contains other coded blocks, they
    run without coding during its coded pass.

    The batch size K is the length of the batch axis of the first tensor. Floating-point and complex arguments with a
    batch axis of length K are encoded; integers, booleans and masks with one are refused (see ``discrete``); others are
    passed on. (cs_gan/core/roles.py has the whole rule.) Inputs and outputs can be tensors or nestings of tuples,
    lists, dicts, dataclasses and classes registered with ``torch.utils._pytree``.

    Args:
        model: any module.
        blocks: names, patterns (``blocks.*``), modules or classes of modules (``nn.Conv2d``); ``""`` is the model
            itself. ``[name for name, _ in model.named_modules()]`` lists the names.
        exclude: blocks to leave out of these, chosen in the same ways.
        ratio: N/K, a number or a schedule over progress such as ``Linear(1.0, 1.5)``.
        weight: factor of :meth:`penalty`: a number, a schedule, or a :class:`HeldShare`, which follows the gradient.
        every: observe only on every m-th step, with the penalty times m (lazy regularisation as in
            StyleGAN2); needs :meth:`set_step`.
        discrepancy: ``squared`` (mean squared error), ``scale_free`` (divided by the outputs' variance over the
            batch), ``shrink_proof`` (with the gradient of the variance), or a function (decoded, output) -> scalar.
            Both have the batch as first axis; complex outputs come as pairs of real numbers.
        nodes, spline, decoder_kind, smoothing: see :class:`SplineCode`. ``random`` nodes are drawn for every call
            from ``seed``, the step and the number of calls since :meth:`set_step`.
        batch_norm: ``keep`` (coded samples change no state of the block: no running statistics and no other buffer),
            ``update`` or ``running``; see :func:`cs_gan.core.coded_pass.coded_pass`.
        batch_axis: batch axis of all inputs and outputs of the blocks: an int, or a mapping from names in ``blocks``
            to ints (0 for the others). It is known for torch's own RNN, GRU, LSTM, attention and transformer layers.
        arguments: roles of arguments that the rule can't know, by name or position: ``encode`` (data), ``nearest``
            (see ``discrete``) or ``plain`` (no batch axis), as in ``{"table": "plain"}``; for single blocks
            ``{"blocks.1": {"table": "plain"}}``.
        discrete: what to do with integers, booleans and masks that have a batch axis: ``refuse`` them, or
            ``nearest``: a coded sample takes the label or mask of the nearest data sample.
        multiple: N is rounded to a multiple of it, for blocks that need a batch that can be divided.
        share_dropout: coded sample n gets the dropout masks of the nearest data sample instead of its own
            (dropout modules only, not functional calls).
        replace: first detach any CodedSmoothing that codes one of these blocks, so a notebook cell can run again.

    Raises:
        BlockError: for unknown blocks, or blocks that are attached already (see ``replace``).
        CodeError: for an invalid code or option.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Iterable[str | nn.Module | type[nn.Module]],
        ratio: Schedule = 1.5,
        *,
        exclude: Iterable[str | nn.Module | type[nn.Module]] = (),
        weight: Schedule | HeldShare = 1.0,
        every: int = 1,
        discrepancy: str | Discrepancy = "squared",
        nodes: str = "chebyshev",
        spline: str = "natural",
        decoder_kind: str = "spline",
        smoothing: float = 1e-4,
        batch_norm: str = "keep",
        batch_axis: BatchAxis = 0,
        arguments: Arguments | None = None,
        discrete: str = "refuse",
        multiple: int = 1,
        share_dropout: bool = False,
        replace: bool = False,
        seed: int = 0,
        integers: str | None = None,  # the old name of ``discrete``
    ) -> None:
        if batch_norm not in BATCH_NORM_POLICIES:
            raise CodeError(f"batch_norm={batch_norm!r} is unknown: choose one of {', '.join(BATCH_NORM_POLICIES)}.")
        discrete = discrete if integers is None else integers
        if discrete not in DISCRETE:
            raise CodeError(f"discrete={discrete!r} is unknown: choose one of {', '.join(DISCRETE)}.")
        # An invalid option fails here, not in the first step.
        SplineCode(8, 8, nodes, spline, decoder_kind, smoothing)
        self._code_options = (nodes, spline, decoder_kind, smoothing)
        self._ratio, self._weight, self.every = ratio, weight, every
        self._schedules = Schedules(ratio, weight, every)
        if self.held:
            self.held.every = every
        self.discrepancy, self.batch_norm, self.share_dropout = discrepancy_of(discrepancy), batch_norm, share_dropout
        self.seed, self._drawn, self._gone = seed, 0, "after detach(): make a new CodedSmoothing."
        self._inside: tuple[str, object] | None = None  # context and its key (cs_gan/core/context.py)
        self._penalties: dict[str, Tensor] | None = None
        self._model: nn.Module | None = model
        self.blocks = select_blocks(model, blocks, exclude)
        self._has_run = False  # whether a block ran in an earlier context
        self._parameters = {name: Parameters() for name in self.blocks}
        axes = batch_axes(self.blocks, batch_axis)
        if other_axis := [name for name in axes if share_dropout and axes[name].takes]:
            raise BlockError(
                f"share_dropout needs the batch as first axis, which blocks {other_axis} don't have: leave it off."
            )
        self._axes, self._discrete, self._multiple = axes, discrete, checked_multiple(multiple)
        self._user_roles, self._histories = (
            roles_by_user(self.blocks, {} if arguments is None else arguments),
            {name: CallHistory() for name in self.blocks},
        )
        claim(model, self.blocks, self, replace)

    def __getstate__(self) -> dict[str, Any]:
        # Trainers copy this object. The copy has no penalties, because graphs can't be copied.
        return vars(self) | {"_penalties": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        attach(self.blocks, self)

    # -- schedules ---------------------------------------------------------------------------------

    def set_step(self, step: int, total: int, *, hold_end: bool = False) -> None:
        """Set the step, once per step. Schedules and ``every`` depend only on it.

        Args:
            step: from 0.
            total: the number of steps over which schedules run.
            hold_end: steps beyond ``total`` are allowed, and schedules stay at their end.
        """
        self._schedules.set_step(step, total, hold_end)
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
    def held(self) -> HeldShare | None:
        """The weight, if it holds a share of the gradient."""
        return self._weight if isinstance(self._weight, HeldShare) else None

    @property
    def due(self) -> bool:
        """Whether this step observes (always, unless ``every`` is above 1)."""
        return self._schedules.due

    def code(self, K: int) -> SplineCode:
        """The current code for a batch of K (without the new draw of ``random`` nodes)."""
        N = round(self.ratio * K) if self._multiple == 1 else self._rounded(self.ratio * K)
        return SplineCode(K, N, *self._code_options)

    def _rounded(self, N: float) -> int:
        """The nearest multiple, at least one."""
        return int(self._multiple * max(1, round(N / self._multiple)))

    # -- the two contexts --------------------------------------------------------------------------

    @contextmanager
    def observe(self, discrepancy: str | Discrepancy | None = None) -> Iterator[None]:
        """A context in which each coded block also runs on coded samples, and its penalty is stored.

        Outputs are bit-identical to those outside. (A block with dropout also draws masks for its coded pass, so later
        draws differ, unless ``share_dropout`` is set.) Each context starts from zero. If the penalties of several calls
        should add up, such as D(real) and D(fake), put the calls into one context. In steps that ``every`` skips,
        nothing happens. ``discrepancy`` replaces the one of the constructor, for example if it needs the targets.
        The first context in which some of the blocks ran warns if others didn't.
        """
        with self._entered("observe"):
            self._penalties = {}
            if not self.due:
                yield
                return
            measure = self.discrepancy if discrepancy is None else discrepancy_of(discrepancy)
            hooks = Observing(self._coding(), measure, self.share_dropout, self._penalties)
            try:
                with hooks.installed(self.blocks):
                    yield
            except BaseException:
                self._penalties = None  # an incomplete measurement can't be used
                raise
            if len(hooks.grad_modes) > 1:
                warnings.warn(
                    "a pass without gradients (torch.no_grad) is in the penalty, too: it changes the value and trains "
                    "nothing. Evaluate outside observe().",
                    stacklevel=3,
                )
            self._warn_of_missing(hooks, "observe()")

    @contextmanager
    def substitute(self, generator: torch.Generator | None = None) -> Iterator[None]:
        """A context in which each coded block returns its decoded output, with a new random permutation in each call.

        Args:
            generator: a CPU generator for the permutations; default: the global one.
        """
        hooks = Substituting(self._coding(), generator)
        with self._entered("substitute"), hooks.installed(self.blocks):
            yield
        if not hooks.ran:  # nothing was coded, and the outputs don't show it
            raise nothing_ran(self._model, self.blocks, "substitute()")
        self._warn_of_missing(hooks, "substitute()")

    # -- results -----------------------------------------------------------------------------------

    @property
    def penalties(self) -> dict[str, Tensor]:
        """For each block, the sum over its calls in the last :meth:`observe` (scalars, unweighted)."""
        if self._penalties is None:
            raise BlockError("no penalty was measured: run the model inside `with coded.observe():` first.")
        return dict(self._penalties)

    @property
    def unweighted(self) -> Tensor:  # ()
        """The sum of :attr:`penalties`, without weight; 0 in steps that ``every`` skips."""
        terms = list(self.penalties.values())
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def penalty(self) -> Tensor:  # ()
        """``weight`` times ``every`` times the sum of :attr:`penalties`; 0 in steps that ``every`` skips.

        Raises:
            BlockError: if no coded block ran inside the last :meth:`observe`.
        """
        if self.penalties:
            total = self.unweighted
            return total * self._schedules.factor(total)
        if not self.due:
            parameters = (p for block in self.blocks.values() for p in block.parameters())
            return torch.zeros((), device=next(parameters, torch.zeros(())).device)
        raise nothing_ran(self._model, self.blocks, "observe()")

    def share(self, penalty: Tensor, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:  # ()
        """The penalty's share of the gradient: its norm over that of the loss, on the parameters that both touch.

        It needs two more backwards; call it every some steps, before the backward of the step. If the weight is a
        :class:`HeldShare`, this adjusts it. With ``every`` above 1 it is the share on average over steps.

        Args:
            penalty: what is added to the loss: :meth:`penalty`, times mu where the objective has one.
            loss: the rest of the objective.
            parameters: those that are trained.

        Raises:
            CodeError: for a loss without a graph, or without parameters to train.
        """
        if self.held:
            return self.held.follow(penalty, loss, parameters)
        norms = gradient_norms(penalty, loss, trained(parameters))
        return share_of(torch.stack([norms[0] / self.every, norms[1]]))

    def detach(self) -> None:
        """Release the blocks, so that they can be coded again. The model is exactly as it was."""
        self.refuse_inside("detach()")
        release(self.blocks)
        self.blocks, self._model = {}, None

    def be_replaced(self) -> None:
        """Detach, because a new CodedSmoothing takes some of the blocks (``replace=True``)."""
        self.detach()
        self._gone = "of an object that was replaced: a new one has its blocks (replace=True). Use the new one."

    def refuse_inside(self, action: str) -> None:
        """Raise an error inside :meth:`observe` or :meth:`substitute`.

        Raises:
            BlockError: with what can't be done there.
        """
        if self._inside:
            raise BlockError(f"{action} inside {self._inside[0]}(): leave the context first.")

    def diagnose(
        self,
        call: Callable[[], Any] | None = None,
        task_loss: TaskLoss | None = None,
        *,
        mu: float | None = None,
        weight: float | None = None,
        earlier: Diagnosis | None = None,
    ) -> Diagnosis:
        """Measure what coding does on one batch, and report signs of failure.

        ::

            print(coded.diagnose(lambda: model(x), lambda logits: F.cross_entropy(logits, y), mu=0.5))

        The report shows how strong the penalty is: its gradient as a share of the task loss's, and the weights that
        would make it 1, 5 and 10 %. The parameters' ``grad`` isn't touched. On exit the buffers and attributes of the
        model's modules and torch's random state are restored. (Not restored: other networks that ``call`` runs, and
        in-place changes to objects other than buffers.)

        Args:
            call: a function that runs the model once on a training batch, as in training. It is called twice. If
                ``task_loss`` is a function, it is called a few times more, and twice for each block.
            task_loss: a function from the result of ``call`` to the loss; or the loss, a tensor with its graph, such as
                a critic's with its gradient penalty. A number shows no share of the gradient.
            mu: the objective is (1 - mu) task loss + mu weight penalty; without mu, task loss + weight penalty.
            weight: of the penalty; default: :attr:`weight`. ``every`` doesn't change it on average.
            earlier: an earlier report of the same model, to detect outputs that shrink.

        Raises:
            BlockError: if no coded block ran, after :meth:`detach`, or inside another context.
            CodeError: for an invalid ``call``, ``task_loss`` or ``mu``.
            BatchError: for a batch that can't be coded.
        """
        with self._entered("diagnose"):
            assert self._model is not None
            # Before its first measurement a held weight is a guess: the one that it jumps to is diagnosed.
            held = self.held.share if weight is None and self.held is not None and not self.held.count else None
            weight = self.weight if weight is None else weight
            hooks = Diagnosing(self._coding(), self.discrepancy, self.share_dropout)
            draws_before = self._drawn
            try:
                return diagnose(self._model, self.blocks, hooks, call, task_loss, weight, mu, earlier, held)
            finally:
                self._drawn = draws_before

    def __repr__(self) -> str:
        nodes, spline, decoder, _ = self._code_options
        names = ", ".join(repr(name) for name in self.blocks) or "detached"
        code = f"ratio={self._ratio}, nodes={nodes}, spline={spline}, decoder={decoder}"
        return f"CodedSmoothing({names}; weight={self._weight}, {code})"

    @contextmanager
    def _entered(self, context: str) -> Iterator[None]:
        if self._model is None:
            raise BlockError(f"{context}() {self._gone}")
        if self._inside and is_inside(self._inside[1]):
            raise BlockError(f"{context}() inside {self._inside[0]}(): leave the first context before the second.")
        if self._inside:
            raise BlockError(
                f"{context}() while another thread or task is inside {self._inside[0]}() of this CodedSmoothing: use a "
                "lock, or give each of them a copy of the model and a CodedSmoothing of its own."
            )
        self._inside = (context, object())
        try:
            with entered(self._inside[1]):
                yield
        finally:
            self._inside = None

    def _warn_of_missing(self, hooks: Hooks, context: str) -> None:
        """Warn of blocks that the first context left out. Not in later ones: a block may run in some calls only."""
        missing = {name: block for name, block in self.blocks.items() if name not in hooks.ran}
        if hooks.ran and missing and not self._has_run:
            warnings.warn(some_did_not_run(self._model, missing, context), stacklevel=4)
        self._has_run |= bool(hooks.ran)

    def _coding(self) -> Coding:
        # A new one for each context. Stored, it would be a reference cycle, and blocks would stay attached to an object
        # that nobody uses any more.
        settings = (self._user_roles, self._discrete, self.batch_norm, self._parameters, self._histories)
        return Coding(self._next_code, self._axes, *settings)

    def _next_code(self, K: int) -> SplineCode:
        """The code of the next call: that of :meth:`code`, with newly drawn nodes if they are ``random``."""
        code = self.code(K)
        if code.nodes != "random":
            return code
        self._drawn += 1
        return replace(code, seed=derive_seed(self.seed, "nodes", *(self._schedules.step or ()), self._drawn))
