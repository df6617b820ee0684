"""What pip was told, as uv hears it."""

import os
from pathlib import Path

import pytest

from runtimed.environments.pip_settings import uv_variables


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """The variables of a client whose machine has no configuration of pip that is this test's concern."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg"), "PIP_CONFIG_FILE": os.devnull}


def test_the_indexes_of_a_company_network_are_passed_on(nothing):
    assert uv_variables(nothing) == {}
    settings = {
        "PIP_INDEX_URL": "https://pypi.corp/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.corp/simple https://b.corp/simple",
        "PIP_FIND_LINKS": "/wheels\n/more",
        "PIP_TRUSTED_HOST": "pypi.corp a.corp",
        "PIP_CONSTRAINT": "/etc/constraints.txt",
        "PIP_CERT": "/etc/corp.pem",
        "PIP_PROXY": "http://proxy.corp:3128",
    }
    assert uv_variables({**nothing, **settings}) == {
        "UV_DEFAULT_INDEX": "https://pypi.corp/simple",
        "UV_EXTRA_INDEX_URL": "https://a.corp/simple https://b.corp/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "pypi.corp a.corp",
        "UV_CONSTRAINT": "/etc/constraints.txt",
        "SSL_CERT_FILE": "/etc/corp.pem",
        "ALL_PROXY": "http://proxy.corp:3128",
    }


def test_an_index_that_uv_has_of_its_own_is_left_alone(nothing, tmp_path):
    pip = {**nothing, "PIP_INDEX_URL": "https://pypi.corp/simple"}
    assert uv_variables({**pip, "UV_INDEX_URL": "https://other.corp/simple"}) == {}
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").touch()
    assert uv_variables(pip) == {}


def test_the_files_of_pip_count_as_they_do_for_pip(nothing, tmp_path):
    del nothing["PIP_CONFIG_FILE"]
    nothing["XDG_CONFIG_HOME"] = str(tmp_path / "user")
    (tmp_path / "xdg/pip").mkdir(parents=True)
    (tmp_path / "xdg/pip/pip.conf").write_text("[global]\nindex-url = https://machine/simple\nproxy = http://machine\n")
    user = tmp_path / "user/pip/pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[install]\nindex_url = https://install/simple\n[global]\nindex-url = https://user/simple\n")
    found = uv_variables(nothing)
    assert (found["UV_DEFAULT_INDEX"], found["ALL_PROXY"]) == ("https://install/simple", "http://machine")

    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    (tmp_path / "venv/pip.conf").write_text("[global]\nproxy = http://venv\n")
    assert uv_variables(nothing, str(python))["ALL_PROXY"] == "http://venv"

    user.write_text("no section\n")
    assert uv_variables(nothing)["UV_DEFAULT_INDEX"] == "https://machine/simple"
