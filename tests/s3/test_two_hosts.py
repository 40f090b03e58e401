"""Two machines at once on one store: as if one had worked after the other."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.challenges import LABELS, challenge, kept_predictions, number_of, train
from support.contenders import write_store_manifest
from support.dicom_studies import (
    LABEL_HEADER,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.host import Host, Work, two_hosts
from support.s3_bucket import Bucket
from support.s3_runs import pointed_at

from csfd_core.registry import contest
from csfd_core.registry.champion import NAME, ChampionRegistry
from csfd_core.registry.history import Alias, ChangeKind, read_history
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

# Fifty were tried; CSFD_TEST_INTERLEAVINGS=50 does it again, in ten minutes.
INTERLEAVINGS = int(os.environ.get("CSFD_TEST_INTERLEAVINGS", "2"))
X, Y, A, B, GONE = (f"1.2.826.0.1.3680043.{number}" for number in range(21, 26))

Place = Callable[[Path, int], str]  # copies a store there, and tells where


@pytest.fixture(scope="module")
def base(
    start_mlflow: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Work]:
    """A store of two studies, a champion, and two others who want to be."""
    folder = tmp_path_factory.mktemp("base")
    source = folder / "source"
    for uid in (X, Y, A, B, GONE):
        write_study(source, uid)
    write_mask(source, neck_mask(), volume_affine_ras(), A)
    rows = [f"{uid},0,0,0,0,0,0,0,0\n" for uid in (X, Y, A, B, GONE)]
    (source / "train.csv").write_text("".join([LABEL_HEADER, *rows]))
    work = Work(
        store=str(folder / "store"),
        source=str(source),
        inbox=str(folder / "inbox"),
        uri=start_mlflow(folder),
        steps=[["convert", X], ["convert", Y]],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "_predict_anew", kept_predictions)
        work.do()
        write_store_manifest(work.stores, LABELS)
        for skill in (1.5, 1.0):
            train(work.stores, skill)
            challenge(ChampionRegistry(work.stores, work.uri))
        train(work.stores, 3.0)
        yield work


@pytest.fixture(scope="module")
def hosts(
    server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Host, Host]]:
    with (
        pointed_at(server_url),
        two_hosts(tmp_path_factory.mktemp("hosts")) as both,
    ):
        yield both


def works(base: Work, store: str, inbox: Path) -> tuple[Work, Work]:
    """What the two machines do: nothing of it depends on who is first, but who serves.

    Each corrects a study twice, and back to what it was. The study that one withdraws
    is taken up and corrected by the other.
    """
    here = replace(base, store=store, inbox=str(inbox), steps=[])
    one = [["convert", A], ["correct", X, "2026-01-05", "C2"], ["withdraw", GONE]]
    two = [["convert", B], ["correct", Y, "2026-01-05", "C4"], ["convert", GONE]]
    one += [["correct", X, "2026-01-06", ""], ["challenge"]]
    two += [["correct", GONE, "2026-01-06", "C1"], ["correct", Y, "2026-01-06", ""]]
    two += [["promote", "2"]]
    return replace(here, steps=one), replace(here, steps=two)


def facts(store: str) -> dict[str, object]:
    """What a store knows, and the content of its files but for what tells times."""
    root = Location(store)
    stores = Stores(root)
    timed = ("metadata/label_versions/", "metadata/studies", "withdrawn/", "models/")
    return {
        "table": stores.metadata.read_studies().to_json(),
        "versions": {
            uid: [version.labels for version in stores.label_history.versions(uid)]
            for uid in (X, Y, A, B, GONE)
        },
        "withdrawn": sorted(stores.withdrawn.study_uids()),
        "unfinished": sorted(stores.withdrawn.unfinished()),
        "files": {
            entry.path: root.read(entry.path)
            for entry in root.find()[0]
            if not entry.path.startswith(timed)
        },
        "turns": [e.path for e in root.find()[0] if e.path.endswith(".turn")],
    }


def require_in_order(registry: ChampionRegistry) -> None:
    """Every change follows upon the one before; who won has met the one it follows."""
    changes = read_history(registry.stores.root)
    champions = [change for change in changes if change.alias == Alias.CHAMPION]
    line = [(change.before, change.after) for change in champions]
    assert line in ([(None, 1), (1, 2), (2, 3)], [(None, 1), (1, 3), (3, 2)])
    assert number_of(registry, Alias.CHAMPION) == line[-1][1]
    assert number_of(registry, Alias.CHALLENGER) == 3
    assert [c.kind for c in changes].count(ChangeKind.BY_HAND) == 1
    assert ChangeKind.OUTSIDE not in {change.kind for change in changes}
    (won,) = [c for c in champions if c.kind is ChangeKind.DECISION and c.after == 3]
    assert won.decision is not None
    assert won.decision.champion == f"version {won.before} (basic_cnn)"
    assert registry.settle() == []


def interleave(
    base: Work, hosts: tuple[Host, Host], place: Place, tmp_path: Path, count: int
) -> None:
    client = MlflowClient(base.uri, base.uri)
    expected = place(tmp_path / "expected", -1)
    inbox = tmp_path / "inbox"
    for work in works(base, expected, inbox):
        work.do()
    serial = facts(expected)
    assert serial["withdrawn"] == [GONE]
    versions = serial["versions"]
    assert isinstance(versions, dict)
    assert [len(versions[uid]) for uid in (X, Y, A, B, GONE)] == [3, 3, 1, 1, 0]
    for number in range(count):
        client.set_registered_model_alias(NAME, Alias.CHAMPION, "1")
        client.set_registered_model_alias(NAME, Alias.CHALLENGER, "2")
        store = place(tmp_path / f"store {number}", number)
        inbox = tmp_path / f"inbox {number}"
        done = [
            work.swapped(2 * number + place_of)
            for place_of, work in enumerate(works(base, store, inbox))
        ]
        for host, work in zip(hosts, done, strict=True):
            host.begin(work)
        for host in hosts:
            host.finish()
        told = str([work.steps for work in done])
        assert facts(store) == serial, told
        require_in_order(ChampionRegistry(Stores(Location(store)), base.uri))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_lose_nothing_on_a_folder(
    base: Work, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    def place(folder: Path, _: int) -> str:
        shutil.copytree(base.store, folder)
        return str(folder)

    interleave(base, hosts, place, tmp_path, (INTERLEAVINGS + 1) // 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_lose_nothing_on_s3(
    base: Work, hosts: tuple[Host, Host], tmp_path: Path, bucket: Bucket
) -> None:
    def place(_: Path, number: int) -> str:
        bucket.upload(Path(base.store), f"store-{number}")
        return bucket.url(f"store-{number}")

    interleave(base, hosts, place, tmp_path, INTERLEAVINGS // 2)
