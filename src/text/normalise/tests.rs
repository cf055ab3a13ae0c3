use proptest::prelude::*;

use super::*;

fn message(role: &str, content: &str) -> RawMessage {
    RawMessage {
        role: role.into(),
        content: Some(content.into()),
        tool_calls: None,
        tool_call_id: None,
    }
}

fn calling(content: Option<&str>, tool_calls: Value) -> RawMessage {
    RawMessage {
        role: "assistant".into(),
        content: content.map(str::to_owned),
        tool_calls: Some(tool_calls),
        tool_call_id: None,
    }
}

fn answering(call: Option<&str>, content: Option<&str>) -> RawMessage {
    RawMessage {
        role: "tool".into(),
        content: content.map(str::to_owned),
        tool_calls: None,
        tool_call_id: call.map(str::to_owned),
    }
}

/// `s:`, `u:` or `a:` and the text of each turn.
fn turns(messages: &[RawMessage]) -> Vec<String> {
    let letter = |role| match role {
        Role::System => 's',
        Role::User => 'u',
        Role::Assistant => 'a',
    };
    normalise(messages)
        .unwrap()
        .iter()
        .map(|turn| format!("{}:{}", letter(turn.role), turn.text))
        .collect()
}

fn said_by(messages: &[(&str, &str)]) -> Vec<String> {
    turns(
        &messages
            .iter()
            .map(|(role, text)| message(role, text))
            .collect::<Vec<_>>(),
    )
}

fn refusal(messages: &[RawMessage]) -> (String, String) {
    let error = normalise(messages).unwrap_err();
    (error.param, error.message)
}

