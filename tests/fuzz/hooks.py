"""Refusals that no schema can foresee, most of them because they depend on what is in the tables.

All of schemathesis' checks are on. It counts what is dropped here, and says how many.
"""

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import (
    EnsureResourceAvailability,
    MissingHeaders,
    RejectedPositiveData,
    UndefinedStatusCode,
)

NAME_ALONE = [{"pointer": "#/name", "detail": "needs department_id"}]
NO_SUCH_DEPARTMENT = [{"pointer": "#/department_id", "detail": "does not exist"}]


@schemathesis.hook
def filter_failure(
    _context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case,
    response: schemathesis.Response,
) -> bool:
    """Return False for what is no failure."""
    path, status = case.operation.path, response.status_code
    if status == 431 and not isinstance(failure, UndefinedStatusCode | MissingHeaders):
        # A refusal by size alone, of good and of bad data: the checks know it as neither.
        return False
    if status == 501 and b"This method is not known here." in response.content:
        # A method that RFC 9110 does not have is not known here, and that is what 501 says.
        return False
    if isinstance(failure, RejectedPositiveData):
        texts = {**(case.path_parameters or {}), **(case.query or {})}
        if any(isinstance(value, float) for value in texts.values()):
            # 7.0 is an integer in JSON, but no text of one: a URL has one way to write an id.
            return False
        if case.method == "POST":
            missing = status == 422 and response.json()["errors"] == NO_SUCH_DEPARTMENT
            return not missing and status != 412  # duplicates, and handling=strict
        if status == 422 and path == "/employees":
            # The answer to HEAD has no body that could tell which 422 it is.
            return bool(response.content) and response.json()["errors"] != NAME_ALONE
        # What may be asked is in the question's file; no type says so.
        return not (path.startswith("/inspect/{name}") and status == 422)
    if isinstance(failure, EnsureResourceAvailability):
        # A new employee is gone when the caller then deleted its department.
        return path != "/employees/{id}"
    return True
