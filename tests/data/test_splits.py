from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retigrade.data.groups import connected_components, find_conflicts, independent_groups
from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import (
    Splits,
    check_leaks,
    divide,
    find_leaks,
    hold_out,
    k_fold,
    narrow,
    read_splits,
    three_way,
    write_splits,
)
from retigrade.errors import DataError, LeakError, UsageError
from retigrade.icdr import Grade


def entry(
    index: int, *, grade: int = 0, patient: str | None = None, source: str = "s", sha256: str | None = None
) -> Entry:
    name = f"{source}/{index:05d}.png"
    return Entry(
        path=Path(name),
        name=name,
        grade=Grade(grade),
        patient=patient or name,
        eye=None,
        source=source,
        sha256=sha256 or f"{index:064x}",
        width=16,
        height=16,
    )


def manifest_of(grades: list[int]) -> Manifest:
    return Manifest(tuple(entry(index, grade=grade) for index, grade in enumerate(grades)))


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[Manifest, tuple[tuple[int, ...], ...]]:
    size = draw(st.integers(1, 40))
    entries = tuple(
        entry(
            index,
            grade=draw(st.integers(0, 4)),
            patient=draw(st.sampled_from([None, "p", "q", "r", "t"])),
            source=draw(st.sampled_from(["a", "b"])),
            sha256=draw(st.sampled_from([None, None, "f" * 64])),
        )
        for index in range(size)
    )
    links = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=20))
    return Manifest(entries), connected_components(links, size=size)


@settings(max_examples=150, deadline=None)
@given(data=data_sets(), folds=st.integers(2, 5), seed=st.integers(0, 99), fraction=st.floats(0.05, 0.95))
def test_no_manifest_can_yield_a_leaking_split(
    data: tuple[Manifest, tuple[tuple[int, ...], ...]], folds: int, seed: int, fraction: float
) -> None:
    manifest, groups = data
    for make in (
        lambda: k_fold(manifest, groups, folds=folds, seed=seed),
        lambda: hold_out(manifest, groups, fraction=fraction, seed=seed),
        lambda: three_way(manifest, groups, validation=0.2, test=0.2, seed=seed),
    ):
        try:
            splits = make()
        except LeakError:
            raise
        except DataError:
            continue
        parts = splits.parts()
        assert sorted(np.concatenate(list(parts.values()))) == list(range(len(manifest)))
        assert all(len(indices) for indices in parts.values())
        assert not list(find_leaks(parts, groups, manifest))
        units = independent_groups(manifest, groups)
        for unit in np.unique(units):
            assert len(np.unique(splits.part_of[units == unit])) == 1
        name = splits.names[0]
        assert sorted([*splits.part(name), *splits.rest(name)]) == list(range(len(manifest)))


def test_units_follow_chains_of_files_duplicates_and_patients() -> None:
    entries = [entry(0), entry(1, patient="p"), entry(2, patient="p"), entry(3), entry(4), entry(5, sha256=f"{4:064x}")]
    assert independent_groups(Manifest((*entries, entry(6))), ((0, 1), (3, 4))).tolist() == [0, 0, 0, 3, 3, 3, 6]


def test_folds_hold_their_share_of_every_grade_and_source() -> None:
    rng = np.random.default_rng(0)
    entries = tuple(
        entry(index, grade=int(rng.choice(5, p=[0.5, 0.1, 0.25, 0.05, 0.1])), source=str(rng.choice(["a", "b"])))
        for index in range(1000)
    )
    manifest = Manifest(entries)
    splits = k_fold(manifest, (), folds=5, seed=3)
    for source in "ab":
        for grade in range(5):
            chosen = (manifest.sources == source) & (manifest.grades == grade)
            counts = np.bincount(splits.part_of[chosen], minlength=5)
            assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(splits.part_of)) <= 2


def test_the_seed_decides_and_repeats() -> None:
    manifest = manifest_of([0, 1, 2, 3, 4] * 20)
    first, again, other = (hold_out(manifest, (), fraction=0.2, seed=seed) for seed in (1, 1, 2))
    assert first.part("test").tolist() == again.part("test").tolist()
    assert first.part("test").tolist() != other.part("test").tolist()
    assert len(first.part("test")) == 20


def test_three_parts_have_their_shares() -> None:
    parts = three_way(manifest_of([0, 1, 2, 3, 4] * 20), (), validation=0.1, test=0.2, seed=0).parts()
    assert {name: len(indices) for name, indices in parts.items()} == {"train": 70, "validation": 10, "test": 20}


def test_too_few_of_a_grade_names_the_grade() -> None:
    with pytest.raises(DataError, match=r"grade 3 \(severe\) has 2 photographs .* fewer than 3 folds"):
        k_fold(manifest_of([0] * 9 + [3] * 2), (), folds=3, seed=0)
    with pytest.raises(DataError, match=r"grade 1 .* 3 photographs of 2 independent"):
        k_fold(manifest_of([0] * 9 + [1] * 3), ((9, 10),), folds=3, seed=0)


