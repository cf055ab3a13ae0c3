//! What is refused, in its whole words.

use super::*;

/// A rule with these lines, the first of which is line 3.
fn of_rule(lines: &str) -> String {
    complaint(&format!("[[rules]]\nname = \"it\"\n{lines}\n"))
}

#[test]
fn every_fault_is_told_with_its_line_from_top_to_bottom() {
    let text = "\
adresses = {}
[addresses]
allow = [\"10.0.0.1/8\"]
[[rules]]
name = \"one\"
max_tokes = 5
weight = 0
when = { tennant = \"a\", issuer = \"https://idp.example\" }
[[rules]]
name = \"one\"
tools = \"yes\"
limits = [{ per = \"team\", tokens_per_day = -1 }]
";
    assert_eq!(
        complaint(text),
        "1: unknown key `adresses`\n  hint: did you mean `addresses`?\n\
         3: `10.0.0.1/8` has bits beyond its prefix length\n  hint: write 10.0.0.0/8, or 10.0.0.1 alone\n\
         6: unknown key `max_tokes`\n  hint: did you mean `max_tokens`?\n\
         7: `weight` is 0, it must be 1 to 1000\n\
         8: unknown key `tennant`\n  hint: did you mean `tenant`?\n\
         8: the issuer `https://idp.example` is not configured\n  hint: did you mean `https://idp.example/`?\n\
         9: the rule of line 4 is called `one` too\n\
         11: `tools`: invalid type: string \"yes\", expected a boolean\n\
         12: `per`: invalid value: string \"team\", expected subject, tenant, client or claim:NAME\n\
         12: `tokens_per_day`: invalid value: integer `-1`, expected a whole number, \"unlimited\" or { claim = …, \
         at_most = …, otherwise = … }"
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    assert!(complaint("[[rules]]\nname = \n").starts_with("2: "));
    assert!(complaint("[[rules]]\nname = \"a\"\nname = \"b\"\n").starts_with("3: duplicate key"));
}

#[test]
fn a_policy_without_rules_is_refused() {
    for text in ["", "# nothing\n", "rules = []\n", "[addresses]\n"] {
        assert_eq!(
            complaint(text),
            "1: the policy has no rules, which would refuse everybody\n  \
             hint: to refuse everybody, say so: [[rules]] with a name and deny = true"
        );
    }
    assert!(Policy::parse("[[rules]]\nname = \"closed\"\ndeny = true\n", &vocabulary()).is_ok());
}

#[test]
fn a_rule_has_a_name_of_its_own() {
    let nameless = "1: the rule has no `name`\n  \
                    hint: explanations and logs call rules by name: name = \"…\"";
    assert_eq!(complaint("[[rules]]\nweight = 1\n"), nameless);
    let plain = "2: `name` is not 1 to 256 plain characters";
    assert_eq!(complaint("[[rules]]\nname = \"\"\n"), plain);
    assert_eq!(complaint("[[rules]]\nname = \"a\\nb\"\n"), plain);
    let twice = "[[rules]]\nname = \"a\"\nweight = 1\n[[rules]]\nname = \"a\"\ntools = true\n";
    assert_eq!(complaint(twice), "4: the rule of line 1 is called `a` too");
}

#[test]
fn numbers_outside_their_range_are_refused() {
    for (line, words) in [
        ("weight = 1001", "`weight` is 1001, it must be 1 to 1000"),
        (
            "max_tokens = 0",
            "`max_tokens` is 0, it must be 1 to 4294967295",
        ),
        (
            "max_context = 4294967296",
            "`max_context` is 4294967296, it must be 1 to 4294967295",
        ),
        (
            "max_request_seconds = 86401",
            "`max_request_seconds` is 86401, it must be 1 to 86400",
        ),
        (
            "limits = [{ tokens_per_day = 0 }]",
            "`tokens_per_day per subject` is 0, it must be 1 to 1000000000000000",
        ),
        (
            "limits = [{ per = \"tenant\", tokens_per_day = { claim = \"a\", at_most = 0, otherwise = 1 } }]",
            "`at_most` of `tokens_per_day per tenant` is 0, it must be 1 to 1000000000000000",
        ),
        (
            "limits = [{ tokens_per_day = { claim = \"a\", at_most = 5, otherwise = 6 } }]",
            "`otherwise` of `tokens_per_day per subject` is 6, more than `at_most`, 5: a token without the claim would \
             have more than any with it",
        ),
        (
            "max_n = -1",
            "`max_n`: invalid value: integer `-1`, expected a whole number or \"unlimited\"",
        ),
        (
            "max_n = 1.5",
            "`max_n`: invalid type: floating point `1.5`, expected a whole number or \"unlimited\"",
        ),
        (
            "max_n = \"unlimitted\"",
            "`max_n`: invalid value: string \"unlimitted\", expected a whole number or \"unlimited\"",
        ),
        (
            "limits = [{ tokens_per_day = { claim = \"a\", at_most = 5 } }]",
            "`tokens_per_day`: missing field `otherwise`",
        ),
    ] {
        assert_eq!(of_rule(line), format!("3: {words}"), "{line}");
    }
}

#[test]
fn words_that_are_none_are_refused() {
    for (line, words) in [
        (
            "priority = \"hihg\"",
            "unknown value `hihg`\n  hint: did you mean `high`?",
        ),
        (
            "when_short = \"cut\"",
            "unknown value `cut`\n  hint: known are clamp, refuse",
        ),
        (
            "on_expiry = \"end\"",
            "`on_expiry`: invalid value: string \"end\", expected \"finish\", \"cut\" or { grace = \"30s\" }",
        ),
        (
            "on_expiry = { grace = \"30\" }",
            "`on_expiry`: invalid value: string \"30\", expected a time such as 30s, 5m or 1h, at most a day",
        ),
        (
            "on_expiry = { grace = \"25h\" }",
            "`on_expiry`: invalid value: string \"25h\", expected a time such as 30s, 5m or 1h, at most a day",
        ),
        (
            "routes = [\"caht\"]",
            "unknown route `caht`\n  hint: did you mean `chat`?",
        ),
        (
            "routes = [\"embeddings\"]",
            "unknown route `embeddings`\n  hint: known are chat, metrics, models",
        ),
        (
            "denied_fields = [\"seeds\"]",
            "unknown field of a chat request `seeds`\n  hint: did you mean `seed`?",
        ),
        (
            "models = [\"\"]",
            "`models` has an entry that is not 1 to 256 plain characters",
        ),
        (
            "scopes = [\"a\\u0000\"]",
            "`scopes` has an entry that is not 1 to 256 plain characters",
        ),
        (
            "limits = [{ per = \"tenant\" }]",
            "the limit names no amount\n  hint: add an amount, such as tokens_per_minute = 60000",
        ),
        (
            "limits = [{ per = \"claim:/a//b\", tokens_per_day = 1 }]",
            "`/a//b` is no name of a claim\n  hint: write a name such as plan, or a path such as /realm_access/roles",
        ),
        (
            "limits = [{ tokens_per_day = 1 }, { tokens_per_day = 2 }]",
            "the rule states `tokens_per_day per subject` twice",
        ),
    ] {
        assert_eq!(of_rule(line), format!("3: {words}"), "{line}");
    }
}

#[test]
fn conditions_that_nobody_can_meet_are_refused() {
    for (condition, words) in [
        (
            "subject = \"\"",
            "`subject` is not 1 to 256 plain characters",
        ),
        (
            "tenant = []",
            "`tenant` is an empty list, which nobody meets\n  hint: leave the condition out to ask nothing",
        ),
        (
            "scope = \"admin*\"",
            "`scope` is `admin*`, which no token carries\n  \
             hint: subject, tenant and client may end in `*`, scopes may not",
        ),
        (
            "credential = \"apikey\"",
            "unknown credential `apikey`\n  hint: did you mean `api_key`?",
        ),
        (
            "issuer = \"mixgate:local\"",
            "the issuer `mixgate:local` is not configured\n  \
             hint: write it exactly as in [[auth.issuers]]; a trailing slash counts",
        ),
        (
            "addresses = \"lab\"",
            "`lab` is no network\n  hint: write it as 10.0.0.0/8, 2001:db8::/32 or 10.1.2.3",
        ),
        (
            "claims = { \"/a/\" = \"b\" }",
            "`/a/` is no name of a claim\n  hint: write a name such as plan, or a path such as /realm_access/roles",
        ),
        (
            "claims = { a = 5 }",
            "`a`: invalid type: integer `5`, expected a string or a list of strings",
        ),
    ] {
        let line = format!("when = {{ {condition} }}");
        assert_eq!(of_rule(&line), format!("3: {words}"), "{line}");
    }
}

#[test]
fn a_rule_or_right_that_can_never_count_is_refused() {
    let all = "[[rules]]\nname = \"all\"\nweight = 2\n";
    let acme =
        |right: &str| format!("[[rules]]\nname = \"acme\"\nwhen = {{ tenant = \"a\" }}\n{right}\n");
    assert_eq!(
        complaint(&format!("{all}{}", acme("weight = 3"))),
        "4: `weight` can never count: `all` above matches the same callers and states it\n  \
         hint: put the rule that matches fewer callers above the other"
    );
    assert_eq!(
        complaint(&format!("{all}{}", acme(""))),
        "4: the rule can never count: it states nothing, and `all` above lets the same callers in"
    );
    assert!(Policy::parse(&format!("{}{all}", acme("weight = 3")), &vocabulary()).is_ok());
    assert!(Policy::parse(&format!("{all}{}", acme("tools = false")), &vocabulary()).is_ok());
    let other = acme("weight = 4").replace("acme", "again");
    assert_eq!(
        complaint(&format!("{}{other}", acme("weight = 3"))),
        "5: `weight` can never count: `acme` above matches the same callers and states it\n  \
         hint: put the rule that matches fewer callers above the other"
    );
    let limit = "limits = [{ tokens_per_day = 1 }]\n";
    let limits = |per: &str| {
        acme(&format!(
            "limits = [{{ per = \"{per}\", tokens_per_day = 2 }}]"
        ))
    };
    assert!(
        complaint(&format!("{all}{limit}{}", limits("subject")))
            .contains("`tokens_per_day per subject` can never")
    );
    assert!(Policy::parse(&format!("{all}{limit}{}", limits("tenant")), &vocabulary()).is_ok());
}

#[test]
fn a_rule_that_denies_leaves_nothing_in_its_shadow() {
    let deny = "[[rules]]\nname = \"closed\"\ndeny = true\n";
    let acme = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"a\" }\nweight = 3\n";
    assert_eq!(
        complaint(&format!("{deny}{acme}")),
        "4: the rule can never count: `closed` refuses everybody whom it matches"
    );
    assert_eq!(
        complaint(&format!("{acme}{deny}")),
        "5: the rule refuses everybody whom `acme` matches, which can never count then\n  \
         hint: give it a condition, or take the other out"
    );
    assert_eq!(
        complaint(&deny.replace("true", "true\nweight = 2")),
        "1: a rule that denies states `weight`, which nobody gets"
    );
}

#[test]
fn headers_that_are_the_servers_own_or_none_are_refused() {
    for (header, words) in [
        (
            "Set-Cookie = \"a=b\"",
            "the header `Set-Cookie` is the server's own",
        ),
        (
            "content-length = \"5\"",
            "the header `content-length` is the server's own",
        ),
        (
            "WWW-Authenticate = \"x\"",
            "the header `WWW-Authenticate` is the server's own",
        ),
        (
            "x-ratelimit-limit-tokens = \"9\"",
            "the header `x-ratelimit-limit-tokens` is the server's own",
        ),
        (
            "Transfer-Encoding = \"chunked\"",
            "the header `Transfer-Encoding` is the server's own",
        ),
    ] {
        assert_eq!(
            of_rule(&format!("response_headers = {{ {header} }}")),
            format!("3: {words}\n  hint: take a name of yours, such as x-acme-plan")
        );
    }
    for (header, words) in [
        ("\"x plan\" = \"a\"", "`x plan` is no name of a header"),
        ("\"\" = \"a\"", "`` is no name of a header"),
        (
            "x-plan = \"a\\r\\nset-cookie: b\"",
            "the header `x-plan` is not 1 to 256 plain characters",
        ),
        (
            "x-plan = \"\"",
            "the header `x-plan` is not 1 to 256 plain characters",
        ),
        (
            "x-plan = \"a\", X-Plan = \"b\"",
            "the header `x-plan` is there twice",
        ),
    ] {
        assert_eq!(
            of_rule(&format!("response_headers = {{ {header} }}")),
            format!("3: {words}")
        );
    }
}

#[test]
fn among_several_issuers_a_name_needs_the_one_that_gave_it() {
    let vocabulary = Vocabulary {
        issuers: vec![ISSUER.to_owned(), "https://other.example/".to_owned()],
        ..vocabulary()
    };
    let parse = |when: &str| {
        let text = format!("[[rules]]\nname = \"it\"\nwhen = {{ {when} }}\n");
        Policy::parse(&text, &vocabulary).map_err(|faults| faults[0].to_string())
    };
    for (condition, name) in [
        ("subject = \"root\"", "subject"),
        ("tenant = \"a\"", "tenant"),
        ("client = \"a\"", "client"),
        ("claims = { role = \"admin\" }", "claims"),
    ] {
        assert_eq!(
            parse(condition).unwrap_err(),
            format!(
                "1: `{name}` is a name that each of the 2 issuers gives by itself\n  hint: name the `issuer` too"
            )
        );
        assert!(parse(&format!("issuer = \"{ISSUER}\", {condition}")).is_ok());
    }
    for condition in [
        "scope = \"batch\"",
        "credential = \"token\"",
        "addresses = \"::1\"",
    ] {
        assert!(parse(condition).is_ok(), "{condition}");
    }
}
