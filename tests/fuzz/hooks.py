"""Tells schemathesis which refusals no schema can foresee: most depend on what is in the tables.

All of its checks are on. It counts what is dropped here, and says how many.
"""

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import (
    EnsureResourceAvailability,
    MissingHeaders,
    RejectedPositiveData,
    UndefinedStatusCode,
    UseAfterFree,
)

NAME_ALONE = [{"pointer": "#/name", "detail": "needs department_id"}]


@schemathesis.hook
def filter_failure(
    _context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case,
    response: schemathesis.Response,
) -> bool:
    """Return False where this is no failure."""
    path, status = case.operation.path, response.status_code
    if status == 431 and not isinstance(failure, UndefinedStatusCode | MissingHeaders):
        # A request is refused here by its size alone, whether its data is good or bad.
        return False
    if status == 501 and b"This method is not known here." in response.content:
        # 501 is right for a method that RFC 9110 does not have.
        return False
    if isinstance(failure, RejectedPositiveData):
        if has_float([case.path_parameters, case.query, case.body]):
            # For a schema 7.0 is an integer, but the service has only one way to write one.
            return False
        if case.method == "POST":
            # The key has duplicates, and handling is strict: 412.
            return status != 412 and not (status == 422 and no_such_department(response))
        if status == 422 and path == "/employees":
            # The answer to HEAD has no body that could tell which 422 it is.
            return bool(response.content) and response.json()["errors"] != NAME_ALONE
        # A question's file says which values it takes, and the document cannot.
        return not (path.startswith("/inspect/{name}") and status == 422)
    if isinstance(failure, EnsureResourceAvailability):
        # A new employee may be gone because its department was deleted.
        return path != "/employees/{id}"
    if isinstance(failure, UseAfterFree):
        # What went into a row is told even when that row itself has been deleted.
        return not path.endswith("/merged")
    return True


def has_float(value: object) -> bool:
    """Return whether there is a float in a value, or in what it holds."""
    if isinstance(value, dict):
        return has_float([*value.values()])
    if isinstance(value, list):
        return any(map(has_float, value))
    return isinstance(value, float)


def no_such_department(response: schemathesis.Response) -> bool:
    """Return whether the only fault of the body, or of its items, is a parent that is not there."""
    return all(
        error["pointer"].endswith("/department_id") and error["detail"] == "does not exist"
        for error in response.json()["errors"]
    )