def test_too_few_for_the_parts_is_refused() -> None:
    with pytest.raises(DataError, match="stays empty: 3 photographs of 1 independent"):
        hold_out(manifest_of([0, 0, 0]), ((0, 1, 2),), fraction=0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="positive share"):
        hold_out(manifest_of([0] * 9), (), fraction=fraction, seed=0)


def test_fewer_than_two_folds_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        k_fold(manifest_of([0] * 9), (), folds=1, seed=0)


def test_a_leak_names_one_photograph() -> None:
    manifest = Manifest((entry(0, patient="p"), entry(1, patient="p"), entry(2), entry(3, sha256=f"{2:064x}")))
    with pytest.raises(LeakError, match=r"s/00000\.png: the same photograph"):
        check_leaks({"train": [0, 1], "test": [0, 2]}, (), manifest)
    with pytest.raises(LeakError, match=r"s/00000\.png and s/00001\.png: the same patient"):
        check_leaks({"train": [0], "test": [1]}, (), manifest)
    with pytest.raises(LeakError, match=r"s/00000\.png and s/00002\.png: the same duplicate"):
        check_leaks({"train": [0, 1], "test": [2]}, ((0, 2),), manifest)
    with pytest.raises(LeakError, match=r"s/00002\.png and s/00003\.png: the same duplicate"):
        check_leaks({"train": [2], "test": [3]}, (), manifest)
    check_leaks({"train": [0, 1], "test": [2, 3]}, (), manifest)


def test_conflicts_are_the_groups_of_more_than_one_grade() -> None:
    assert find_conflicts(((0, 1), (2, 3)), manifest_of([0, 1, 2, 2])) == ((0, 1),)


def test_a_split_comes_back_from_its_file(tmp_path: Path) -> None:
    manifest = manifest_of([0, 1, 2, 3, 4] * 6)
    splits = k_fold(manifest, ((0, 7), (2, 3)), folds=3, seed=11)
    path = tmp_path / "new" / "splits.json"
    write_splits(splits, path, manifest)
    again = read_splits(path, manifest)
    assert (again.names, again.groups, again.seed) == (splits.names, splits.groups, 11)
    assert again.part_of.tolist() == splits.part_of.tolist()
    assert [item.name for item in path.parent.iterdir()] == ["splits.json"]


def test_a_split_of_another_data_set_is_refused(tmp_path: Path) -> None:
    manifest, other = manifest_of([0, 1] * 6), manifest_of([0, 1] * 5 + [1, 1])
    splits = k_fold(manifest, (), folds=2, seed=0)
    path = tmp_path / "splits.json"
    with pytest.raises(DataError, match="made for another data set"):
        write_splits(splits, path, other)
    write_splits(splits, path, manifest)
    with pytest.raises(DataError, match="made for another data set"):
        read_splits(path, other)


def test_an_altered_split_is_refused(tmp_path: Path) -> None:
    manifest = manifest_of([0, 1] * 6)
    path = tmp_path / "splits.json"
    write_splits(k_fold(manifest, (), folds=2, seed=0), path, manifest)
    content = json.loads(path.read_text())
    content["parts"]["fold1"].append(content["parts"]["fold2"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was altered"):
        read_splits(path, manifest)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "surplus": 2}', "no json"])
def test_what_is_no_split_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a split file"):
        read_splits(path, manifest_of([0, 1]))


def test_a_missing_split_file_and_an_unwritable_place_are_one_sentence(tmp_path: Path) -> None:
    manifest = manifest_of([0, 1] * 6)
    with pytest.raises(DataError, match="cannot be read"):
        read_splits(tmp_path / "absent.json", manifest)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write_splits(k_fold(manifest, (), folds=2, seed=0), tmp_path / "file" / "s.json", manifest)


def test_a_leak_found_on_return_is_an_error_unless_it_is_looked_for(tmp_path: Path) -> None:
    manifest = manifest_of([0, 1] * 6)
    path = tmp_path / "splits.json"
    write_splits(divide(manifest, (), shares={"a": 0.5, "b": 0.5}, seed=0), path, manifest)
    # The same photographs, now known to be of one patient; the fingerprint does not know patients.
    informed = Manifest(tuple(entry(i, grade=int(e.grade), patient="p") for i, e in enumerate(manifest.entries)))
    with pytest.raises(LeakError, match="the same patient"):
        read_splits(path, informed)
    assert list(find_leaks(read_splits(path, informed, allow_leaks=True).parts(), (), informed))


def test_a_data_set_that_has_grown_is_narrowed_to_what_an_older_split_lists(tmp_path: Path) -> None:
    grown = manifest_of([0, 1, 2] * 4)
    older = replace(grown, entries=grown.entries[:8])
    write_splits(hold_out(older, (), fraction=0.25, seed=0), tmp_path / "splits.json", older)
    narrowed = narrow(grown, tmp_path / "splits.json")
    assert narrowed.entries == older.entries
    assert narrowed.notes == ("4 photographs are not in the split splits.json and were left out",)
    assert narrow(older, tmp_path / "splits.json") is older


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the split has no part 'dev'; it has train, test"):
        Splits(("train", "test"), np.zeros(3, np.int64), (), "", 0).part("dev")
