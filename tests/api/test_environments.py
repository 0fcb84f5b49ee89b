"""What a step may ask for as its environment: one version each, in one form, refused with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from api.environments import canonical, digest, environment_faults, lines, versions

HASH = "--hash=sha256:" + "0" * 64
GOOD = ["a==1", "A.b_c[x,y] == 1.0.0rc1", "a===2024.1", "a==1!2.0+cpu", "a==1; python_version < '3.13'", f"a==1 {HASH}"]
BAD = [
    ("pandas", "UNPINNED_REQUIREMENT", "such as pandas==1.2.3"),
    ("pandas>=2", "UNPINNED_REQUIREMENT", "must name one version"),
    ("pandas~=2.0", "UNPINNED_REQUIREMENT", "must name one version"),
    ("pandas==2.*", "UNPINNED_REQUIREMENT", "must name one version"),
    ("pandas==2,<3", "UNPINNED_REQUIREMENT", "must name one version"),
    ("pandas; python_version<'3'", "UNPINNED_REQUIREMENT", "must name one version"),
    ("--index-url https://user:canary@x/", "BAD_REQUIREMENT", "is an option of pip"),
    ("-r other.txt", "BAD_REQUIREMENT", "is an option of pip"),
    ("x @ file:///tmp/x.whl", "BAD_REQUIREMENT", "names a file or an address"),
    ("git+https://host/x", "BAD_REQUIREMENT", "names a file or an address"),
    ("./x", "BAD_REQUIREMENT", "names a file or an address"),
    ("a==1\n--index-url=http://x", "UNPINNED_REQUIREMENT", "must name one version"),
    ("a==1 --index-url=http://x", "UNPINNED_REQUIREMENT", "must name one version"),
    ("", "BAD_REQUIREMENT", "must be a list of requirements"),
    ("a==" + "1" * 2000, "BAD_REQUIREMENT", "at most 1000 characters"),
    (1, "BAD_REQUIREMENT", "must be a text"),
]


def of(*requirements: Any) -> dict[str, Any]:
    return {"requirements": list(requirements)}


@pytest.mark.parametrize("text", GOOD)
def test_a_requirement_of_one_version_is_taken(text: str) -> None:
    assert not list(environment_faults(of(text)))
    assert not list(environment_faults(canonical(of(text))))


@pytest.mark.parametrize(("text", "reason", "told"), BAD)
def test_another_requirement_is_refused_with_the_way_out(text: Any, reason: str, told: str) -> None:
    (fault,) = environment_faults(of("b==1", text), "steps[3].environment")
    assert (fault.field, fault.reason) == ("steps[3].environment.requirements[1]", reason)
    assert told in fault.description


def test_a_package_that_is_named_twice_is_refused() -> None:
    (fault,) = environment_faults(of("Scikit_learn==1", "b==2", "scikit-learn==2"))
    assert (fault.field, fault.reason) == ("environment.requirements[2]", "BAD_REQUIREMENT")
    assert "requirements[0] does too" in fault.description


@pytest.mark.parametrize("found", [1, "x", [], ["a==1"], {}, of(), {"named": "../x"}, {"named": 1}, {"pip": ["a==1"]}])
def test_what_is_no_environment_is_refused(found: Any) -> None:
    (fault,) = environment_faults(found)
    assert fault.reason == "BAD_ENVIRONMENT"


def test_an_image_is_for_kubernetes_and_nothing_else_is() -> None:
    image = {"image": f"registry/train@sha256:{'0' * 64}"}
    assert not list(environment_faults(image, engine="kubernetes_job"))
    refused = [
        (image, "local", "environment", "ENVIRONMENT_NOT_SUPPORTED"),
        ({"image": "train:latest"}, "kubernetes_job", "environment.image", "IMAGE_NOT_PINNED"),
        (of("a==1"), "kubernetes_job", "environment", "ENVIRONMENT_NOT_SUPPORTED"),
        ({"named": "x"}, "kubernetes_job", "environment", "ENVIRONMENT_NOT_SUPPORTED"),
    ]
    for environment, engine, field, reason in refused:
        (fault,) = environment_faults(environment, engine=engine)
        assert (fault.field, fault.reason) == (field, reason)


def test_equal_environments_have_one_form_and_one_digest() -> None:
    one, other = of("B_b ==2", "a[y,X]==1;  python_version<'4'"), of("a[x,y]==1 ; python_version<'4'", "b.b==2")
    assert canonical(one) == canonical(other)
    assert digest(one) == digest(other) != digest(of("b-b==2"))
    assert digest(one, "3.11") != digest(one, "3.12")
    assert versions(one) == {"b-b": "2", "a": "1"}


def test_a_file_is_read_as_pip_reads_it() -> None:
    text = (
        "# made by pip-compile\na==1 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n\nb==2  # why\r\n-r more.txt\n"
    )
    assert lines(text) == ["a==1 --hash=sha256:ab --hash=sha256:cd", "b==2", "-r more.txt"]
