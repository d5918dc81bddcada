"""The API does what its OpenAPI document says, whatever is sent: schemathesis, a real server.

Requests that the document allows, and ones that it does not. Half of the former are answerable ones
with a field or two of these, so that they get behind the first check.
"""

import time
from pathlib import Path
from typing import Any

import hypothesis
import openai
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.support.serving import accidents, film, serving
from tests.support.toys import toy_parts

EXAMPLES = 24  # of each operation and mode
ENDLESS = "/v1/notices"  # a stream without an end; test_serve.py reads it
ASK = {"role": "user", "content": [{"type": "text", "text": "What is it?"}]}
# hosts: no stream is started, and nothing is fetched
OPTIONS = ("seconds=30", "text=none", "hosts=[nowhere.invalid]", "whole_bank=true")
BRIEF = ("reader.max_new_tokens=4", "answer_tokens=8")


@pytest.mark.slow
def test_every_reply_is_one_that_the_document_describes(tmp_path: Path) -> None:
    import schemathesis

    with serving(tmp_path, *toy_parts(), *OPTIONS, *BRIEF) as (address, service):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        path = film(tmp_path / "a.mp4", "shape:red star@2", seconds=6)
        file_id = client.files.create(file=path, purpose="user_data").id
        while client.files.retrieve(file_id).status != "processed":
            time.sleep(0.05)
        ids = {"file_id": file_id, "video_id": service.files.get(file_id).video_id}
        (embedder,) = service.searching.embedders
        bodies = {
            "/v1/chat/completions": {"model": service.bank_model, "messages": [ASK]},
            "/v1/responses": {"model": service.bank_model, "input": "What is it?"},
            "/v1/embeddings": {"model": embedder, "input": "a star"},
            "/v1/search": {"query": "a star"},
        }
        document = schemathesis.openapi.from_url(f"{address}/openapi.json")
        seen = set[tuple[str, int]]()
        with accidents() as broken:
            for found in document.exclude(path=ENDLESS).get_all_operations():
                operation = found.ok()  # type: ignore[union-attr]  # raises on an invalid document
                seen |= probe(operation, bodies, ids)
        assert not broken
    labels = {label for label, _ in seen}
    assert len(labels) == sum(len(each) for each in document.raw_schema["paths"].values()) - 1
    answered = {label for label, status in seen if status < 300}
    assert {f"POST {path}" for path in bodies} <= answered


def probe(operation: Any, bodies: dict[str, Any], ids: dict[str, str]) -> set[tuple[str, int]]:
    """Send requests to an operation, and check the replies; (its name, status) of each. bodies:
    that are answered, by path. ids: of the film, by the name of their parameter."""
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    rules = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    seen = set()
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for mode in GenerationMode:

        @settings
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def send(case: Any, data: Any) -> None:
            if case.meta.generation.mode is GenerationMode.POSITIVE:
                plain = bodies.get(operation.path)
                if plain is not None and data.draw(st.booleans()):
                    names = st.sampled_from(["user", *sorted(case.body)])
                    more = data.draw(st.sets(names, max_size=2)) & {*case.body}
                    case.body = {name: case.body[name] for name in more} | plain
                for name, own in ids.items():
                    if name in case.path_parameters and operation.method.upper() != "DELETE":
                        both = st.sampled_from([own, case.path_parameters[name]])
                        case.path_parameters[name] = data.draw(both)
            reply = case.call()
            seen.add((operation.label, reply.status_code))
            case.validate_response(reply, checks=rules)

        try:
            send()
        except hypothesis.errors.Unsatisfiable:  # nothing that it does not allow can be sent
            assert mode is GenerationMode.NEGATIVE
    return seen
