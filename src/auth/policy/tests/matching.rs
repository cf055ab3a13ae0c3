//! Whom a rule matches.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;

/// Whether a rule with this condition matches these claims.
fn meets(condition: &str, claims: Value) -> bool {
    let rule = format!("[[rules]]\nname = \"it\"\nwhen = {{ {condition} }}\nweight = 2\n");
    matching(&rule, claims) == ["it"]
}

#[test]
fn all_conditions_must_hold_and_any_value_of_each_will_do() {
    let both = "subject = [\"ann\", \"bob\"], tenant = \"acme\"";
    assert!(meets(both, json!({"tenant": "acme"})));
    assert!(meets(both, json!({"sub": "bob", "tenant": "acme"})));
    assert!(!meets(both, json!({"sub": "eve", "tenant": "acme"})));
    assert!(!meets(both, json!({"tenant": "acne"})));
    assert!(!meets(both, anybody()));
}

#[test]
fn names_are_compared_byte_for_byte() {
    assert!(!meets("tenant = \"acme\"", json!({"tenant": "Acme"})));
    assert!(!meets("tenant = \"acme\"", json!({"tenant": "acme "})));
    assert!(!meets("scope = \"chat\"", json!({"scope": "chats"})));
    assert!(meets("scope = \"batch\"", json!({"scope": "chat batch"})));
    assert!(meets(&format!("issuer = \"{ISSUER}\""), anybody()));
}

#[test]
fn subjects_tenants_and_clients_may_end_in_a_star() {
    assert!(meets("subject = \"ci-*\"", json!({"sub": "ci-7"})));
    assert!(meets("subject = \"ci-*\"", json!({"sub": "ci-"})));
    assert!(!meets("subject = \"ci-*\"", json!({"sub": "ci"})));
    assert!(!meets("subject = \"c*-7\"", json!({"sub": "ci-7"})));
    assert!(meets("tenant = \"*\"", json!({"tenant": "any"})));
    assert!(!meets("tenant = \"*\"", anybody()), "there is no tenant");
    assert!(meets("client = \"app*\"", json!({"client": "app"})));
}

#[test]
fn a_credential_is_known_by_its_kind() {
    let text =
        "[[rules]]\nname = \"keys\"\nwhen = { credential = [\"api_key\", \"certificate\"] }\n";
    let decided = |credential| {
        let identity = identity_by(credential, ISSUER, anybody());
        policy(text).rights(&identity, here()).is_ok()
    };
    assert!(decided(Credential::ApiKey));
    assert!(decided(Credential::Certificate));
    assert!(!decided(Credential::Token));
}

#[test]
fn a_claim_is_met_by_the_text_of_a_plain_value_or_by_one_in_a_list() {
    let plan = "claims = { plan = [\"gold\", \"7\", \"true\"] }";
    for value in [
        json!("gold"),
        json!(7),
        json!(true),
        json!(["silver", "gold"]),
        json!([1, 7]),
    ] {
        assert!(meets(plan, json!({"plan": value})), "{value}");
    }
    for value in [
        json!("golden"),
        json!("gold silver"),
        json!(7.5),
        json!(false),
        json!(null),
        json!([["gold"]]),
        json!({"gold": true}),
    ] {
        assert!(!meets(plan, json!({"plan": value})), "{value}");
    }
    assert!(!meets(plan, anybody()));
}

#[test]
fn a_claim_with_a_slash_is_a_path() {
    let roles = "claims = { \"/realm_access/roles\" = \"admin\" }";
    let claims = |roles: Value| json!({"realm_access": {"roles": roles}});
    assert!(meets(roles, claims(json!(["user", "admin"]))));
    assert!(!meets(roles, claims(json!(["user"]))));
    assert!(!meets(roles, json!({"/realm_access/roles": "admin"})));
    let both = "claims = { plan = \"gold\", \"/a/b\" = \"c\" }";
    assert!(meets(both, json!({"plan": "gold", "a": {"b": "c"}})));
    assert!(!meets(both, json!({"plan": "gold"})));
}

#[test]
fn an_address_is_met_by_its_network_also_as_mapped_into_ipv6() {
    let text =
        "[[rules]]\nname = \"lab\"\nwhen = { addresses = [\"10.0.0.0/8\", \"2001:db8::1\"] }\n";
    let meets = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        policy(text).rights(&identity(anybody()), address).is_ok()
    };
    for address in [
        "10.0.0.1",
        "10.255.255.255",
        "::ffff:10.1.1.1",
        "2001:db8::1",
    ] {
        assert!(meets(address), "{address}");
    }
    for address in ["11.0.0.1", "::ffff:11.0.0.1", "2001:db8::2", "::10.1.1.1"] {
        assert!(!meets(address), "{address}");
    }
}

#[test]
fn the_lists_of_addresses_follow_their_truth_table() {
    let heard = |lists: &str, address: &str| {
        let text = format!("[addresses]\n{lists}\n[[rules]]\nname = \"all\"\n");
        let address: IpAddr = address.parse().unwrap();
        let policy = policy(&text);
        let allows = policy.allows_address(address);
        let rights = policy.rights(&identity(anybody()), address);
        assert_eq!(allows, rights.is_ok(), "decisions ask the lists too");
        allows
    };
    let (allow, deny) = ("allow = [\"10.0.0.0/8\"]", "deny = [\"10.6.0.0/16\"]");
    let both = format!("{allow}\n{deny}");
    for (lists, address, expected) in [
        ("", "192.0.2.1", true),
        (allow, "10.6.0.1", true),
        (allow, "192.0.2.1", false),
        (deny, "10.6.0.1", false),
        (deny, "192.0.2.1", true),
        (&both, "10.7.0.1", true),
        (&both, "10.6.0.1", false),
        (&both, "192.0.2.1", false),
        (&both, "::ffff:10.7.0.1", true),
        (&both, "::ffff:10.6.0.1", false),
        ("allow = []", "10.6.0.1", false),
        ("deny = []", "10.6.0.1", true),
        ("deny = [\"::ffff:10.6.0.0/112\"]", "10.6.0.1", false),
        ("deny = [\"::ffff:10.6.0.0/112\"]", "10.7.0.1", true),
    ] {
        assert_eq!(heard(lists, address), expected, "{lists} {address}");
    }
}

#[test]
fn whom_the_lists_keep_out_hears_of_the_address_alone() {
    let text = "[addresses]\ndeny = [\"10.0.0.0/8\"]\n[[rules]]\nname = \"all\"\n";
    let denied = decided(text, anybody()).unwrap_err();
    assert_eq!((denied.status(), denied.code()), (403, "ip_not_allowed"));
    assert_eq!(
        denied.detail(),
        "the policy's [addresses] keep 10.1.2.3 out"
    );
}
