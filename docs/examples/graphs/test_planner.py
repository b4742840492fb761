import pytest
from planner import make_planner

from galaxy_trio import open_constellation
from galaxy_trio.graph import Graph, Node, open_graph

ADD_MAIL = '{"nodes": [{"id": "mail", "request": "mail it"}], "edges": [{"source": "fetch", "target": "mail"}]}'


@pytest.mark.devices("laptop")
async def test_refused_answer_goes_back_to_the_model_with_the_reason(memory_fleet, autojump_clock):
    answers = ['{"remove": ["fetch"]}', ADD_MAIL, "{}"]
    prompts = []

    async def ask(prompt):
        prompts.append(prompt)
        return answers[len(prompts) - 1]

    async with open_constellation(memory_fleet.configs, connect=memory_fleet.connect) as constellation:
        async with open_graph(constellation, Graph([Node("fetch", "fetch it")]), planner=make_planner(ask)) as run:
            results = (await run.wait()).unwrap()
    assert list(results) == ["fetch", "mail"]
    assert "node 'fetch' is completed" in prompts[1]
