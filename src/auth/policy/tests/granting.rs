//! What callers get, and from which rule.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::auth::{Expiry, Limit, Measure, Per, Priority, Share, WhenShort};

#[test]
fn without_a_policy_everybody_may_do_everything() {
    let given = Policy::default().rights(&identity(anybody()), here());
    assert_eq!(*given.unwrap(), Rights::default());
}

#[test]
fn whom_no_rule_matches_is_refused() {
    let text = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\n";
    assert!(decided(text, json!({"tenant": "acme"})).is_ok());
    let denied = decided(text, anybody()).unwrap_err();
    assert_eq!((denied.status(), denied.code()), (403, "access_denied"));
    assert_eq!(denied.detail(), "no rule of the policy matches the caller");
}

#[test]
fn a_rule_that_denies_refuses_wherever_it_stands() {
    let allow = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\nweight = 3\n";
    let deny = "[[rules]]\nname = \"gone\"\nwhen = { subject = \"eve\" }\ndeny = true\n";
    for text in [format!("{allow}{deny}"), format!("{deny}{allow}")] {
        let denied = decided(&text, json!({"sub": "eve", "tenant": "acme"})).unwrap_err();
        assert_eq!((denied.status(), denied.code()), (403, "access_denied"));
        assert_eq!(
            denied.detail(),
            "the policy's rule `gone` refuses the caller"
        );
        assert!(decided(&text, json!({"tenant": "acme"})).is_ok());
    }
    let not = deny.replace("true", "false");
    assert!(decided(&not, json!({"sub": "eve"})).is_ok());
}

#[test]
fn a_specific_rule_overrides_a_general_one_right_by_right() {
    let text = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\nmax_tokens = 4096\nmodels = []\n\
                [[rules]]\nname = \"all\"\nmax_tokens = 1024\nmodels = [\"a*\"]\ntools = false\n";
    let acme = rights(text, json!({"tenant": "acme"}));
    assert_eq!(acme.max_tokens, Some(4096));
    assert!(!acme.allows_model("a"), "an empty list is none");
    assert!(!acme.tools, "what it does not state comes from below");
    assert_eq!(
        acme.rules.iter().map(|it| &**it).collect::<Vec<_>>(),
        ["acme", "all"]
    );
    let other = rights(text, anybody());
    assert_eq!(other.max_tokens, Some(1024));
    assert!(other.allows_model("a-b") && !other.allows_model("b"));
    assert_eq!(
        other.rules.iter().map(|it| &**it).collect::<Vec<_>>(),
        ["all"]
    );
}

#[test]
fn every_right_is_taken_over_as_it_is_written() {
    let text = "[[rules]]\nname = \"all\"\nmodels = [\"a\", \"b*\"]\nroutes = [\"chat\"]\nscopes = [\"chat\"]\n\
                max_tokens = 1\nmax_context = 2\nmax_n = 3\nmax_request_seconds = 4\ntools = false\n\
                public_prefixes = false\ndenied_fields = [\"seed\"]\npriority = \"low\"\nweight = 5\n\
                response_headers = { X-Plan = \"gold\" }\non_expiry = { grace = \"2m\" }\nwhen_short = \"refuse\"\n\
                limits = [{ per = \"claim:/dept\", tokens_per_day = 6 }]\n";
    let names = |names: &[&str]| names.iter().map(|&name| Box::from(name)).collect();
    assert_eq!(
        *rights(text, anybody()),
        Rights {
            share: Share {
                weight: 5.try_into().unwrap(),
                priority: Priority::Low,
                deadline: Some(Duration::from_secs(4)),
            },
            models: Some(names(&["a", "b*"])),
            routes: Some(names(&["chat"])),
            scopes: Some(names(&["chat"])),
            max_tokens: Some(1),
            max_context: Some(2),
            max_n: Some(3),
            tools: false,
            public_prefixes: false,
            denied_fields: names(&["seed"]),
            limits: [Limit {
                measure: Measure::TokensPerDay,
                per: Per::Claim("/dept".into()),
                most: 6,
            }]
            .into(),
            when_short: WhenShort::Refuse,
            on_expiry: Expiry::Grace(Duration::from_secs(120)),
            response_headers: [("x-plan".into(), "gold".into())].into(),
            rules: ["all".into()].into(),
        }
    );
    let cut = "[[rules]]\nname = \"all\"\non_expiry = \"cut\"\nwhen_short = \"clamp\"\n";
    assert_eq!(rights(cut, anybody()).on_expiry, Expiry::Cut);
}

