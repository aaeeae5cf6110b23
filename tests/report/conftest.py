import importlib.util
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cupel.report.html import render


def _load_sample():
    spec = importlib.util.spec_from_file_location("report_sample", Path(__file__).with_name("sample.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.sample


class Tags(HTMLParser):
    """All start tags with attributes, the text of each element kind, and whether every element is closed in order."""

    VOID = frozenset(["meta", "br", "link", "img", "hr", "input", "base"])

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open, self.faults, self.declaration = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_decl(self, decl):
        self.declaration.append(decl)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append((tag, "attribute twice"))
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, "closed out of order"))

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def text(self):
        return "".join(data for path, data in self.texts if "style" not in path)


@pytest.fixture(scope="session")
def make_report():
    return _load_sample()


@pytest.fixture
def report(make_report):
    return make_report()


@pytest.fixture(scope="session")
def page(make_report):
    return render(make_report())


@pytest.fixture(scope="session")
def parse():
    return Tags
