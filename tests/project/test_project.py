"""Edits of a project: what they change, and that they change nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from engine.shots import disc, plate, soft_key, write
from project.test_file import PATH, TEXT
from rotomem.errors import InputError, MaskError, ProjectError, UsageError
from rotomem.io.masks import MaskSpec, load_keys
from rotomem.io.plate import open_plate
from rotomem.project.project import Project


@pytest.fixture
def project() -> Project:
    return Project(PATH, TEXT, saved=False)


def changed(project: Project) -> tuple[list[str], list[str]]:
    """Lines that came and lines that went."""
    before, after = TEXT.splitlines(), project.text.splitlines()
    return [x for x in after if x not in before], [x for x in before if x not in after]


def test_key_when_added_replaced_and_removed_then_no_other_line_changes(project):
    project.add_key("hero", 1050, "/shots/sh010/roto/hero.1050.exr")
    project.add_key("hero", 1001, "/elsewhere/far/away/a.exr:hero.A")
    assert changed(project) == (
        ['1001 = "/elsewhere/far/away/a.exr:hero.A"', '1050 = "roto/hero.1050.exr"'],
        ['1001 = "roto/hero.1001.exr"'],
    )
    project.remove_key("hero", 1050)
    assert list(project.file.object("hero").keys) == [1001, 1090]
    with pytest.raises(UsageError, match="it has keys on 1001, 1090"):
        project.remove_key("hero", 1050)
    with pytest.raises(UsageError, match="the only key"):
        project.remove_key("tree", 1001)
    with pytest.raises(UsageError, match="say it of 'hero', 'tree'"):
        project.add_key("all", 1050, "x.exr")
    with pytest.raises(UsageError, match="the objects are: hero, car door / é, tree, all"):
        project.add_key("her", 1050, "x.exr")


def test_object_when_added_then_it_has_a_number_nobody_had_and_a_group_of_its_own(project):
    assert project.add_object("bird", {1010: "/shots/sh010/roto/bird.exr"}, colour="#00ff00") == 9
    assert project.file.groups[9] not in {project.file.groups[i] for i in (1, 2, 7)}
    assert project.text.startswith(TEXT) and '1010 = "roto/bird.exr"' in project.text
    project.remove_object("bird")
    assert project.file.next_id == 10
    text = project.text
    for wrong in ({}, None):
        with pytest.raises(UsageError, match="has no key"):
            project.add_object("bird", wrong)
    with pytest.raises(ProjectError, match="two objects are called 'hero'"):
        project.add_object("hero", {1010: "x.exr"})
    assert project.text == text  # a refused edit leaves no trace


def test_object_when_removed_then_it_stays_silent_where_its_group_needs_it_and_goes_elsewhere(project):
    project.split_object("all")
    project.add_object("car door / é")  # it was silent
    assert set(project.file.delivered) == {1, 2, 7}
    project.remove_object("hero")
    assert set(project.file.delivered) == {2, 7} and not project.file.object("hero").deliver
    project.remove_object("tree")
    assert [o.id for o in project.file.objects] == [1, 2]
    project.remove_object("car door / é")  # nobody is left whom hero could disturb
    assert project.file.objects == () and project.file.next_id == 9
    assert project.text.startswith(TEXT[: TEXT.index("frozen")])


def test_object_when_renamed_then_only_its_name_changes(project):
    project.rename_object("hero", "lead")
    assert changed(project) == (['name = "lead"'], ['name = "hero"'])
    with pytest.raises(ProjectError, match="two objects are called 'tree'"):
        project.rename_object("lead", "tree")


def test_object_when_merged_then_the_parts_stay_tracked_and_splitting_brings_them_back(project):
    project.add_object("bird", {1010: "b.exr"})
    number = project.merge_objects(["all", "bird"], "bird")
    assert project.file.delivered == {number: ("bird", (1, 7, 9))}
    assert [o.name for o in project.file.tracked] == ["hero", "car door / é", "tree", "bird part"]
    with pytest.raises(UsageError, match="split 'bird' first"):
        project.remove_object("tree")
    with pytest.raises(UsageError, match="two or more"):
        project.merge_objects(["bird", "bird"], "x")
    assert project.split_object("bird") == ("hero", "tree", "bird")
    assert set(project.file.delivered) == {1, 7, 9} and project.file.next_id == number + 1


def test_object_when_merged_one_is_removed_then_its_parts_go_too(project):
    project.remove_object("all")
    assert project.file.objects == ()  # the silent one of their group was there for them only


def test_absence_and_settings_when_set_then_they_can_be_taken_back(project):
    project.set_absent("tree", "1010-1012")
    project.set_absent("hero", None)
    project.set("size", 720)
    assert project.file.object("tree").absent == (1010, 1011, 1012) and project.file.object("hero").absent == ()
    assert project.file.options().size == 720
    project.set("size", None)
    assert project.file.options().size == 480
    for wrong in (("sise", 3), ("resume", True), ("size", "big")):
        with pytest.raises(InputError):
            project.set(*wrong)


def test_project_when_saved_then_it_is_whole_and_another_edit_meanwhile_is_not_lost(tmp_path):
    pattern = plate(tmp_path / "plates", range(1001, 1004))
    key = soft_key(tmp_path / "roto", 1001)
    project = Project.create(tmp_path, pattern, [key], tmp_path / "mattes", settings={"size": 48})
    project.save()
    other = Project.open(tmp_path)
    assert other.text == project.text and other.file == project.file
    assert other.file.object("hero").keys == {1001: "roto/hero.1001.exr"} and other.file.settings == {"size": 48}
    other.rename_object("hero", "lead")
    other.save()
    project.rename_object("hero", "villain")
    with pytest.raises(ProjectError, match="changed by someone else"):
        project.save()
    assert Project.open(tmp_path).file.object("lead")
    with pytest.raises(InputError, match="two masks show 'hero'"):
        Project.create(tmp_path / "b", pattern, [key, key], tmp_path / "mattes")
    with pytest.raises(MaskError, match="not one of the plate's frames"):
        Project.create(tmp_path / "b", pattern, [key.replace("@1001", "@1009")], tmp_path / "mattes")
    assert not (tmp_path / "b").exists()


def test_create_when_a_picture_shows_several_objects_then_each_has_its_own_key(tmp_path):
    pattern = plate(tmp_path / "plates", range(1001, 1003))
    colours = np.zeros((48, 72, 3), np.uint8)
    colours[disc(0) > 0.5] = (255, 0, 0)
    colours[disc(0, x=50, y=14, r=6) > 0.5] = (0, 255, 0)
    drawn = write(tmp_path / "colours.png", colours)
    index = (colours[..., :1] > 0) * np.uint8(1) + (colours[..., 1:2] > 0) * np.uint8(2)
    labels = write(tmp_path / "labels.png", index.astype(np.uint8))
    mattes = [disc(0), disc(0, x=50, y=14, r=6)]
    layers = write(tmp_path / "layers.exr", np.stack(mattes, -1).astype(np.float16), channels=("hero.A", "car.A"))
    project = Project.create(tmp_path, pattern, [f"1001={drawn}", f"1002={labels}"], tmp_path / "m")
    keys = {o.name: list(o.keys.values()) for o in project.file.objects}
    assert keys == {
        "#00ff00": ["colours.png:#00ff00"],
        "#ff0000": ["colours.png:#ff0000"],
        "obj1": ["labels.png:1"],
        "obj2": ["labels.png:2"],
    }
    assert project.file.object("#ff0000").colour == "#ff0000" and len(set(project.file.groups.values())) == 1
    with open_plate(pattern) as opened:
        loaded = load_keys(project.file.masks(), opened.info)
        by_name = {v: k for k, v in loaded.objects.names.items()}
        for name, frame, value in (("#00ff00", 1001, 2), ("obj2", 1002, 2), ("obj1", 1002, 1)):
            key = loaded.by_frame[frame]
            np.testing.assert_array_equal(key.alpha[key.objects.index(by_name[name])], index[..., 0] == value)
        layered = Project.create(tmp_path, pattern, [f"1001={layers}"], tmp_path / "m")
        layered.rename_object("hero", "lead")  # the layer keeps its name
        loaded = load_keys(layered.file.masks(), opened.info)
        key = loaded.by_frame[1001]
        lead = next(i for i, n in loaded.objects.names.items() if n == "lead")
        np.testing.assert_array_equal(key.alpha[key.objects.index(lead)], mattes[0].astype(np.float16))
        with pytest.raises(MaskError, match="holds no label 5"):
            load_keys([*project.file.masks()[:1], MaskSpec(1002, str(labels), "x", "5")], opened.info)
