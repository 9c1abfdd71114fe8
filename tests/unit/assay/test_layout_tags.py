"""The tags that pages are built with."""

from __future__ import annotations

import json
import re

import pytest
from django import forms
from django.template import Context, Template


def shown(source: str, **values: object) -> str:
    return re.sub(r">\s+<", "><", Template(source).render(Context(values)))


@pytest.mark.parametrize(
    "source",
    [
        '{% card x "id" %}{{ x }}{% endcard %}',
        '{% card "Title" x end=x %}{{ x }}{% endcard %}',
        "{% table x x %}{{ x }}{% endtable %}",
        '{% notice "warn" role=x %}{{ x }}{% endnotice %}',
        "{% capture as kept %}{{ x }}{% endcapture %}{{ kept }}",
        "{% fact x x %}",
    ],
)
def test_values_are_escaped_once(source: str) -> None:
    html = shown(source, x="<b>&")
    assert "<b>" not in html
    assert "&amp;lt;" not in html
    assert "&lt;b&gt;&amp;" in html


def test_a_card_is_labeled_by_its_title() -> None:
    html = shown('{% card "Last runs" "runs" end=0 %}<p>None</p>{% endcard %}')
    assert '<section class="card" aria-labelledby="runs">' in html
    assert '<h2 id="runs">Last runs</h2><span class="end">0</span>' in html
    assert "aria-labelledby" not in shown('{% card "Details" %}{% endcard %}')


def test_columns_of_numbers_and_of_buttons_have_headings_of_their_own() -> None:
    html = shown('{% table "jobs" "Job | # Rows | …" %}<tr></tr>{% endtable %}')
    assert 'aria-label="Table of jobs"' in html
    assert '<th scope="col">Job</th><th scope="col" class="num">Rows</th>' in html
    assert '<th scope="col"><span class="visually-hidden">Actions</span></th>' in html


def test_the_data_of_a_chart_stay_in_their_element_and_survive_htmx() -> None:
    spec = {"type": "line", "series": [{"name": "</div><script>&quot;", "data": [0.5]}]}
    html = shown('{% chart "loss" "Loss by step" spec %}', spec=spec)
    data = re.search(r'<div id="loss-data" hidden>(.*)</div>', html)
    assert data is not None
    assert not set("<>&") & set(data[1])
    assert json.loads(data[1]) == spec
    # htmx removes scripts from the parts that it loads.
    assert "<script" not in html


def test_the_fields_of_a_form_are_labeled() -> None:
    class Form(forms.Form):
        name = forms.CharField()
        secret = forms.CharField(widget=forms.HiddenInput)

    html = shown(
        '{% include "portal/parts/fields.html" with bounds=form.visible_fields %}', form=Form()
    )
    assert html.count("<label") == 1
    assert 'for="id_name"' in html
