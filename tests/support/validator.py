"""The path of openapi-spec-validator, which `make fuzz` installs apart from the tests."""

from tests.support.service import ROOT

VALIDATOR = ROOT / "tests" / "fuzz" / ".venv" / "bin" / "openapi-spec-validator"
