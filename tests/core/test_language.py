"""The environment chooses the language of messages, and each is translated by its template."""

from __future__ import annotations

import pytest

from estiba.core.language import Catalogue, catalogue, entries, preferred, read_po, translated

PO = r"""
msgid ""
msgstr "Language: es\n"

#: a.py
msgid "There is no {name}."
msgstr "No existe {name}."

#: a.py
msgid ""
"The image of {service} ended:\n"
"{log}"
msgstr ""
"La imagen de {service} terminó:\n"
"{log}"

msgid "There is no service {name} in {folder}."
msgstr ""

#, fuzzy
msgid "Say \"yes\"."
msgstr "Diga algo."

msgid "; did you mean {suggestion}?"
msgstr "; ¿quería decir {suggestion}?"

msgid "its port is taken by {program}"
msgstr "{program} tiene su puerto"

msgid "{name} cannot run: {reason}"
msgstr "No se puede ejecutar {name}: {reason}"

#~ msgid "Gone."
#~ msgstr "Ya no."
"""


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "es_MX.UTF-8"}, "es"),
        ({"LANG": "es_ES@euro"}, "es"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "ca:es:en"}, "es"),
        ({"LANG": "es_MX.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "en_US.UTF-8", "LC_ALL": "es_CO.UTF-8"}, "es"),
        ({"LC_ALL": "C", "LANGUAGE": "es"}, "en"),
        ({"LC_ALL": "C.UTF-8", "LANG": "es_MX.UTF-8"}, "en"),
        ({"LANG": "es_MX.UTF-8", "LC_ALL": ""}, "es"),
        ({"LANG": "es_MX.UTF-8", "ESTIBA_LANG": "en"}, "en"),
        ({"LC_ALL": "C", "ESTIBA_LANG": "es"}, "es"),
        ({"LC_ALL": "C", "ESTIBA_LANG": "xx"}, "en"),
    ],
)
def test_the_environment_chooses_the_language(environment: dict[str, str], language: str) -> None:
    assert preferred(environment) == language


def test_a_message_is_translated_with_its_values() -> None:
    spanish = Catalogue(read_po(PO))
    assert spanish.translate("There is no model.toml.") == "No existe model.toml."
    assert spanish.translate("The image of web ended:\nline 1\nline 2") == "La imagen de web terminó:\nline 1\nline 2"
    assert spanish.translate("There is no servce; did you mean 'service'?") == (
        "No existe servce; ¿quería decir 'service'?"
    )
    assert spanish.translate("web cannot run: its port is taken by nginx") == (
        "No se puede ejecutar web: nginx tiene su puerto"
    )
    assert spanish.translate("estiba.toml: There is no db.") == "estiba.toml: No existe db."


def test_a_message_without_a_translation_stays_english() -> None:
    spanish = Catalogue(read_po(PO))
    for message in ('Say "yes".', "There is no service db in shop.", "Gone.", "Something else: entirely.", ""):
        assert spanish.translate(message) == message


def test_the_catalogue_of_estiba_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTIBA_LANG", "es")
    assert translated("There is no service 'wbe'; did you mean 'web'?") == (
        "No existe el servicio 'wbe'; ¿quería decir 'web'?"
    )
    # The template of the whole message behind its place wins over a general one, "{path} is not {value}."
    assert translated("/p/estiba.toml: state.url: 'x' is not the URL of a state store.") == (
        "/p/estiba.toml: state.url: 'x' no es la URL de un almacén de estado."
    )
    monkeypatch.setenv("ESTIBA_LANG", "en")
    assert translated("There is no service 'wbe'.") == "There is no service 'wbe'."
    assert len(catalogue("es").messages) > 1000


def test_entries_are_unescaped_and_obsolete_ones_left_out() -> None:
    found = {entry.msgid: (entry.msgstr, entry.fuzzy) for entry in entries(PO) if entry.msgid}
    assert found['Say "yes".'] == ("Diga algo.", True)
    assert found["The image of {service} ended:\n{log}"] == ("La imagen de {service} terminó:\n{log}", False)
    assert "Gone." not in found
