"""Problems as exceptions. Catch `CounterfoilProblem` for all of them; each carries the problem as it was answered."""

from __future__ import annotations

from service.client.answers import Effect, Problem


class CounterfoilProblem(Exception):
    """The API answered with a problem; the message names the field and the fix."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem

    @property
    def code(self) -> str:
        """The machine word of the problem."""
        return self.problem.code


class Refused(CounterfoilProblem):
    """The request is wrong by itself; nothing was written."""


class BatchRefused(Refused):
    """An atomic batch has items that do not pass; `problem.errors` names them by index. Nothing was written."""


class Conflict(CounterfoilProblem):
    """It does not fit what is on the books: the key has another request, the charge another amount."""


class NotFound(CounterfoilProblem):
    """There is none of this id, or it is not yours."""


class NotAllowed(CounterfoilProblem):
    """No key, a wrong one, or one that lacks the scope."""


class Unavailable(CounterfoilProblem):
    """No answer in time, however often it was asked. An effect may or may not have been accepted: send the same again.

    `sent` is False when provably nothing has left this process.
    """

    def __init__(self, problem: Problem, *, sent: bool = True) -> None:
        super().__init__(problem)
        self.sent = sent


class StillOpen(TimeoutError):
    """The outcome is not there yet. The effect goes on by itself; wait again for the same id."""

    def __init__(self, effect: Effect) -> None:
        super().__init__(f"effect {effect.id} is {effect.state}; it goes on by itself")
        self.effect = effect


_BY_CODE = {
    "batch_refused": BatchRefused,
    "batch_conflict": BatchRefused,
}
_BY_STATUS = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 422: Conflict}


def of(problem: Problem) -> CounterfoilProblem:
    """The exception that a problem is."""
    if problem.status in (408, 429) or problem.status >= 500:
        return Unavailable(problem)
    return _BY_CODE.get(problem.code, _BY_STATUS.get(problem.status, Refused))(problem)
