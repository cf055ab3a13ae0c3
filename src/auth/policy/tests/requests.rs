//! What rights say to a request.

use serde_json::json;

use super::*;
use crate::auth::Access;

fn refusal(denied: Result<(), Denied>) -> (u16, &'static str, Option<&'static str>, String) {
    let denied = denied.unwrap_err();
    (
        denied.status(),
        denied.code(),
        denied.param(),
        denied.message().into_owned(),
    )
}

#[test]
fn routes_and_scopes_narrow_what_the_token_allows_and_widen_nothing() {
    let text = "[[rules]]\nname = \"all\"\nscopes = [\"chat\", \"models\"]\nroutes = [\"chat\", \"metrics\"]\n";
    let rights = rights(text, anybody());
    let ann = identity(json!({"scope": "chat metrics"}));
    let check = |scope, route| rights.check_route(&ann, Access::Scope(scope), route);
    assert_eq!(check("chat", "chat"), Ok(()));
    let message = "This server's policy does not let you use this route.".to_owned();
    let by_policy = (403, "access_denied", None, message);
    assert_eq!(refusal(check("chat", "models")), by_policy, "the route");
    assert_eq!(refusal(check("metrics", "metrics")), by_policy, "the scope");
    assert_eq!(
        refusal(check("models", "chat")),
        (
            403,
            "insufficient_scope",
            None,
            "The access token lacks the scope `models`.".to_owned()
        )
    );
    assert!(rights.check_route(&ann, Access::Verified, "chat").is_ok());
    assert!(
        rights
            .check_route(&ann, Access::Verified, "version")
            .is_err()
    );
    assert!(rights.check_route(&ann, Access::Public, "livez").is_ok());
}

#[test]
fn an_empty_list_is_none_and_a_star_is_all() {
    let check = |right: &str| {
        let text = format!("[[rules]]\nname = \"all\"\n{right}\n");
        let rights = rights(&text, anybody());
        rights.check_route(&identity(anybody()), Access::Scope("chat"), "chat")
    };
    for right in ["", "routes = [\"*\"]", "scopes = [\"*\"]"] {
        assert_eq!(check(right), Ok(()), "{right}");
    }
    for right in ["routes = []", "scopes = []"] {
        assert!(check(right).is_err(), "{right}");
    }
}

#[test]
fn a_model_is_refused_by_name() {
    let rights = rights(
        "[[rules]]\nname = \"all\"\nmodels = [\"mixtral-*\", \"seedling\"]\n",
        anybody(),
    );
    for model in ["mixtral-8x7b", "mixtral-", "seedling"] {
        assert_eq!(rights.check_model(model), Ok(()));
    }
    for model in ["mixtral", "seedlings", "", "x", "mixtral*"] {
        let message = "You may not use this model.".to_owned();
        assert_eq!(
            refusal(rights.check_model(model)),
            (403, "model_not_allowed", Some("model"), message)
        );
    }
}

#[test]
fn a_number_is_refused_above_its_most() {
    assert_eq!(Rights::check_most("n", 4, Some(4)), Ok(()));
    assert_eq!(Rights::check_most("n", usize::MAX, None), Ok(()));
    assert_eq!(
        refusal(Rights::check_most("n", 5, Some(4))),
        (
            400,
            "parameter_not_allowed",
            Some("n"),
            "'n' may be at most 4 for you.".to_owned()
        )
    );
}

#[test]
fn fields_are_refused_by_name_and_tools_together() {
    let rights = rights(
        "[[rules]]\nname = \"all\"\ndenied_fields = [\"seed\"]\ntools = false\n",
        anybody(),
    );
    assert_eq!(rights.check_field("logit_bias"), Ok(()));
    for field in ["seed", "tools", "tool_choice", "functions", "function_call"] {
        let message = format!("You may not use '{field}'.");
        assert_eq!(
            refusal(rights.check_field(field)),
            (400, "parameter_not_allowed", Some(field), message)
        );
    }
    assert_eq!(Rights::default().check_field("tools"), Ok(()));
}
