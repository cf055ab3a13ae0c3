use std::time::Duration;

use super::*;
use crate::auth::{AuthConfig, MintRequest};

const NOW: u64 = 1_800_000_000;

fn named(name: &str, issuer: Option<&str>, how: How) -> Named {
    Named {
        name: name.to_owned(),
        whose: Whose {
            issuer: issuer.map(str::to_owned),
        },
        how,
    }
}

fn lasting(time: &str) -> How {
    How {
        lasts: Some(time.to_owned()),
        undo: false,
    }
}

fn undoing() -> How {
    How {
        lasts: None,
        undo: true,
    }
}

fn wished(command: RevokeCommand, known: &[&str]) -> Result<Wish, String> {
    let builtin = Some(BuiltinIssuer::ephemeral().unwrap());
    let gate = Gate::new(&AuthConfig::default(), builtin, Clock::system()).unwrap();
    wished_at(&gate, command, known)
}

fn wished_at(gate: &Gate, command: RevokeCommand, known: &[&str]) -> Result<Wish, String> {
    let known: Vec<String> = known.iter().map(|&name| name.to_owned()).collect();
    wish(command, &known, gate, NOW).map_err(|failure| failure.to_string())
}

#[test]
fn the_only_issuer_need_not_be_named_and_one_of_several_must() {
    let subject = |issuer| RevokeCommand::Subject(named("ann", issuer, lasting("30d")));
    let expected = |issuer: &str| Wish {
        what: RevokedName::Subject("ann".to_owned()),
        issuer: issuer.to_owned(),
        lasts: Some(30 * 86_400),
        undo: false,
    };
    assert_eq!(wished(subject(None), &["one"]), Ok(expected("one")));
    assert_eq!(
        wished(subject(Some("other")), &["one"]),
        Ok(expected("other"))
    );
    let which =
        "error: by which issuer is the subject meant?\nhint: --issuer takes one of: one, two";
    assert_eq!(
        wished(subject(None), &["one", "two"]),
        Err(which.to_owned())
    );
}

#[test]
fn what_is_revoked_is_written_down_and_can_be_taken_back() {
    let ledger = Ledger::in_memory();
    let client = |how| RevokeCommand::Client(named("app", None, how));
    let wish = wished(client(How::default()), &["idp"]).unwrap();
    let said = carry_out(&wish, &ledger, NOW).unwrap();
    assert_eq!(
        said,
        "revoked: client app of idp, as far as issued until now"
    );
    let record = RevocationRecord {
        what: RevokedName::Client("app".to_owned()),
        issuer: "idp".to_owned(),
        at: NOW + 1,
        until: None,
    };
    assert_eq!(ledger.revocations(NOW).unwrap(), [record]);
    assert_eq!(
        list(&ledger, NOW).unwrap(),
        "WHAT    NAME  ISSUER  SINCE             UNTIL\n\
         client  app   idp     2027-01-15 08:00  for ever\n"
    );
    let undo = wished(client(undoing()), &["idp"]).unwrap();
    assert_eq!(
        carry_out(&undo, &ledger, NOW).unwrap(),
        "given back: client app of idp"
    );
    let again = carry_out(&undo, &ledger, NOW).unwrap_err().to_string();
    assert_eq!(
        again,
        "error: no revocation names client app of idp\nhint: mixgate revoke list shows all"
    );
}

#[test]
fn a_token_is_revoked_by_itself_for_as_long_as_it_could_be_good() {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let request = MintRequest {
        subject: "ann".to_owned(),
        ttl: Duration::from_secs(600),
        scopes: String::new(),
        claims: serde_json::Map::new(),
    };
    let token = issuer.mint(&request, NOW).unwrap();
    let by_itself = |token: &str, how| {
        RevokeCommand::Token(Token {
            id: None,
            token: Some(token.to_owned()),
            whose: Whose { issuer: None },
            how,
        })
    };
    let wish = wished(
        by_itself(&format!(" Bearer {token}\n"), How::default()),
        &[],
    )
    .unwrap();
    let RevokedName::Token(id) = &wish.what else {
        panic!("{wish:?}")
    };
    assert_eq!(
        (id.len(), &*wish.issuer, wish.lasts),
        (22, "mixgate:local", Some(900))
    );
    let said = carry_out(&wish, &Ledger::in_memory(), NOW).unwrap();
    let expected = format!("revoked: token {id} of mixgate:local, until 2027-01-15 08:15 UTC");
    assert_eq!(said, expected);
    let longer = wished(by_itself(&token, lasting("1h")), &[]).unwrap();
    assert_eq!(longer.lasts, Some(3600));
    let secret = "mg_abcdefgh_xyz";
    let error = wished(by_itself(secret, How::default()), &[]).unwrap_err();
    assert!(
        error.ends_with("\nhint: an API key is revoked by its id: mixgate key revoke"),
        "{error}"
    );
    assert!(!error.contains(secret), "{error}");
}

#[test]
fn a_token_is_named_as_its_issuers_tokens_are() {
    let config: AuthConfig = toml::from_str(
        "[[issuers]]\npreset = \"entra\"\nissuer = \"https://login.microsoftonline.com/{tenantid}/v2.0\"\n\
         tenants = [\"11111111-2222-3333-4444-555555555555\"]\naudiences = [\"api\"]\n",
    )
    .unwrap();
    let gate = Gate::new(&config, None, Clock::system()).unwrap();
    let b64 = |text: &str| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text);
    let issuer = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0";
    let claims = format!(
        r#"{{"iss":"{issuer}","jti":"not this","uti":"this one","exp":{}}}"#,
        NOW + 60
    );
    let token = format!("{}.{}.AAAA", b64(r#"{"alg":"RS256"}"#), b64(&claims));
    let command = |token: String| {
        RevokeCommand::Token(Token {
            id: None,
            token: Some(token),
            whose: Whose { issuer: None },
            how: How::default(),
        })
    };
    let wish = wished_at(&gate, command(token.clone()), &[]).unwrap();
    let expected = (RevokedName::Token("this one".to_owned()), issuer);
    assert_eq!((wish.what, &*wish.issuer), expected);
    // To another server it says nothing.
    let error = wished(command(token), &[]).unwrap_err();
    assert!(
        error.starts_with("error: that is no token of a known issuer: "),
        "{error}"
    );
}

#[test]
fn a_name_that_no_token_could_carry_is_refused() {
    let command = RevokeCommand::Key(named("a\nb", None, How::default()));
    let error = wished(command, &["idp"]).unwrap_err();
    assert_eq!(
        error,
        "error: the value must have 1 to 256 bytes and no control characters"
    );
    let short = RevokeCommand::Issuer(Issuer {
        issuer: "idp".to_owned(),
        how: lasting("0s"),
    });
    let wish = wished(short, &[]).unwrap();
    let ledger = Ledger::in_memory();
    let error = carry_out(&wish, &ledger, NOW).unwrap_err().to_string();
    assert_eq!(error, "error: it must last for at least a second");
    assert!(ledger.revocations(NOW).unwrap().is_empty());
}
