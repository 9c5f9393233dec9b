"""`rotomem.toml`: what is read of it, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from rotomem.engine.options import TrackOptions
from rotomem.errors import InputError, MissingFrameError, ProjectError
from rotomem.project.file import WORDS, find_project, parse_project, read_project
from rotomem.project.project import Project

TEXT = """\
# hero and friends
plate = "plates/sh010.%04d.exr"  # graded
output = "mattes/"
frozen = "1020-1022"

[settings]
size = "full"
mem_every = "keys"

[[object]]
id = 1
name = "hero"
group = "actors"
absent = "1060-1062,1070"
[object.keys]
1090 = "roto/hero.1090.exr:hero.A"
1001 = "roto/hero.1001.exr"

[[object]]
id = 2
name = "car door / é"
group = "actors"
deliver = false
keys = { -5 = "/job/roto/car.exr", 1001 = "roto/labels.png:2" }

[[object]]
id = 7
name = "tree"
keys = { 1001 = "roto/tree.exr" }

[[object]]
id = 8
name = "all"
parts = [1, 7]
"""
PATH = Path("/shots/sh010/rotomem.toml")


def test_project_when_read_then_paths_are_of_its_folder_and_words_mean_none():
    file, _ = parse_project(TEXT, PATH)
    assert file.plate == "/shots/sh010/plates/sh010.%04d.exr" and file.output == "/shots/sh010/mattes/"
    assert file.cache == Path("/shots/sh010/.rotomem") and file.frozen == (1020, 1021, 1022)
    hero, car, _, whole = file.objects
    assert list(hero.keys) == [1001, 1090] and hero.absent == (1060, 1061, 1062, 1070)
    assert list(car.keys) == [-5, 1001] and not car.deliver and whole.parts == (1, 7)
    options = file.options()
    assert options.size is None and options.mem_every is None and options.exposure == 0
    paths = {(s.name, s.frame): (s.path, s.channel) for s in file.masks()}
    assert paths["hero", 1090] == ("/shots/sh010/roto/hero.1090.exr", "hero.A")
    assert paths["car door / é", 1001] == ("/shots/sh010/roto/labels.png", "2")
    assert paths["car door / é", -5] == ("/job/roto/car.exr", None)
    assert [o.name for o in file.tracked] == ["hero", "car door / é", "tree"]
    assert file.delivered == {8: ("all", (1, 7))}
    assert file.groups[1] == file.groups[2] != file.groups[7] and file.next_id == 9


def test_project_when_a_setting_may_be_none_and_is_not_by_default_then_a_word_says_so():
    may = {f.name for f in fields(TrackOptions) if "None" in str(f.type) and f.default is not None}
    assert may == set(WORDS)


def test_project_when_model_is_a_file_beside_it_then_the_file_is_meant(tmp_path):
    text = 'plate = "p.%04d.exr"\noutput = "m"\n[settings]\nmodel = "tuned.safetensors"\n'
    path = tmp_path / "rotomem.toml"
    assert parse_project(text, path)[0].options().model == "tuned.safetensors"
    (tmp_path / "tuned.safetensors").touch()
    assert parse_project(text, path)[0].options().model == str(tmp_path / "tuned.safetensors")


@pytest.mark.parametrize(
    ("was", "now", "line", "said"),
    [
        ("plate =", "plat =", 2, "'plat' is not known here"),
        ("output", "# output", None, "output is missing"),
        ('output = "mattes/"', "output = 3", 3, "output is 3"),
        ('"1020-1022"', '"1020-"', 4, "frozen: '1020-' is not a frame range"),
        ("size =", "sise =", 7, "is it size?"),
        ('size = "full"', 'size = "huge"', 7, 'give a whole number or "full"'),
        ('size = "full"', "size = true", 7, "size is True"),
        ("id = 7", "", 26, "object 'tree': has no id"),
        ("id = 7", "id = 2", 27, "object 'tree': id 2 is that of car door"),
        ("id = 7", "id = 0", 27, "object 'tree': has the id 0"),
        ('"tree"', '"hero"', 28, "two objects are called 'hero'"),
        ('"tree"', '" tree"', 28, "the name is ' tree'"),
        ("deliver = false", "deliver = 0", 23, "deliver is 0"),
        ("deliver = false", 'colour = "red"', 23, 'write it as "#rrggbb"'),
        ("1090 =", "last =", 16, "'last' is no frame"),
        ('1001 = "roto/hero.1001.exr"', "1001 = 5", 17, "the key of 1001 is 5"),
        ('1001 = "roto/hero.1001.exr"', '01090 = "a.exr"', 10, "two keys stand on one frame"),
        ('keys = { 1001 = "roto/tree.exr" }', "", 26, "object 'tree': has no key"),
        ("parts = [1, 7]", "parts = [1, 9]", 34, "there is no part 9"),
        ("parts = [1, 7]", "parts = [1, 1]", 34, "parts are ids, each once"),
        ("parts = [1, 7]", 'parts = [1, 7]\nabsent = "1001"', 34, "say it of its parts"),
        ("frozen =", "frozen = = ", 4, "the project is no TOML"),
        ('size = "full"', 'absent = "hero@1001"', 7, "say it of the object"),
        ('size = "full"', "resume = true", 7, "a project redoes exactly what is not current"),
        ('size = "full"', 'also = "crypt"', 7, "also is 'crypt'"),
        ('size = "full"', 'roi = "wide"', 7, "'wide' is no window"),
        ('size = "full"', 'frames = "a"', 7, "'a' is not a frame range"),
        ('"tree"', '"tr\\nee"', 28, "object 3: the name is 'tr\\nee'"),
        ('name = "tree"', 'name = "tree"\nkey = 1', 29, "'key' is not known here"),
    ],
)
def test_project_when_something_is_wrong_then_key_line_and_remedy_are_told(was, now, line, said):
    assert was in TEXT
    with pytest.raises(ProjectError) as caught:
        parse_project(TEXT.replace(was, now, 1), PATH)
    assert said in str(caught.value) and caught.value.remedy
    assert caught.value.context["path"] == PATH and caught.value.context.get("line") == line
    assert "\n" not in str(caught.value)


def test_project_when_it_is_no_text_then_that_is_told(tmp_path):
    (tmp_path / "rotomem.toml").write_bytes(b'plate = "\xff"')
    with pytest.raises(ProjectError, match="not UTF-8"):
        read_project(tmp_path / "rotomem.toml")


def test_project_when_an_editor_of_windows_wrote_it_then_it_is_read_and_edited_all_the_same(tmp_path):
    path = tmp_path / "rotomem.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    project = Project.open(path)
    assert project.file.object("hero").keys == parse_project(TEXT, path)[0].object("hero").keys
    project.rename_object("hero", "lead")
    project.save()
    assert path.read_bytes().decode().replace("\r\n", "\n") == TEXT.replace('"hero"', '"lead"')
    assert Project.open(path).file.object("lead").id == 1


def test_find_project_when_below_its_folder_then_it_is_found_and_elsewhere_it_is_not(tmp_path, monkeypatch):
    deep = tmp_path / "shot" / "roto"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with pytest.raises(MissingFrameError, match="rotomem new") as caught:
        find_project()
    assert caught.value.exit_code == 3
    path = tmp_path / "shot" / "rotomem.toml"
    path.touch()
    assert find_project() == find_project(path.parent) == find_project(path) == path
    with pytest.raises(InputError):
        find_project(deep)  # a folder that was named is not left
