"""Five ways to use a durable agent. Needs: pip install 'durable_nb[pydantic-ai]' 'pydantic-ai-slim[openai]'

    OPENAI_API_KEY=… python agents.py

Kill it at any point and start it again: no model request and no tool call that finished is repeated.
"""

import asyncio

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from durable_nb import DurableAgent, TaskConfig, Workflow, constant, durable_pipeline, durable_tool

wf = Workflow("agents", db="agents.db")
# durable_nb retries: the provider's client would retry inside each attempt.
model = OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0)))

# 1. An agent in one line.
helper = DurableAgent(Agent(model, name="helper"), wf)

# 2. Retries and timeouts of its own.
patient = DurableAgent(
    Agent(model, name="patient"),
    wf,
    model_task_config=TaskConfig(retries=5, backoff=constant(0.1), timeout=60),
    tool_task_config=TaskConfig(retries=1),
)

# 3. A planner, parallel queries, a summary.
planner = DurableAgent(Agent(model, name="planner", output_type=list[str]), wf)
searcher = DurableAgent(Agent(model, name="searcher"), wf)
writer = DurableAgent(Agent(model, name="writer"), wf)


@wf.task
async def clean(text: str) -> str:
    return text.strip()


@durable_pipeline(wf, id="research-{topic}")
async def research(topic: str) -> str:
    plan = await planner.run(f"Three questions about {topic}")
    answers = await asyncio.gather(*(searcher.run(question) for question in plan.output))
    texts = [await clean(each.output, step_id=f"clean-{n}") for n, each in enumerate(answers)]
    return (await writer.run("Sum up: " + "; ".join(texts))).output


# 4. A draft that a user approves.
@durable_pipeline(wf, id="review-{document}")
async def review(document: str) -> str:
    draft = await writer.run(f"Draft {document}")
    approved = await writer.signal("publish")
    return draft.output if approved else "withdrawn"


# 5. Tools that are tasks.
@durable_tool(wf, retries=2)
async def weather(city: str) -> str:
    print("asking for the weather in", city)
    return f"{city}: sunny"


briefer = DurableAgent(Agent(model, name="briefer", tools=[weather]), wf)


async def main() -> None:
    print("helper:", (await helper.run("Say hello", run_id="hello")).output)
    print("patient:", (await patient.run("Be patient", run_id="patient")).output)
    print("research:", await research("rivers"))
    await wf.complete("review-report", "publish", True)  # from anywhere: a shell, a web page, a notebook
    print("review:", await review("report"))
    print("briefer:", (await briefer.run("Brief me on Rome", run_id="monday")).output)


if __name__ == "__main__":
    asyncio.run(main())
