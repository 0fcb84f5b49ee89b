"""A deployed model answers over the Open Inference Protocol."""

from tests.serving.running import Server, request


def test_a_deployed_model_answers(server: Server) -> None:
    found = server.infer(request(explain=True))
    assert found.status == 200, found.body
    print(found.document)
