"""The links of README, docs and the tests' READMEs lead somewhere; what they print is tested."""

import re

import pytest

from tests.support.documents import DOCUMENTS, fenced, links, sections, target, turns
from tests.support.service import ROOT

# For each section, the test of the sessions, the code and the files that it prints.
TESTED_BY = {
    "README.md#a-session": "test_readme.py::test_the_session_answers_as_printed",
    "README.md#your-own-table": "test_readme.py::test_a_table_of_ones_own_takes_five_lines",
    "docs/own-table.md#your-own-table": "test_readme.py::test_a_table_of_ones_own_takes_five_lines",
    "docs/own-table.md#loading-a-file": "test_load.py::test_a_file_is_loaded_as_printed",
    "docs/own-table.md#the-files": "test_readme.py::test_the_comment_lines_are_those_of_the_file",
    "docs/duplicates.md#the-session": "test_readme.py::test_the_road_goes_as_printed",
    "docs/duplicates.md#a-table-of-your-own": "test_readme.py::test_a_road_of_ones_own",
    "docs/from-get-or-create.md#the-helper-today": "test_from_get_or_create.py::test_helper_leaks",
    "docs/from-get-or-create.md#the-ten-lines": "test_from_get_or_create.py::test_ten_lines_hold",
    "docs/http.md#many-keys-in-one-request": "test_readme.py::test_lines_are_answered_as_printed",
    "docs/inside.md#what-a-post-sends": "test_readme.py::test_the_sql_is_that_of_the_files",
    "docs/inside.md#the-lookup-and-why-it-is-written-so": "test_readme.py::test_the_lock_is_a_page",
    "docs/inside.md#looking-inside": "test_readme.py::test_a_question_answers_as_printed",
    "docs/machines.md#a-pooler-in-between": "pgbouncer.py::pooling",
    "docs/machines.md#does-your-server-keep-the-guarantee": "test_prove.py::test_all_is_well",
    "docs/operating.md#install": "test_operating.py::test_it_is_installed_as_make_does",
    "docs/operating.md#a-systemd-unit": "test_operating.py::test_the_unit_starts_the_service",
    "docs/operating.md#a-container": "test_operating.py::test_the_image_has_what_serving_needs",
    "docs/operating.md#before-a-start": "test_check.py::test_all_fits_as_printed",
    "docs/operating.md#the-log": "test_log.py::test_a_request_is_an_object_as_printed",
    "docs/operating.md#roles": "test_operating.py::test_the_roles_are_made_as_printed",
    "docs/operating.md#alerts": "test_metrics.py::test_the_alerts_are_about_metrics_that_are_there",
    "docs/operating.md#deploys": "test_operating.py::test_haproxy_takes_the_file",
    "docs/operating.md#uninstall": "test_operating.py::test_what_is_left_is_the_tables",
    "tests/bench/README.md#the-benchmark": "test_readme.py::test_the_benchmark_takes_these_words",
}

# The targets that a document may print. CI runs each, or people do where it takes too long.
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_readme_is_one_sitting() -> None:
    assert len(DOCUMENTS["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(document: str) -> None:
    for link in links(DOCUMENTS[document]):
        if link.startswith(("http://", "https://")):
            continue
        path, anchor = target(document, link)
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert anchor in sections(path.read_text()), link


def test_readme_leads_to_every_other_document() -> None:
    found = {target("README.md", link)[0] for link in links(DOCUMENTS["README.md"])}
    assert {ROOT / name for name in DOCUMENTS} - {ROOT / "README.md"} <= found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_printed_is_tested(document: str) -> None:
    for anchor, text in sections(DOCUMENTS[document]).items():
        makes = [re.match(r"make ([a-z]+)", command) for command, _ in turns(text)]
        assert {made[1] for made in makes if made} <= set(TARGETS)
        languages = {language for language, _ in fenced(text)} - {""}
        if languages and not (languages == {"console"} and all(makes)):
            file, _, name = TESTED_BY[f"{document}#{anchor}"].partition("::")
            (path,) = (ROOT / "tests").glob(f"*/{file}")
            assert f"def {name}(" in path.read_text()


def test_nothing_is_tested_that_is_no_longer_printed() -> None:
    for place in TESTED_BY:
        document, _, anchor = place.partition("#")
        assert {language for language, _ in fenced(sections(DOCUMENTS[document])[anchor])} - {""}


def test_each_folder_of_tests_is_listed() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("*.py")
        if ".venv" not in path.parts and path.parent != ROOT / "tests"
    }
    listed = {link.partition("/")[0] for link in links(DOCUMENTS["tests/README.md"])}
    assert folders <= listed


def test_no_test_imports_from_another_test() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        if ".venv" not in path.parts:
            assert not re.search(r"^from tests\S*\.test_", path.read_text(), re.MULTILINE), path


def test_the_house_is_as_it_is_drawn() -> None:
    drawn = DOCUMENTS["docs/design.md"]
    for folder in ("db", "web"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "__init__.py":
                assert path.name in drawn, path