#[test]
fn a_well_formed_talk_stays_as_it_is() {
    let talk = [
        ("system", "S"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ];
    assert_eq!(said_by(&talk), ["s:S", "u:one", "a:two", "u:three"]);
}

#[test]
fn leading_systems_and_developers_become_one() {
    assert_eq!(
        said_by(&[
            ("system", "A"),
            ("developer", "B"),
            ("system", "C"),
            ("user", "u")
        ]),
        ["s:A\n\nB\n\nC", "u:u"]
    );
}

#[test]
fn a_late_system_goes_before_the_next_user_turn() {
    let talk = [
        ("user", "one"),
        ("assistant", "two"),
        ("system", "L1"),
        ("developer", "L2"),
        ("user", "three"),
    ];
    assert_eq!(said_by(&talk), ["u:one", "a:two", "u:L1\n\nL2\n\nthree"]);
    let waits = [
        ("user", "one"),
        ("system", "L"),
        ("assistant", "two"),
        ("user", "three"),
    ];
    assert_eq!(said_by(&waits), ["u:one", "a:two", "u:L\n\nthree"]);
}

#[test]
fn a_late_system_without_a_next_user_turn_closes_the_last_one() {
    assert_eq!(
        said_by(&[("user", "one"), ("system", "reminder")]),
        ["u:one\n\nreminder"]
    );
}

#[test]
fn a_late_system_after_the_assistant_is_a_user_turn_to_answer() {
    let talk = [("user", "one"), ("assistant", "two"), ("system", "sum up")];
    assert_eq!(said_by(&talk), ["u:one", "a:two", "u:sum up"]);
}

#[test]
fn neighbours_of_one_role_become_one_turn() {
    let talk = [
        ("user", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("assistant", "d"),
        ("user", "e"),
    ];
    assert_eq!(said_by(&talk), ["u:a\n\nb", "a:c\n\nd", "u:e"]);
}

#[test]
fn a_tool_answers_as_the_user_and_names_the_call() {
    let calls = json!([{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{\"b\": 2, \"a\": 1}"}}]);
    let talk = [
        message("user", "1 + 2?"),
        calling(None, calls),
        answering(Some("call_1"), Some("3")),
        answering(None, None),
        message("user", "thanks"),
    ];
    assert_eq!(
        turns(&talk),
        [
            "u:1 + 2?",
            r#"a:[{"id":"call_1","name":"add","arguments":{"a":1,"b":2}}]"#,
            "u:Result of tool call call_1:\n3\n\nResult of a tool call:\n\n\nthanks",
        ]
    );
}

#[test]
fn words_and_calls_of_one_message_are_both_kept() {
    let call = json!([{"function": {"arguments": "not json", "name": "f"}}]);
    let talk = [
        message("user", "u"),
        calling(Some("Let me look."), call),
        answering(Some("x"), Some("y")),
    ];
    assert_eq!(
        turns(&talk)[1],
        "a:Let me look.\n\n[{\"name\":\"f\",\"arguments\":\"not json\"}]"
    );
}

#[test]
fn the_order_of_a_calls_fields_does_not_matter() {
    let text = |call: &str| tool_calls(&serde_json::from_str(call).unwrap());
    let one = text(r#"[{"id":"1","function":{"name":"f","arguments":{"x":1,"y":{"b":2,"a":3}}}}]"#);
    let two = text(r#"[{"function":{"arguments":{"y":{"a":3,"b":2},"x":1},"name":"f"},"id":"1"}]"#);
    assert_eq!(one, two);
}

#[test]
fn calls_of_an_unknown_shape_are_kept_whole() {
    assert_eq!(
        tool_calls(&json!([{"b": 1, "a": [2]}])),
        r#"[{"a":[2],"b":1}]"#
    );
    assert_eq!(tool_calls(&json!({"b": 1, "a": 2})), r#"{"a":2,"b":1}"#);
}

#[test]
fn empty_turns_are_refused_by_name() {
    let empty = |role: &str, content: Option<&str>| RawMessage {
        content: content.map(str::to_owned),
        ..message(role, "")
    };
    for role in ["system", "developer", "user"] {
        for content in [None, Some("")] {
            let talk = [
                message("user", "hi"),
                empty(role, content),
                message("user", "hi"),
            ];
            assert_eq!(
                refusal(&talk).0,
                "messages[1].content",
                "{role} {content:?}"
            );
        }
    }
}

#[test]
fn an_empty_answer_that_a_client_echoes_adds_no_turn() {
    let silent = |content: Option<&str>, calls| RawMessage {
        content: content.map(str::to_owned),
        ..calling(None, calls)
    };
    for answer in [
        silent(Some(""), Value::Null),
        silent(None, Value::Null),
        silent(None, json!([])),
    ] {
        let talk = [message("user", "one"), answer, message("user", "two")];
        let turns = normalise(&talk).unwrap();
        let whole = Turn {
            role: Role::User,
            text: "one\n\ntwo".to_owned(),
        };
        assert_eq!(turns, [whole]);
    }
}

#[test]
fn white_space_is_text() {
    assert_eq!(said_by(&[("user", " ")]), ["u: "]);
}

#[test]
fn a_talk_needs_a_user_first_and_last() {
    assert_eq!(refusal(&[]).0, "messages");
    assert_eq!(refusal(&[message("system", "S")]).0, "messages");
    let (param, hint) = refusal(&[
        message("system", "S"),
        message("assistant", "a"),
        message("user", "u"),
    ]);
    assert_eq!(param, "messages[1].role");
    assert!(hint.contains("begin with a user message"), "{hint}");
    let (param, hint) = refusal(&[message("user", "u"), message("assistant", "a")]);
    assert_eq!(param, "messages[1].role");
    assert!(hint.contains("end with a user"), "{hint}");
}

#[test]
fn an_unknown_role_is_named_within_bounds() {
    let (param, hint) = refusal(&[message("user", "u"), message("critic", "no")]);
    assert_eq!(
        (param.as_str(), hint.contains("\"critic\"")),
        ("messages[1].role", true)
    );
    let (_, hint) = refusal(&[message(&"é\n".repeat(5000), "x")]);
    assert!(
        hint.len() < 250 && !hint.contains('\n') && hint.contains("15000 bytes"),
        "{hint}"
    );
}

proptest! {
    #[test]
    fn any_talk_comes_out_alternating_and_complete(
        roles in prop::collection::vec(prop::sample::select(vec!["system", "developer", "user", "assistant", "tool"]), 0..12),
    ) {
        let messages: Vec<RawMessage> =
            roles.iter().enumerate().map(|(index, role)| message(role, &format!("<text {index}>"))).collect();
        let spoken: Vec<&str> = roles.iter().filter(|role| !["system", "developer"].contains(role)).copied().collect();
        let fits = spoken.first().is_some_and(|role| *role != "assistant") && roles.last() != Some(&"assistant");
        let Ok(turns) = normalise(&messages) else {
            prop_assert!(!fits, "refused {roles:?}");
            return Ok(());
        };
        prop_assert!(fits, "accepted {roles:?}");

        let talk = if turns[0].role == Role::System { &turns[1..] } else { &turns[..] };
        for (index, turn) in talk.iter().enumerate() {
            prop_assert_eq!(turn.role, if index % 2 == 0 { Role::User } else { Role::Assistant });
        }
        prop_assert!(talk.len() % 2 == 1);
        prop_assert!(turns.iter().all(|turn| !turn.text.is_empty()));

        let all: String = turns.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>().join("\n\n");
        for message in &messages {
            let text = message.content.as_deref().unwrap();
            prop_assert_eq!(all.matches(text).count(), 1, "{} in {}", text, all);
        }
        let extra = all.len() - messages.iter().map(|message| message.content.as_ref().unwrap().len()).sum::<usize>();
        let tools = roles.iter().filter(|role| **role == "tool").count();
        prop_assert_eq!(extra, "\n\n".len() * (messages.len() - 1) + "Result of a tool call:\n".len() * tools);
    }
}