#[test]
fn unlimited_frees_from_what_a_rule_below_states() {
    let text = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\nmax_tokens = \"unlimited\"\n\
                max_request_seconds = \"unlimited\"\nlimits = [{ tokens_per_day = \"unlimited\" }]\n\
                [[rules]]\nname = \"all\"\nmax_tokens = 9\nmax_request_seconds = 9\n\
                limits = [{ tokens_per_day = 9, tokens_per_minute = 8 }]\n";
    let acme = rights(text, json!({"tenant": "acme"}));
    assert_eq!((acme.max_tokens, acme.share.deadline), (None, None));
    let measures: Vec<Measure> = acme.limits.iter().map(|limit| limit.measure).collect();
    assert_eq!(measures, [Measure::TokensPerMinute]);
    assert_eq!(rights(text, anybody()).limits.len(), 2);
}

#[test]
fn a_limit_is_named_by_what_it_measures_and_for_whom() {
    let text = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\n\
                limits = [{ per = \"tenant\", tokens_per_minute = 100 }, { tokens_per_minute = 30 }]\n\
                [[rules]]\nname = \"all\"\n\
                limits = [{ tokens_per_minute = 10, requests_per_minute = 5 }]\n";
    let limit = |measure, per, most| Limit { measure, per, most };
    assert_eq!(
        *rights(text, json!({"tenant": "acme"})).limits,
        [
            limit(Measure::TokensPerMinute, Per::Tenant, 100),
            limit(Measure::TokensPerMinute, Per::Subject, 30),
            limit(Measure::RequestsPerMinute, Per::Subject, 5),
        ]
    );
}

#[test]
fn a_claimed_amount_stays_within_the_policys_bounds() {
    let text = "[[rules]]\nname = \"all\"\n\
                limits = [{ tokens_per_minute = { claim = \"/plan/tpm\", at_most = 60, otherwise = 10 } }]\n";
    let most = |value| rights(text, json!({"plan": {"tpm": value}})).limits[0].most;
    assert_eq!(most(json!(30)), 30);
    assert_eq!(most(json!("30")), 30);
    assert_eq!(most(json!(60)), 60);
    assert_eq!(most(json!(61)), 60);
    assert_eq!(most(json!(u64::MAX)), 60);
    assert_eq!(most(json!(0)), 0);
    for other in [
        json!(-1),
        json!(30.5),
        json!(1e9),
        json!("-1"),
        json!("+30"),
        json!("thirty"),
        json!(""),
        json!("99999999999999999999999"),
        json!(null),
        json!(true),
        json!([30]),
        json!({"tpm": 30}),
    ] {
        assert_eq!(most(other.clone()), 10, "{other}");
    }
    assert_eq!(rights(text, anybody()).limits[0].most, 10);
}

#[test]
fn claims_called_as_rights_change_nothing() {
    let text = "[[rules]]\nname = \"all\"\nweight = 2\n";
    let claims = json!({
        "weight": 1000, "priority": "high", "max_tokens": 9, "rules": [{"weight": 9}], "deny": true, "models": [],
    });
    assert_eq!(rights(text, claims), rights(text, anybody()));
}

#[test]
fn a_decision_names_the_rule_behind_each_right_and_limit() {
    let text = "[[rules]]\nname = \"acme\"\nwhen = { tenant = \"acme\" }\nmax_tokens = 4096\n\
                limits = [{ tokens_per_day = \"unlimited\" }]\n\
                [[rules]]\nname = \"all\"\nmax_tokens = 1024\ntools = false\nlimits = [{ tokens_per_day = 9 }]\n";
    let decision = policy(text).decide(&identity(json!({"tenant": "acme"})), here());
    let grants: Vec<(String, &str)> = decision
        .grants()
        .iter()
        .map(|grant| (grant.right(), grant.rule()))
        .collect();
    let expected = [
        ("max_tokens", "acme"),
        ("tools", "all"),
        ("tokens_per_day per subject", "acme"),
    ];
    assert_eq!(
        grants,
        expected.map(|(right, rule)| (right.to_owned(), rule))
    );
}
