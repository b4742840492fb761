"""The daemon's page with 300 devices, 10,000 tasks and a graph of 500 nodes: what is slow, measured in a real browser.

``pytest -s`` prints the figures of docs/performance.md. The limits are wide, because the machine may be busy.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="the page's tests have a session of their own")

from playwright.sync_api import Page, expect

from tests.daemon.support.page import open_page, take_screenshot
from tests.daemon.support.page_browser import World, open_world
from tests.daemon.support.page_graphs import ask, edge, node, node_box, submit_graph

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Browser

pytestmark = [pytest.mark.page, pytest.mark.slow]

DEVICES = [f"device-{number:03}" for number in range(300)]
LAYERS, IN_LAYER = 20, 25
# Notes when pieces of the stream of events arrive.
WATCH_ARRIVALS = """() => {
    const read = ReadableStreamDefaultReader.prototype.read;
    ReadableStreamDefaultReader.prototype.read = async function () {
        const piece = await read.call(this);
        window.arrived = performance.now();
        return piece;
    };
}"""
# Cancels a node, and returns the milliseconds until the picture shows it: since the request, and since the event arrived.
CANCEL = """async ([graph, node]) => {
    const box = [...document.querySelectorAll('#picture .node')].find((box) => box.getAttribute('aria-label').startsWith(`${node}:`));
    const changed = new Promise((done) => {
        const observer = new MutationObserver(() => {
            if (!box.classList.contains('cancelled')) return;
            observer.disconnect();
            requestAnimationFrame(() => done([performance.now(), window.arrived]));
        });
        observer.observe(box, { attributes: true });
    });
    const start = performance.now();
    await fetch(`graphs/${graph}/nodes/${node}/cancel`, { method: 'POST' });
    const [shown, arrived] = await changed;
    return [shown - start, shown - arrived];
}"""
# Moves and scales the picture with each frame for some seconds; returns the milliseconds of each frame.
MOVE = """async ([seconds, what, changes]) => {
    const svg = document.querySelector('#picture');
    const box = svg.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const point = (kind, dx, dy) => svg.dispatchEvent(
        new PointerEvent(kind, { clientX: x + dx, clientY: y + dy, pointerId: 1, bubbles: true })
    );
    const wheel = (deltaY) => svg.dispatchEvent(
        new WheelEvent('wheel', { deltaY, ctrlKey: true, clientX: x, clientY: y, cancelable: true })
    );
    let changer = null;
    if (changes) {
        const module = (name) => import(new URL(`page/${name}.js`, document.baseURI));
        const [graph, tasks] = [await module('graph'), await module('tasks')];
        const whole = await (await fetch(`graphs/${location.hash.split('/')[2]}`)).json();
        let at = 0;
        changer = setInterval(() => {
            const node = whole.graph.nodes[at++ % whole.graph.nodes.length].id;
            const wants = { device: null, os: null, capabilities: [] };
            const task = { id: `task-${node}`, graph: whole.id, node, state: at % 2 ? 'running' : 'queued', device: 'device-001', wants };
            Object.assign(task, { request: node, created: new Date().toISOString(), started: null, ended: null, error: null });
            graph.applyTask(task);
            tasks.applyEvent(task);
        }, 1000 / changes);
    }
    svg.setPointerCapture = () => {};
    if (what === 'pan') point('pointerdown', 0, 0);
    const frames = [];
    let last = await new Promise(requestAnimationFrame);
    const end = last + seconds * 1000;
    for (let frame = 1; last < end; frame += 1) {
        if (what === 'pan') point('pointermove', 120 * Math.sin(frame / 20), 80 * Math.cos(frame / 20));
        if (what === 'zoom') wheel(25 * Math.sin(frame / 15));
        const now = await new Promise(requestAnimationFrame);
        frames.push(now - last);
        last = now;
    }
    if (what === 'pan') point('pointerup', 0, 0);
    clearInterval(changer);
    return frames;
}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A world with 300 devices and 10,000 ended tasks."""
    with open_world(tmp_path_factory.mktemp("world"), DEVICES, ended=10_000) as world:
        yield world


def _submit_layers(world: World, request: str) -> str:
    """Submit a graph of 500 nodes in 20 layers, each with two nodes before it, of which every tenth edge is a long one."""

    def name(layer: int, row: int) -> str:
        return f"n{layer}-{row % IN_LAYER}"

    places = [(layer, row) for layer in range(LAYERS) for row in range(IN_LAYER)]
    nodes = [
        node(name(layer, row), request, device=DEVICES[(layer * IN_LAYER + row) % len(DEVICES)])
        for layer, row in places
    ]
    edges = [edge(name(layer - 1, row), name(layer, row)) for layer, row in places if layer]
    edges += [edge(name(layer - 1, row + 1), name(layer, row), "end") for layer, row in places if layer and row % 3]
    edges += [edge(name(layer - 4, row + 7), name(layer, row)) for layer, row in places if layer > 3 and row % 10 == 0]
    return submit_graph(world, nodes, edges, name="Five hundred nodes")


def _say(text: str) -> None:
    print(text)  # noqa: T201  # figures for the documentation


def _report(what: str, frames: Sequence[float]) -> float:
    """Print the frame times, and return the 95th percentile."""
    late = statistics.quantiles(frames, n=20)[-1]
    _say(
        f"{what}: median {statistics.median(frames):.1f} ms, 95 % {late:.1f} ms, longest {max(frames):.1f} ms, {len(frames)} frames"
    )
    return late


def _first_paint(page: Page) -> float:
    paint: float = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return paint


def test_graph_of_500_nodes_stays_smooth_with_300_devices_and_10_000_tasks(browser: Browser, world: World) -> None:
    graph = _submit_layers(world, "hold")
    for page in open_page(browser, "about:blank"):
        expect(page.locator("body")).to_be_attached()
        begun = time.monotonic()
        page.goto(f"{world.url}/#/graphs/{graph}")
        expect(page.locator("#picture .node")).to_have_count(LAYERS * IN_LAYER)
        drawn = 1000 * (time.monotonic() - begun)
        _say(f"\nfirst paint {_first_paint(page):.0f} ms, the graph drawn {drawn:.0f} ms")
        expect(page.locator("#live-words")).to_have_text("Live")
        expect(page.locator("#picture .node.running")).to_have_count(IN_LAYER)
        take_screenshot(page, "graph-500")
        page.evaluate(WATCH_ARRIVALS)
        # Stops at its device, and its successors are skipped.
        delays: list[list[float]] = [page.evaluate(CANCEL, [graph, f"n0-{row}"]) for row in range(10)]
        whole, inside = zip(*delays, strict=True)
        _say(
            f"cancelled: picture {statistics.median(whole):.0f} ms after the request, {statistics.median(inside):.0f} ms after the event"
        )
        late = [
            _report("nothing moves", page.evaluate(MOVE, [2, None, 0])),
            _report("panned", page.evaluate(MOVE, [3, "pan", 0])),
            _report("zoomed", page.evaluate(MOVE, [3, "zoom", 0])),
            _report("100 changes/s", page.evaluate(MOVE, [3, None, 100])),
            _report("100 changes/s, panned", page.evaluate(MOVE, [3, "pan", 100])),
        ]
        assert max(late) < 1000
    ask(world, "DELETE", f"/graphs/{graph}")


def test_run_of_500_nodes_is_followed_to_its_end(browser: Browser, world: World) -> None:
    graph = _submit_layers(world, "echo")
    for page in open_page(browser, f"{world.url}/#/graphs/{graph}"):
        expect(page.locator("#picture .node")).to_have_count(LAYERS * IN_LAYER)
        begun = time.monotonic()
        frames = page.evaluate(MOVE, [4, "pan", 0])
        _report("a real run, panned", frames)
        expect(page.locator("#graph-state-now")).to_have_text("completed")
        expect(page.locator("#picture .node.completed")).to_have_count(LAYERS * IN_LAYER)
        _say(f"completed after {time.monotonic() - begun:.1f} s")
        expect(node_box(page, "n19-24")).to_contain_text("completed · device-199")


@pytest.mark.parametrize("nodes", [1_000, 2_000])
def test_large_graph_is_drawn_on_request_in_seconds(browser: Browser, world: World, nodes: int) -> None:
    every = [node(f"n{number}", "hold", device=DEVICES[0]) for number in range(nodes)]
    edges = [edge(f"n{number // 3}", f"n{number}") for number in range(1, nodes)]
    graph = submit_graph(world, every, edges)
    for page in open_page(browser, f"{world.url}/#/graphs/{graph}"):
        expect(page.locator("#graph-body")).to_be_visible()
        expect(page.locator("#live-words")).to_have_text("Live")
        begun = time.monotonic()
        if nodes > 1_000:
            page.get_by_role("button", name="Draw it").click()
        expect(page.locator("#picture .node")).to_have_count(nodes)
        _say(f"\n{nodes:,} nodes: drawn after {1000 * (time.monotonic() - begun):.0f} ms")
        assert _report(f"{nodes:,} nodes, panned", page.evaluate(MOVE, [3, "pan", 0])) < 1000
        _report(f"{nodes:,} nodes, zoomed", page.evaluate(MOVE, [3, "zoom", 0]))
        _report(f"{nodes:,} nodes, 100 changes/s", page.evaluate(MOVE, [3, None, 100]))
    ask(world, "DELETE", f"/graphs/{graph}")
