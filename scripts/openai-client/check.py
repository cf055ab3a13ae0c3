"""Asks a running Mixgate through the unmodified `openai` package and checks what a user would rely on.

    TOKEN=… EXPIRED=… API_KEY=… POOR=… python check.py http://127.0.0.1:8000

Of one caller a good token and one that has expired by now, an API key of `robot`, and a token of somebody with 60 tokens a
day. `run` makes them all.
"""

import asyncio
import os
import sys
import time

import openai

QUESTION = [{"role": "user", "content": "When do I sow carrots in a cold climate?"}]


def main(url: str) -> None:
    base, token = url + "/v1", os.environ["TOKEN"]
    client = openai.OpenAI(base_url=base, api_key=token, max_retries=0)

    models = [model.id for model in client.models.list()]
    assert models == ["seedling"], models
    assert client.models.retrieve("seedling").id == "seedling"

    whole = client.chat.completions.create(model="seedling", messages=QUESTION, temperature=0)
    answer = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant"
    assert "carrot" in answer.lower(), answer
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole._request_id

    pieces, finish, usage = [], None, None
    stream = client.chat.completions.create(
        model="seedling", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    assert "".join(pieces) == answer, (pieces, answer)
    assert len(pieces) > 5, "the answer did not arrive token by token"
    assert finish == "stop", finish
    counted = lambda usage: (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert counted(usage) == counted(whole.usage), (usage, whole.usage)
    # The same prompt again: its whole blocks of 16 tokens are in the cache, and never its last token.
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached == (usage.prompt_tokens - 1) // 16 * 16, (cached, usage.prompt_tokens)

    several = client.chat.completions.create(
        model="seedling", messages=QUESTION, n=3, seed=7, max_completion_tokens=12, temperature=0.8
    )
    again = client.chat.completions.create(
        model="seedling", messages=QUESTION, n=3, seed=7, max_completion_tokens=12, temperature=0.8
    )
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert [c.message.content for c in several.choices] == [c.message.content for c in again.choices]

    expect(openai.AuthenticationError, "invalid_token", lambda: ask(base, token[:-4] + "AAAA"))
    expect(openai.NotFoundError, "model_not_found", lambda: ask(base, token, model="gpt-4"))
    expect(openai.BadRequestError, "context_length_exceeded", lambda: ask(base, token, messages=[{"role": "user", "content": "carrot " * 9000}]))
    expect(openai.BadRequestError, None, lambda: ask(base, token, messages=[]))
    expect(openai.BadRequestError, None, lambda: ask(base, token, temperature=3.5))

    asyncio.run(concurrently(base, token, answer))
    usage_is_what_was_said(base, token, whole.usage)
    headers_say_what_is_left(base, token)
    an_api_key_is_as_good_as_a_token(base, os.environ["API_KEY"], answer)
    a_spent_budget_is_not_tried_again(base, os.environ["POOR"])
    an_expired_token_is_replaced(base, os.environ["EXPIRED"], token)
    print(f"openai {openai.__version__}: all well; {answer!r}")


def usage_is_what_was_said(base: str, token: str, said) -> None:
    """The administration API of the package, with the caller's own token: it sees what it has used itself."""
    client = openai.OpenAI(base_url=base, api_key=token, admin_api_key=token, max_retries=0)
    deadline = time.monotonic() + 10
    while True:
        page = client.admin.organization.usage.completions(
            start_time=int(time.time()) - 3600, bucket_width="1h", group_by=["user_id", "model"], models=["seedling"]
        )
        results = [result for bucket in page.data for result in bucket.results]
        if results or time.monotonic() > deadline:  # rows are written within a second
            break
    assert page.object == "page" and page.has_more is False and page.next_page is None, page
    assert {bucket.object for bucket in page.data} == {"bucket"}, page
    assert {(result.user_id, result.model) for result in results} == {("openai-client", "seedling")}, results
    assert sum(result.output_tokens for result in results) >= said.completion_tokens, results
    assert sum(result.num_model_requests for result in results) >= 1, results
    expect_bad = lambda: client.admin.organization.usage.completions(start_time=1, bucket_width="2d")
    expect(openai.BadRequestError, "invalid_value", expect_bad)


def headers_say_what_is_left(base: str, token: str) -> None:
    client = openai.OpenAI(base_url=base, api_key=token, max_retries=0)
    raw = client.chat.completions.with_raw_response.create(model="seedling", messages=QUESTION, max_completion_tokens=5)
    assert raw.parse().usage.completion_tokens <= 5
    number = lambda name: int(raw.headers[f"x-ratelimit-{name}"])
    assert (number("limit-requests"), number("limit-tokens")) == (120, 1_000_000), raw.headers
    # Two requests come back in each second, and this has taken less; tokens come back faster.
    assert 0 < number("remaining-requests") < 120 and 0 < number("remaining-tokens") <= 1_000_000, raw.headers
    assert {"x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"} <= set(raw.headers), raw.headers


def an_api_key_is_as_good_as_a_token(base: str, key: str, answer: str) -> None:
    assert key.startswith("mg_")
    assert ask(base, key, temperature=0).choices[0].message.content == answer
    expect(openai.AuthenticationError, "invalid_api_key", lambda: ask(base, key[:-4] + "AAAA"))
    no_scope = lambda: openai.OpenAI(base_url=base, api_key=key, admin_api_key=key, max_retries=0).admin.organization.usage
    expect(openai.PermissionDeniedError, "insufficient_scope", lambda: no_scope().completions(start_time=1))


def a_spent_budget_is_not_tried_again(base: str, token: str) -> None:
    answers = []
    http = openai.DefaultHttpxClient(event_hooks={"response": [answers.append]})
    client = openai.OpenAI(base_url=base, api_key=token, max_retries=5, http_client=http)
    for _ in range(10):
        sent = len(answers)
        try:
            client.chat.completions.create(model="seedling", messages=QUESTION)
        except openai.RateLimitError as error:
            assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota"), error.body
            assert len(answers) == sent + 1, "it was tried again"
            assert answers[-1].headers["x-should-retry"] == "false", answers[-1].headers
            return
    raise AssertionError("the budget was never spent")


def an_expired_token_is_replaced(base: str, expired: str, good: str) -> None:
    """A client whose key is a function asks it anew before each try: the first token is refused, the second serves."""
    answers, given = [], []
    deadline = time.monotonic() + 20
    while True:
        try:
            openai.OpenAI(base_url=base, api_key=expired, max_retries=0).models.list()
        except openai.AuthenticationError as error:
            assert error.code == "token_expired", error.body
            break
        assert time.monotonic() < deadline, "the token never expires"
        time.sleep(0.5)

    def key() -> str:
        given.append(good if given else expired)
        return given[-1]

    http = openai.DefaultHttpxClient(event_hooks={"response": [answers.append]})
    client = openai.OpenAI(base_url=base, api_key=key, max_retries=1, http_client=http)
    assert client.chat.completions.create(model="seedling", messages=QUESTION, max_completion_tokens=5).usage
    assert (given, [it.status_code for it in answers]) == ([expired, good], [401, 200]), answers
    assert answers[0].headers["x-should-retry"] == "true" and answers[0].headers["retry-after-ms"], answers[0].headers


def ask(base: str, token: str, **fields):
    client = openai.OpenAI(base_url=base, api_key=token, max_retries=0)
    return client.chat.completions.create(**({"model": "seedling", "messages": QUESTION} | fields))


def expect(error: type[openai.APIStatusError], code: str | None, call) -> None:
    try:
        call()
    except error as caught:
        assert code is None or caught.code == code, (caught.code, code)
        assert caught.message and caught.type and caught.request_id, caught
    else:
        raise AssertionError(f"expected {error.__name__}")


async def concurrently(base: str, token: str, answer: str) -> None:
    """Sixteen streams at once give the same greedy answer as one alone; a stream that is left early harms none."""
    async with openai.AsyncOpenAI(base_url=base, api_key=token, max_retries=0) as client:

        async def one(leave_early: bool) -> str:
            text = ""
            stream = await client.chat.completions.create(model="seedling", messages=QUESTION, temperature=0, stream=True)
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                if leave_early:
                    await stream.close()
                    break
            return text

        texts = await asyncio.gather(*(one(leave_early=i % 4 == 3) for i in range(16)))
        assert all(text == answer for i, text in enumerate(texts) if i % 4 != 3), texts


if __name__ == "__main__":
    main(*sys.argv[1:])
