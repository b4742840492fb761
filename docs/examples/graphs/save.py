from branch import PLAN

from galaxy_trio.graph import write_graph

write_graph("plan.json", PLAN)
