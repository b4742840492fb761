"""Where the daemon's page places the nodes of a graph, and how long it takes, in a real browser without a daemon's graph."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import open_page
from tests.daemon.support.page_browser import World, open_world

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

WIDTH, HEIGHT = 184, 46
PLACE = """async ([count, edges, isVertical]) => {
    const { place } = await import(new URL('page/graph_layout.js', document.baseURI));
    const start = performance.now();
    const placed = place(count, edges, { isVertical });
    return { ...placed, took: performance.now() - start };
}"""
Edges = list[tuple[int, int]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world without a connected device."""
    with open_world(tmp_path_factory.mktemp("world"), [], missing=["laptop"]) as world:
        yield world


@pytest.fixture
def page(browser: Browser, world: World) -> Generator[Page]:
    for page in open_page(browser, world.url):
        expect(page.locator("#live-words")).to_have_text("Live")
        yield page


def _place(page: Page, count: int, edges: Edges, *, is_vertical: bool = False) -> dict[str, Any]:
    placed: dict[str, Any] = page.evaluate(PLACE, [count, edges, is_vertical])
    return placed


def _check_no_overlap(places: Sequence[dict[str, float]]) -> None:
    by_x = sorted(places, key=lambda place: (place["x"], place["y"]))
    for index, one in enumerate(by_x):
        for other in by_x[index + 1 :]:
            if other["x"] - one["x"] >= WIDTH:
                break
            assert abs(other["y"] - one["y"]) >= HEIGHT, (one, other)


SHAPES: dict[str, tuple[int, Edges]] = {
    "none": (0, []),
    "one": (1, []),
    "alone": (30, []),
    "chain": (30, [(node, node + 1) for node in range(29)]),
    "diamond": (4, [(0, 1), (0, 2), (1, 3), (2, 3)]),
    "fan": (60, [*((0, node) for node in range(1, 59)), *((node, 59) for node in range(1, 59))]),
    "skips": (20, [*((node, node + 1) for node in range(18)), *((0, node) for node in range(2, 19))]),
    "wide": (302, [*((0, node) for node in range(1, 301)), *((node, 301) for node in range(1, 301))]),
    "twice": (2, [(0, 1), (0, 1)]),
    "random": (200, [(node * 7 % target, target) for target in range(1, 200) for node in (target, target + 3)]),
}


@pytest.mark.parametrize("is_vertical", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_nodes_do_not_overlap_and_edges_lead_forward_from_layer_to_layer(
    page: Page, shape: str, is_vertical: bool
) -> None:
    count, edges = SHAPES[shape]
    placed = _place(page, count, edges, is_vertical=is_vertical)
    assert len(placed["places"]) == count
    _check_no_overlap(placed["places"])
    for source, target in edges:
        assert placed["places"][source]["layer"] < placed["places"][target]["layer"]
    for place in placed["places"]:
        assert -0.01 <= place["x"] <= placed["width"] - WIDTH + 0.01
        assert -0.01 <= place["y"] <= placed["height"] - HEIGHT + 0.01
    assert sorted(node for layer in placed["layers"] for node in layer) == list(range(count))
    along = 1 if is_vertical else 0
    for route in placed["routes"]:
        places = [point[along] for point in route]
        assert places == sorted(places)


def test_long_edge_passes_between_the_nodes_of_the_layers_between(page: Page) -> None:
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (1, 4)]
    placed = _place(page, 5, edges)
    for route in placed["routes"]:
        for (x, y), (to_x, _) in pairwise(route):
            # Straight parts are within a layer.
            inside = [place for place in placed["places"] if place["x"] == x and to_x == x + WIDTH]
            for place in inside:
                assert not place["y"] < y < place["y"] + HEIGHT


def test_wide_layer_is_folded_so_that_the_picture_is_about_as_wide_as_high(page: Page) -> None:
    placed = _place(page, *SHAPES["wide"])
    assert 0.5 < placed["width"] / placed["height"] < 4
    # Their edges share lanes.
    assert len({str(route) for route in placed["routes"]}) == 600
    assert len({str(point) for route in placed["routes"] for point in route}) < 1_500


def test_layers_are_ordered_so_that_edges_that_need_not_cross_do_not(page: Page) -> None:
    # Two layers of 20 that are connected in reverse, then in order again.
    edges = [*((node, 39 - node) for node in range(20)), *((39 - node, 40 + node) for node in range(20))]
    places = _place(page, 60, edges)["places"]
    for one in range(20):
        for other in range(one + 1, 20):
            first, second = (places[one]["y"] < places[other]["y"]), (places[39 - one]["y"] < places[39 - other]["y"])
            assert first == second


@pytest.mark.parametrize(
    ("count", "edges"),
    [
        (2_000, [(node % target, target) for target in range(1, 2_000) for node in range(target, target + 5)]),
        (10_000, [(node, node + 1) for node in range(9_999)]),
        # So many lanes that long edges have none.
        (10_000, [(0, node) for node in range(1, 10_000)]),
        (5_000, [*((node, node + 1) for node in range(4_999)), *((0, node) for node in range(2, 5_000))]),
    ],
)
def test_largest_graphs_are_placed_in_seconds(page: Page, count: int, edges: Edges) -> None:
    placed = page.evaluate(PLACE.replace("...placed", "width: placed.width"), [count, edges[:10_000], False])
    assert placed["took"] < 20_000
    assert placed["width"] > WIDTH
